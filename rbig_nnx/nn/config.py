"""A flow as JSON and back: what a checkpoint carries beside its arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.standardize import Standardize

_LAYERS = {
    layer.__name__: layer
    for layer in (
        HouseholderRotation,
        MixtureCDFCoupling,
        MixtureCDFMarginal,
        Standardize,
    )
}


def to_config(flow: GaussianizationFlow) -> dict[str, Any]:
    """Describes a flow of this package's layers as JSON-able values.

    Raises:
      ValueError: for a layer, trunk or activation of the user's own.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> config = rn.to_config(rn.diagonal_flow(2, 1, rngs=nnx.Rngs(0)))
      >>> print([layer["type"] for layer in config["layers"]])
      ['Standardize', 'HouseholderRotation', 'MixtureCDFMarginal']
    """
    if not isinstance(flow, GaussianizationFlow):
        raise ValueError(
            f"only a GaussianizationFlow can be described; got {type(flow).__name__}."
        )
    layers = []
    for layer in flow.layers:
        name = type(layer).__name__
        if _LAYERS.get(name) is not type(layer):
            raise ValueError(
                f"a layer of type {name} cannot be described as JSON; build the model in"
                " code and restore its parameters."
            )
        layers.append({"type": name, **layer.config()})
    return {
        "num_features": flow.num_features,
        "context_features": flow.context_features,
        "layers": layers,
    }


def from_config(config: dict[str, Any], *, rngs: nnx.Rngs) -> GaussianizationFlow:
    """Builds the flow that `to_config` described, with fresh parameters.

    Raises:
      ValueError: for an unknown layer type.
    """
    layers = []
    for entry in config["layers"]:
        arguments = dict(entry)
        name = arguments.pop("type")
        if name not in _LAYERS:
            raise ValueError(
                f"`type` must be one of {sorted(_LAYERS)}; got {name!r}. The"
                " configuration may be of a newer version of rbig-nnx."
            )
        if arguments.get("activation"):
            arguments["activation"] = getattr(jax.nn, arguments["activation"])
        if arguments.get("dtype"):
            arguments["dtype"] = jnp.dtype(arguments["dtype"])
        layers.append(
            _LAYERS[name](arguments.pop("num_features"), **arguments, rngs=rngs)
        )
    return GaussianizationFlow(
        layers,
        num_features=config["num_features"],
        context_features=config["context_features"],
    )
