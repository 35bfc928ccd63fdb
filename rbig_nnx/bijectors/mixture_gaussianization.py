"""z = Φ⁻¹(F(x)) as a Distrax bijector."""

import distrax
from jaxtyping import Array

from rbig_nnx.math import mixture, root
from rbig_nnx.math.params import ANCHOR_WEIGHT, Family, MixtureParams


class MixtureGaussianization(distrax.Bijector):
    """Elementwise z = Φ⁻¹(F(x)), F the CDF of a one-dimensional mixture.

    Chen and Gopinath, Gaussianization, 2000. Scalar events; use `distrax.Block(b, 1)` for
    vectors. The parameters' leading axes broadcast against x:

    - x [..., d] with parameters [d, K]: one mixture per feature (the marginal map);
    - x [..., d] with parameters [..., d, K]: one mixture per point and feature (couplings).

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors import MixtureGaussianization
      >>> from rbig_nnx.math.params import MixtureParams
      >>> bijector = MixtureGaussianization(MixtureParams(*jnp.zeros((3, 2, 4))))
      >>> print(bijector.forward(jnp.array([[0.0, 1.0]])).round(3))
      [[0. 1.]]
    """

    def __init__(
        self,
        params: MixtureParams,
        *,
        family: Family = "gaussian",
        anchor_weight: float = ANCHOR_WEIGHT,
    ):
        super().__init__(event_ndims_in=0)
        self._params = params
        self._options = {"family": family, "anchor_weight": anchor_weight}

    @property
    def params(self) -> MixtureParams:
        """The mixture parameters, each [..., K]."""
        return self._params

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return mixture.gaussianize(x, self._params, **self._options)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        x = root.quantile(y, self._params, **self._options)
        return x, -mixture.gaussianize(x, self._params, **self._options)[1]
