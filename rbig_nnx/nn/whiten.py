"""Linear dependence taken out next to the data, as a layer whose log determinant counts."""

from typing import Any

import distrax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rbig_nnx.bijectors import Linear
from rbig_nnx.nn.frozen import Frozen


class Whiten(nnx.Module):
    """y = x W with a fixed symmetric W; the identity until `warm_start` fits it.

    Fitted, W = C^(−1/2), the whitening that moves the features least (Kessy, Lewin and
    Strimmer, Optimal whitening and decorrelation, 2018): what follows finds uncorrelated
    features, each still mostly itself. Rotations alone cannot unmix sources that were mixed
    by anything but a rotation; behind this layer they can. Place it after `Standardize`, and
    `TailTransform` if there is one.

    Args:
      num_features: d.
      param_dtype: dtype of the matrix.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.Whiten(2)
      >>> layer.set_covariance(jnp.array([[4.0, 0.0], [0.0, 9.0]]))
      >>> print(layer.bijector().forward(jnp.array([2.0, 3.0])))
      [1. 1.]
    """

    def __init__(
        self,
        num_features: int,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        self.num_features = num_features
        identity = np.eye(num_features, dtype=param_dtype)
        self.matrix, self.inverse = (
            Frozen(jnp.array(identity)),
            Frozen(jnp.array(identity)),
        )
        self.log_det = Frozen(jnp.zeros((), param_dtype))

    def set_covariance(self, covariance: Float[Array, "d d"]) -> None:
        """Writes the whitening of rows of this covariance.

        Axes of less than a millionth of the largest variance count as so wide: their numbers
        are rounding of the others'.
        """
        values, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
        scales = np.sqrt(np.maximum(values, 1e-6 * values[-1]))
        for variable, value in (
            (self.matrix, axes / scales @ axes.T),
            (self.inverse, axes * scales @ axes.T),
            (self.log_det, -np.sum(np.log(scales))),
        ):
            variable[...] = jnp.asarray(value, variable.dtype)

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The layer as a bijector, data to latent."""
        del context
        return Linear(self.matrix[...], self.inverse[...], self.log_det[...])

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}
