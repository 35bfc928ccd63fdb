"""The data's location and scale, as a layer whose log determinant counts."""

from typing import Any

import distrax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.nn.frozen import Frozen


class Standardize(nnx.Module):
    """y = (x − mean) / exp(log_scale), fixed; the identity until `warm_start` fits it.

    Args:
      num_features: d.
      param_dtype: dtype of the two vectors.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.Standardize(2)
      >>> print(layer.bijector().forward(jnp.array([1.0, 2.0])))
      [1. 2.]
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
        zeros = np.zeros(num_features, param_dtype)
        self.mean, self.log_scale = Frozen(jnp.array(zeros)), Frozen(jnp.array(zeros))

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The layer as a bijector, data to latent."""
        del context
        # Two maps, not one with shift −mean/scale, which cancels where mean ≫ scale.
        centre = distrax.ScalarAffine(shift=-self.mean[...])
        rescale = distrax.ScalarAffine(
            shift=jnp.zeros_like(self.mean[...]), log_scale=-self.log_scale[...]
        )
        return distrax.Block(distrax.Chain([rescale, centre]), 1)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}
