"""A flow as JSON and back: what a checkpoint carries beside its arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.stack import ScannedBlocks
from rbig_nnx.nn.standardize import Standardize, Whiten
from rbig_nnx.nn.tails import RadialTransform, TailTransform

_LAYERS = {
    layer.__name__: layer
    for layer in (
        HouseholderRotation,
        MixtureCDFCoupling,
        MixtureCDFMarginal,
        RadialTransform,
        Standardize,
        TailTransform,
        Whiten,
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
    # Not a subclass: what its methods do differently would be lost.
    if type(flow) is not GaussianizationFlow:
        raise ValueError(
            f"only a GaussianizationFlow itself can be described; got"
            f" {type(flow).__name__}. Build the model in code and restore its parameters."
        )
    return {
        "num_features": flow.num_features,
        "context_features": flow.context_features,
        "layers": [_layer_to_config(layer) for layer in flow.layers],
    }


def _layer_to_config(layer: Any) -> dict[str, Any]:
    name = type(layer).__name__
    if type(layer) is ScannedBlocks:
        unit = [_layer_to_config(part) for part in layer.layers]
        return {"type": name, "num_blocks": layer.num_blocks, "layers": unit}
    if _LAYERS.get(name) is not type(layer):
        raise ValueError(
            f"a layer of type {name} cannot be described as JSON; build the model in"
            " code and restore its parameters."
        )
    dtype = jax.tree.leaves(layer)[0].dtype  # a layer's arrays have one
    # The usual one is not told: checkpoints of earlier releases do not tell it either.
    told = {} if dtype == jnp.float32 else {"param_dtype": dtype.name}
    return {"type": name, **layer.config(), **told}


def from_config(config: dict[str, Any], *, rngs: nnx.Rngs) -> GaussianizationFlow:
    """Builds the flow that `to_config` described, with fresh parameters.

    Raises:
      ValueError: for an unknown layer type.
    """
    return GaussianizationFlow(
        [_layer_from_config(entry, rngs) for entry in config["layers"]],
        num_features=config["num_features"],
        context_features=config["context_features"],
    )


def _layer_from_config(entry: dict[str, Any], rngs: nnx.Rngs) -> nnx.Module:
    arguments = dict(entry)
    name = arguments.pop("type")
    if name == ScannedBlocks.__name__:
        return ScannedBlocks(
            [
                [_layer_from_config(part, rngs) for part in entry["layers"]]
                for _ in range(entry["num_blocks"])
            ]
        )
    if name not in _LAYERS:
        raise ValueError(
            f"`type` must be one of {sorted([*_LAYERS, ScannedBlocks.__name__])}; got"
            f" {name!r}. The configuration may be of a newer version of rbig-nnx."
        )
    if arguments.get("activation"):
        arguments["activation"] = getattr(jax.nn, arguments["activation"])
    for dtype in ("dtype", "param_dtype"):
        if arguments.get(dtype):
            arguments[dtype] = jnp.dtype(arguments[dtype])
    return _LAYERS[name](arguments.pop("num_features"), **arguments, rngs=rngs)
