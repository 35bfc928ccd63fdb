"""A rotation that stays one whatever the optimiser does."""

from typing import Any

import distrax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from rbig_nnx.bijectors import Householder
from rbig_nnx.math.params import whole
from rbig_nnx.nn.base.layer import Frozen, Layer

_NORMAL = nnx.initializers.normal(1.0)


class HouseholderRotation(Layer):
    """y = x H_1 … H_r, reflections with trainable vectors.

    Tomczak and Welling, Improving variational auto-encoders using Householder flow, 2016.
    `num_features` reflections reach every orthogonal matrix with determinant (−1)^r, that
    is every rotation up to the sign of one axis, to which a mixture is indifferent.

    Args:
      num_features: d.
      num_reflections: r ≥ 1; None for d, enough for any rotation.
      trainable: "vectors" to train them, "none" to hold them in a `Frozen` variable.
      param_dtype: dtype of the vectors.
      vectors_init: initialiser (key, shape, dtype) of the vectors, [r, d].
      vectors_metadata: metadata of the variable, for instance its sharding.
      rngs: source of the initial vectors.

    Raises:
      ValueError: if `num_reflections` < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> layer = rn.HouseholderRotation(3, rngs=nnx.Rngs(0))
      >>> y = layer.bijector().forward(jnp.array([3.0, 0.0, 4.0]))
      >>> print(jnp.linalg.norm(y).round(4))
      5.0
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_reflections: int | None = None,
        trainable: str = "vectors",
        param_dtype: Any = jnp.float32,
        vectors_init: nnx.Initializer = _NORMAL,
        vectors_metadata: dict[str, Any] | None = None,
        rngs: nnx.Rngs,
    ):
        num_features = whole("num_features", num_features)
        if num_reflections is None:
            num_reflections = num_features
        advice = "Leave it out for any rotation, or leave the layer out for none."
        num_reflections = whole("num_reflections", num_reflections, advice=advice)
        if trainable not in ("vectors", "none"):
            raise ValueError(
                f"`trainable` must be 'vectors' or 'none'; got {trainable!r}."
            )
        self.num_features = num_features
        self.num_reflections = num_reflections
        self.trainable = trainable
        variable = nnx.Param if trainable == "vectors" else Frozen
        shape = (num_reflections, num_features)
        self.vectors = variable(
            vectors_init(rngs.params(), shape, param_dtype), **(vectors_metadata or {})
        )

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The rotation at the current vectors."""
        del context
        return Householder(self.vectors[...])

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {
            "num_features": self.num_features,
            "num_reflections": self.num_reflections,
            "trainable": self.trainable,
        }
