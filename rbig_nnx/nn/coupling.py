"""The mixture-CDF coupling layer."""

from collections.abc import Callable, Sequence
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array

from rbig_nnx.bijectors import Coupling, MixtureGaussianization
from rbig_nnx.math import masks
from rbig_nnx.math.params import (
    ANCHOR_WEIGHT,
    Family,
    MixtureParams,
    checked_options,
    whole,
)
from rbig_nnx.nn.base.layer import Layer
from rbig_nnx.nn.conditioner import LECUN_NORMAL, Conditioner
from rbig_nnx.nn.marginal import identity_bias, no_scale_limit
from rbig_nnx.nn.network import jax_nn_name


class MixtureCDFCoupling(Layer):
    """z_j = Φ⁻¹(F_j(x_j; conditioner(x[mask]))) for the features with mask False.

    Ho et al., Flow++, 2019 (logistic mixture-CDF couplings), with the normal quantile of
    Chen and Gopinath, Gaussianization, 2000. With the conditioner's output kernel zero it
    is the marginal map whose mixtures are its bias, a `MixtureCDFMarginal`.

    Args:
      num_features: d ≥ 1, any number.
      mask: d booleans, True = passes unchanged; None lets the first ⌊d/2⌋ pass.
      num_components: K, components of each mixture beside the fixed anchor.
      family: "gaussian" or "logistic" components.
      anchor_weight: weight of the fixed N(0, 1) component.
      context_features: width of the context the conditioner also reads.
      hidden: widths of the conditioner's default trunk.
      trunk: any `nnx.Module` from [..., p + context_features] to [..., h] instead.
      activation: of the default trunk, a function of `jax.nn`.
      dtype: compute dtype of the conditioner; mixtures and log determinants keep x's.
      precision: of the conditioner's products, as of `Conditioner`.
      param_dtype: storage dtype.
      kernel_init: initialiser of the conditioner's kernels.
      kernel_metadata: metadata of every kernel, for instance its sharding.
      bias_metadata: metadata of every bias.
      rngs: source of the initial kernels.

    Raises:
      ValueError: for a mask that is not d booleans or moves nothing, a conditioner that
        would read nothing, or arguments that make no mixture.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> layer = rn.MixtureCDFCoupling(3, mask=(True, False, True), rngs=nnx.Rngs(0))
      >>> y = layer.bijector().forward(jnp.array([1.0, 2.0, 3.0]))
      >>> print(y[0], y[2])
      1.0 3.0
    """

    def __init__(
        self,
        num_features: int,
        *,
        mask: Sequence[bool] | None = None,
        num_components: int = 8,
        family: Family = "gaussian",
        anchor_weight: float = ANCHOR_WEIGHT,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        trunk: nnx.Module | None = None,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dtype: Any = None,
        precision: Any = "highest",
        param_dtype: Any = jnp.float32,
        kernel_init: nnx.Initializer = LECUN_NORMAL,
        kernel_metadata: dict[str, Any] | None = None,
        bias_metadata: dict[str, Any] | None = None,
        rngs: nnx.Rngs,
    ):
        options = checked_options(num_components, family, anchor_weight)
        self.num_components, self.anchor_weight = num_components, _ = options
        num_features = whole("num_features", num_features)
        self.mask = masks.check(masks.half(num_features) if mask is None else mask)
        if len(self.mask) != num_features:
            raise ValueError(
                f"`mask` must have one entry per feature; got {len(self.mask)} entries"
                f" for {num_features} features."
            )
        self.num_features = num_features
        self.family = family
        self.context_features = whole("context_features", context_features, 0)
        num_moved = self.mask.count(False)
        bias = identity_bias(num_moved, num_components, family)
        self.conditioner = Conditioner(
            self.mask.count(True),
            bias.size,
            context_features=context_features,
            hidden=hidden,
            trunk=trunk,
            activation=activation,
            dtype=dtype,
            precision=precision,
            param_dtype=param_dtype,
            kernel_init=kernel_init,
            kernel_metadata=kernel_metadata,
            bias_metadata=bias_metadata,
            rngs=rngs,
        )
        self.conditioner.out.bias[...] = bias.astype(param_dtype)
        self.max_log_scale = no_scale_limit(num_moved, param_dtype)

    def mixture_params(self) -> MixtureParams:
        """The mixtures in the output bias, each array [moved features, K]."""
        bias = self.conditioner.output("bias")[...]
        return MixtureParams.unpack(bias, self.num_components)

    def set_mixtures(self, params: MixtureParams) -> None:
        """Makes the conditioner constant with these mixtures, each [moved features, K].

        No scale that it predicts later exceeds a feature's widest here, or the anchor's 1.
        """
        self.conditioner.make_constant(params.pack())
        self.max_log_scale[...] = params.widest().astype(self.max_log_scale.dtype)

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The coupling at the current parameters, given the context."""
        predict = Partial(_predict, self, context)
        return Coupling(self.mask, predict, self._gaussianization())

    def marginal_bijector(self) -> distrax.Bijector:
        """The map of the mixtures in the bias: `bijector` where the output kernel is zero."""
        always = Partial(_always, self.mixture_params())
        return Coupling(self.mask, always, self._gaussianization())

    def _gaussianization(self) -> Partial:
        options = {"family": self.family, "anchor_weight": self.anchor_weight}
        return Partial(MixtureGaussianization, **options)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able.

        Raises:
          ValueError: if the trunk or the activation is the user's own.
        """
        conditioner = self.conditioner
        name = jax_nn_name(conditioner.activation)
        layers = conditioner.linear_layers()
        if conditioner.hidden is None or layers is None:
            raise ValueError(
                f"a {type(conditioner).__name__} with a trunk of type"
                f" {type(conditioner.trunk).__name__}, or layers of your own in it, cannot be"
                " described as JSON; build the model in code and restore its parameters."
            )
        if name is None:
            raise ValueError(
                f"`activation` must be a function of jax.nn to be described; got"
                f" {conditioner.activation!r}."
            )
        dtype = conditioner.out.dtype
        # The usual one is not told: checkpoints of earlier releases do not tell it either.
        usual = conditioner.precision == "highest"
        told = {} if usual else {"precision": conditioner.precision}
        return {
            "num_features": self.num_features,
            "mask": list(self.mask),
            "num_components": self.num_components,
            "family": self.family,
            "anchor_weight": self.anchor_weight,
            "context_features": self.context_features,
            "hidden": [layer.out_features for layer in layers[:-1]],
            "activation": name,
            "dtype": None if dtype is None else jnp.dtype(dtype).name,
            **told,
        }


# Functions of the module, and not closures: so that the bijectors are pytrees.
def _predict(
    layer: MixtureCDFCoupling, context: Array | None, passive: Array
) -> MixtureParams:
    flat = layer.conditioner(passive, context)
    params = MixtureParams.unpack(flat, layer.num_components)
    return params.limited(layer.max_log_scale[...])


def _always(params: MixtureParams, passive: Array) -> MixtureParams:
    del passive
    return params
