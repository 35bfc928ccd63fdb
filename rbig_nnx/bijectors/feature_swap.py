"""Two halves of the features change places."""

import distrax
import jax.numpy as jnp
from jaxtyping import Array

from rbig_nnx.math import masks


class FeatureSwap(distrax.Bijector):
    """y[mask] = x[~mask], y[~mask] = x[mask]: its own inverse.

    Args:
      mask: d booleans, half of them True.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors.feature_swap import FeatureSwap
      >>> print(FeatureSwap((True, False, False, True)).forward(jnp.arange(4)))
      [1 0 3 2]
    """

    def __init__(self, mask: masks.Mask):
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self._mask = masks.check(mask)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        passive, moved = masks.split(x.T, self._mask)
        y = masks.join(moved, passive, self._mask).T
        return y, jnp.zeros(x.shape[:-1], x.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return self.forward_and_log_det(y)
