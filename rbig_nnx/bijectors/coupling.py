"""Coupling with any mask that transforms only the features it moves."""

from collections.abc import Callable, Sequence
from typing import Any

import distrax
import jax.numpy as jnp
from jaxtyping import Array

from rbig_nnx.math import masks


class Coupling(distrax.Bijector):
    """y[mask] = x[mask], y[~mask] = f(x[~mask]; conditioner(x[mask])).

    Dinh et al., Density estimation using Real NVP, 2017, with Distrax's words: `mask` is
    True where a feature passes unchanged. Unlike `distrax.MaskedCoupling` the conditioner
    and the inner bijector see only the features they need, and the mask may be any.

    Args:
      mask: d booleans, True = passes unchanged; at least one False.
      conditioner: maps the passive features [..., p] to the inner bijector's parameters.
      bijector: maps those parameters to a bijector with scalar events over the moved
        features [..., d − p].

    Raises:
      ValueError: if the mask is not a sequence of booleans or moves nothing.

    Example:
      >>> import distrax, jax.numpy as jnp
      >>> from rbig_nnx.bijectors import Coupling
      >>> shift = lambda b: distrax.ScalarAffine(shift=b)
      >>> coupling = Coupling((True, False), lambda x: 10 * x, shift)
      >>> print(coupling.forward(jnp.array([1.0, 2.0])))
      [ 1. 12.]
    """

    def __init__(
        self,
        mask: Sequence[bool],
        conditioner: Callable[[Array], Any],
        bijector: Callable[[Any], distrax.Bijector],
    ):
        super().__init__(event_ndims_in=1)
        self._mask = masks.check(mask)
        self._conditioner = conditioner
        self._bijector = bijector

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return self._apply("forward_and_log_det", x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return self._apply("inverse_and_log_det", y)

    def _apply(self, direction: str, x: Array) -> tuple[Array, Array]:
        self._check_forward_input_shape(x)
        passive, moved = masks.split(x.T, self._mask)
        inner = self._bijector(self._conditioner(passive.T))
        moved, log_det = getattr(inner, direction)(moved.T)
        y = masks.join(passive, moved.T, self._mask).T
        return y, jnp.sum(log_det, axis=-1)
