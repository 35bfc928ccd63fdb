"""A flow as JSON and back: what a checkpoint carries beside its arrays."""

import json
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.network import ACTIVATIONS
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.stack import ScannedBlocks
from rbig_nnx.nn.standardize import Standardize, Whiten
from rbig_nnx.nn.transforms import ClusterTransform, RadialTransform, TailTransform

_OWN = (
    ClusterTransform,
    HouseholderRotation,
    MixtureCDFCoupling,
    MixtureCDFMarginal,
    RadialTransform,
    Standardize,
    TailTransform,
    Whiten,
)
_LAYERS: dict[str, type] = {layer.__name__: layer for layer in _OWN}

Class = TypeVar("Class", bound=type)


def register_layer(layer: Class) -> Class:
    """Lets flows with layers of this class of yours be saved and rebuilt; a decorator.

    A checkpoint names the class and never says where to import it from: a program that loads
    the flow registers the class first.

    Args:
      layer: the class, with a method `config()` that gives the keyword arguments of its
        constructor as JSON-able values; the constructor takes `rngs` beside them.

    Returns:
      The class.

    Raises:
      ValueError: no such method, or a name that another layer has.

    Example:
      >>> import distrax
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> @rn.register_layer
      ... class Scale(nnx.Module):
      ...     def __init__(self, factor, *, rngs=None):
      ...         self.factor = factor
      ...     def bijector(self, context=None):
      ...         return distrax.Block(distrax.ScalarAffine(0.0, self.factor), 1)
      ...     def config(self):
      ...         return {"factor": self.factor}
      >>> config = rn.to_config(rn.GaussianizationFlow([Scale(2.0), rn.Standardize(3)]))
      >>> print(rn.from_config(config, rngs=nnx.Rngs(0)).layers[0].factor)
      2.0
    """
    name = layer.__name__
    if not callable(getattr(layer, "config", None)):
        raise ValueError(
            f"`layer` must have a method config() that gives its constructor's arguments;"
            f" {name} has none."
        )
    taken = _LAYERS.get(name, layer)
    # A notebook's cell that runs again makes the class anew.
    same = (taken.__module__, taken.__qualname__) == (
        layer.__module__,
        layer.__qualname__,
    )
    if not same or name == ScannedBlocks.__name__:
        raise ValueError(
            f"`layer` must have a name of its own; {name} is also a class of"
            f" {taken.__module__}. Rename yours."
        )
    _LAYERS[name] = layer
    return layer


def to_config(flow: GaussianizationFlow) -> dict[str, Any]:
    """Describes a flow of this package's layers as JSON-able values.

    Raises:
      ValueError: for a layer that is not registered, a trunk or an activation of the
        user's own.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> config = rn.to_config(rn.diagonal_flow(2, 1, rngs=nnx.Rngs(0)))
      >>> print([layer["type"] for layer in config["layers"]])
      ['Standardize', 'HouseholderRotation', 'MixtureCDFMarginal']
    """
    # Not a subclass: what its methods do differently would be lost.
    for part, own in (
        (flow, GaussianizationFlow),
        (flow.standardize_context, Standardize),
    ):
        if part is not None and type(part) is not own:
            raise ValueError(
                f"only a {own.__name__} itself can be described in its place; got"
                f" {type(part).__name__}. Build the model in code and restore its parameters."
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
            f"a layer of type {name} cannot be described as JSON; register its class by"
            " rbig_nnx.register_layer, or build the model in code and restore its"
            " parameters."
        )
    if not isinstance(layer, _OWN):
        return {"type": name, **_checked(layer.config(), name)}
    # What is fixed in a layer may be wider than its parameters.
    dtypes = {a.dtype for a in jax.tree.leaves(layer)}
    floats = (d for d in dtypes if jnp.issubdtype(d, jnp.floating))
    dtype = min(floats, key=lambda d: d.itemsize)
    # The usual one is not told: checkpoints of earlier releases do not tell it either.
    told = {} if dtype == jnp.float32 else {"param_dtype": dtype.name}
    return {"type": name, **layer.config(), **told}


def _checked(config: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        same = json.loads(json.dumps(config)) == config and "type" not in config
    except TypeError:
        same = False
    if not same:
        raise ValueError(
            f"config() of {name} must give what JSON gives back unchanged (no tuples or"
            f" arrays), and no entry 'type'; got {config}."
        )
    return config


def from_config(config: dict[str, Any], *, rngs: nnx.Rngs) -> GaussianizationFlow:
    """Builds the flow that `to_config` described, with fresh parameters.

    Raises:
      ValueError: for an unknown layer type.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> config = rn.to_config(rn.diagonal_flow(2, 1, rngs=nnx.Rngs(0)))
      >>> flow = rn.from_config(config, rngs=nnx.Rngs(1))
      >>> rn.to_config(flow) == config
      True
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
            f" {name!r}. Register a layer of your own by rbig_nnx.register_layer; else the"
            " configuration may be of a newer version of rbig-nnx."
        )
    if not issubclass(_LAYERS[name], _OWN):
        return _LAYERS[name](**arguments, rngs=rngs)
    if arguments.get("activation"):
        if arguments["activation"] not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {', '.join(ACTIVATIONS)}; got"
                f" {arguments['activation']!r}. Build the model in code."
            )
        arguments["activation"] = ACTIVATIONS[arguments["activation"]]
    for dtype in ("dtype", "param_dtype"):
        if arguments.get(dtype):
            arguments[dtype] = jnp.dtype(arguments[dtype])
    return _LAYERS[name](arguments.pop("num_features"), **arguments, rngs=rngs)
