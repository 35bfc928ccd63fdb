"""Elliptical densities to Gaussian ones as a Distrax bijector."""

import distrax
from jaxtyping import Array

from rbig_nnx.math.tails import radius
from rbig_nnx.math.tails.radius import RadialParams


class RadialGaussianization(distrax.Bijector):
    """y = t √(log(1 + λ |t|²) / λ) / |t|, t = x / scale: the radius alone is mapped.

    λ ≥ 0 is the tail index of the radius: densities of an elliptical law, whose features share
    one random scale, become about Gaussian, as Lyu and Simoncelli, Nonlinear extraction of
    independent components of natural images using radial Gaussianization, 2009, propose; at
    λ = 0 the map is the scale alone. Their map of the radius is a table; this one is closed
    both ways, see `rbig_nnx.math.tails.radius`. Events are vectors.

    Args:
      params: log scale and tail index.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors import RadialGaussianization
      >>> from rbig_nnx.math.tails.radius import RadialParams
      >>> bijector = RadialGaussianization(RadialParams(*jnp.array([0.0, 1.0])))
      >>> print(bijector.forward(jnp.array([-3e4, 4e4])).round(2))
      [-2.79  3.72]
    """

    def __init__(self, params: RadialParams):
        super().__init__(event_ndims_in=1)
        self._params = params

    @property
    def params(self) -> RadialParams:
        """Log scale and tail index."""
        return self._params

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return radius.contract(x, self._params)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return radius.expand(y, self._params)
