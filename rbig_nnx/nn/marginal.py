"""The diagonal layer: one mixture per feature."""

from typing import Any

import distrax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.bijectors import MixtureGaussianization
from rbig_nnx.math.params import (
    ANCHOR_WEIGHT,
    Family,
    MixtureParams,
    checked_options,
    identity_params,
    whole,
)
from rbig_nnx.nn.base.layer import Frozen, Layer


def identity_bias(num_features: int, num_components: int, family: Family) -> Array:
    """Packed parameters, [3·K·d], at which the mixture map is close to the identity."""
    identity = identity_params(num_components, family)
    every = (np.broadcast_to(p, (num_features, num_components)) for p in identity)
    return MixtureParams(*every).pack()


def no_scale_limit(num_features: int, dtype: Any) -> Frozen:
    """The largest log scale of each feature's components, [d]: none until a fit sets one.

    Far out the widest component rules. A fit may need it wider than the anchor; training
    that widened it further, on the few rows out there, would compound over the layers.
    """
    return Frozen(jnp.array(np.full(num_features, np.inf, dtype)))


class MixtureCDFMarginal(Layer):
    """z_j = Φ⁻¹(F_j(x_j)) for each feature j: the diagonal layer of RBIG.

    Chen and Gopinath, Gaussianization, 2000; Laparra, Camps-Valls and Malo, Iterative
    Gaussianization, 2011. Close to the identity until fitted or trained.

    Args:
      num_features: d.
      num_components: K, components of each mixture beside the fixed anchor.
      family: "gaussian" or "logistic" components.
      anchor_weight: weight of the fixed N(0, 1) component.
      param_dtype: dtype of the parameters.
      bias_init: initialiser (key, shape, dtype) of the packed parameters, [3·K·d]; None
        for a map close to the identity.
      bias_metadata: metadata of the variable, for instance its sharding.
      rngs: used by `bias_init`.

    Raises:
      ValueError: for `num_components` < 1, an unknown family, an anchor outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.MixtureCDFMarginal(2, num_components=3)
      >>> print(layer.bijector().forward(jnp.zeros(2)).round(3))
      [0. 0.]
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_components: int = 8,
        family: Family = "gaussian",
        anchor_weight: float = ANCHOR_WEIGHT,
        param_dtype: Any = jnp.float32,
        bias_init: nnx.Initializer | None = None,
        bias_metadata: dict[str, Any] | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        options = checked_options(num_components, family, anchor_weight)
        self.num_components, self.anchor_weight = num_components, _ = options
        self.num_features = num_features = whole("num_features", num_features)
        self.family = family
        if bias_init is None:
            bias = identity_bias(num_features, num_components, family)
        else:
            bias = bias_init(rngs.params(), (3 * num_components * num_features,))
        self.bias = nnx.Param(bias.astype(param_dtype), **(bias_metadata or {}))
        self.max_log_scale = no_scale_limit(num_features, param_dtype)

    def mixture_params(self) -> MixtureParams:
        """The mixtures, each array [d, K]."""
        return MixtureParams.unpack(self.bias[...], self.num_components)

    def set_mixtures(self, params: MixtureParams) -> None:
        """Writes mixtures, each array [d, K], into the bias, and limits later scales."""
        self.bias[...] = params.pack().astype(self.bias.dtype)
        self.max_log_scale[...] = params.widest().astype(self.max_log_scale.dtype)

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The marginal map at the current parameters."""
        del context
        inner = MixtureGaussianization(
            self.mixture_params().limited(self.max_log_scale[...]),
            family=self.family,
            anchor_weight=self.anchor_weight,
        )
        return distrax.Block(inner, 1)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {
            "num_features": self.num_features,
            "num_components": self.num_components,
            "family": self.family,
            "anchor_weight": self.anchor_weight,
        }
