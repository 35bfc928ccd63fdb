"""Mixtures with full covariances to Gaussian ones as a Distrax bijector."""

import distrax
from jaxtyping import Array

from rbig_nnx.math import clusters
from rbig_nnx.math.clusters import ANCHOR_WEIGHT, ClusterParams


class ClusterGaussianization(distrax.Bijector):
    """z_i = Φ⁻¹(F(x_i | x_1 … x_{i−1})), F of a mixture of Gaussians with full covariances.

    Rosenblatt, Remarks on a multivariate transformation, 1952; see `rbig_nnx.math.clusters`.
    Rows of the mixture become standard normal exactly. The forward map takes all features at
    once, the inverse one after the other. Events are vectors.

    Args:
      params: of the mixture.
      anchor_weight: weight of one more component, the fixed N(0, I).

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors import ClusterGaussianization
      >>> from rbig_nnx.math.clusters import ClusterParams
      >>> shapes = (2,), (2, 3), (2, 3, 3), (2, 3)
      >>> bijector = ClusterGaussianization(ClusterParams(*map(jnp.zeros, shapes)))
      >>> print(bijector.forward(jnp.array([-1.0, 0.0, 2.0])).round(3))
      [-1.  0.  2.]
    """

    def __init__(self, params: ClusterParams, *, anchor_weight: float = ANCHOR_WEIGHT):
        super().__init__(event_ndims_in=1)
        self._params = params
        self._anchor_weight = anchor_weight

    @property
    def params(self) -> ClusterParams:
        """Of the mixture."""
        return self._params

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return clusters.gaussianize(x, self._params, anchor_weight=self._anchor_weight)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        x = clusters.quantiles(y, self._params, anchor_weight=self._anchor_weight)
        return x, -self.forward_and_log_det(x)[1]
