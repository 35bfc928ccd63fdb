"""Heavy tails to Gaussian ones as a Distrax bijector."""

import distrax
from jaxtyping import Array

from rbig_nnx.math.tails import columns
from rbig_nnx.math.tails.columns import TailParams


class TailGaussianization(distrax.Bijector):
    """Elementwise z = sign(t) √(log(1 + λ t²) / λ), t = (x − location) / scale.

    λ ≥ 0 is the tail index of t's side: what falls like |x|^(−1/λ) becomes Gaussian, and at
    λ = 0 the map is the identity up to location and scale. The layer next to the data that
    Hickling and Prangle, Flexible tails for normalizing flows, 2025, argue for. Their own
    map, through erfc(|z| / √2)^(−λ), has exponential tails and a bend in the middle at
    λ = 0; this one is of Wallace, see `rbig_nnx.math.tails.columns`. Scalar events; use
    `distrax.Block(b, 1)` for vectors.

    Args:
      params: location, log scale and both tail indices, broadcasting against x.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors import TailGaussianization
      >>> from rbig_nnx.math.tails.columns import TailParams
      >>> bijector = TailGaussianization(TailParams(*jnp.array([0.0, 0.0, 0.0, 1.0])))
      >>> print(bijector.forward(jnp.array([-2.0, 0.0, 1e4])).round(2))
      [-2.    0.    4.29]
    """

    def __init__(self, params: TailParams):
        super().__init__(event_ndims_in=0)
        self._params = params

    @property
    def params(self) -> TailParams:
        """Location, log scale and the two tail indices."""
        return self._params

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return columns.lighten(x, self._params)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return columns.fatten(y, self._params)
