"""The layer that takes the common radius out of elliptical densities."""

from typing import Any

import distrax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from rbig_nnx.bijectors import RadialGaussianization
from rbig_nnx.math.radial import RadialParams
from rbig_nnx.nn.base.layer import Layer
from rbig_nnx.nn.tails import tail_index


class RadialTransform(Layer):
    """y = t √(log(1 + λ |t|²) / λ) / |t|, t = x / scale.

    Where all features share one random scale, as those of a multivariate Student's t do, maps
    of single features and rotations leave them dependent; the radius |x| of whitened rows
    carries what they share, and here it becomes that of normal rows (Lyu and Simoncelli,
    Nonlinear extraction of independent components of natural images using radial
    Gaussianization, 2009); the map is that of `rbig_nnx.math.radial`. Place it after `Whiten`,
    which then finds the shape of the rows by their likelihood behind this layer.

    It is the identity, exactly, until `warm_start` fits it by maximum likelihood, and stays so
    where rows that were not fitted gain nothing by it. Log scale and tail index train; the
    index is the absolute value of what is stored, which has a derivative at 0 also.

    Args:
      num_features: d.
      param_dtype: dtype of the two parameters.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.RadialTransform(2)
      >>> print(layer.bijector().forward(jnp.array([3.0, 4e4])))
      [3.e+00 4.e+04]
      >>> layer.tail[...] = jnp.array(0.5)
      >>> print(layer.bijector().forward(jnp.array([3e4, 4e4])).round(2))
      [3.88 5.17]
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
        self.log_scale = nnx.Param(jnp.zeros((), param_dtype))
        self.tail = nnx.Param(jnp.zeros((), param_dtype))

    def radial_params(self) -> RadialParams:
        """Log scale and tail index."""
        return RadialParams(self.log_scale[...], tail_index(self.tail[...]))

    def set_radial(self, params: RadialParams) -> None:
        """Writes log scale and tail index."""
        for variable, value in zip((self.log_scale, self.tail), params, strict=True):
            variable[...] = jnp.asarray(value, variable.dtype)

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The map at the current parameters."""
        del context
        return RadialGaussianization(self.radial_params())

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}
