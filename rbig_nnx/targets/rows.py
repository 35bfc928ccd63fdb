"""The rows of each flow that is fitted: read, looked at, and as arrays."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.fit.checks import check_rows, check_weights
from rbig_nnx.fit.sample import everywhere
from rbig_nnx.math.arrays import at_least_float32, float_array
from rbig_nnx.nn.flow import GaussianizationFlow, check_context
from rbig_nnx.nn.stack import ScannedBlocks
from rbig_nnx.nn.transforms import ClusterTransform
from rbig_nnx.targets.choice import Target

_ROWS = 1_024  # that a function of rows is given at a time


class FlowRows(NamedTuple):
    """What a flow is fitted to."""

    x: Array  # [n, d]
    context: Array | None  # [n, c]
    weights: Array | None  # [n]
    needed: int  # the fits need more rows than this


def check_untraced(model: Any, **arguments: Any) -> None:
    """Refuses arguments that are traced, any within `jax.jit`, and a model without arrays.

    Raises:
      ValueError: naming the argument.
    """
    variables = [v for _, v in nnx.iter_graph(model) if isinstance(v, nnx.Variable)]
    leaves = jax.tree.leaves(variables)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        raise ValueError(
            "`model` must hold arrays; got only their shapes. Build or restore it in full."
        )
    arguments = {"model": variables, **arguments}
    traced = [name for name, value in arguments.items() if _is_traced(value)]
    if traced or _is_traced(jnp.zeros(())):
        raise ValueError(
            f"`{(traced or ['model'])[0]}` must not be traced: a warm start decides on the"
            " host what it fits. Call it outside of jax.jit, vmap, scan and grad, and give"
            " them the model that it returns."
        )


def _is_traced(value: Any) -> bool:
    return any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(value))


def read(target: Target, model: Any) -> Target:
    """The target with the rows, and perhaps the context, that its function makes.

    The function is given a copy of the model in evaluation mode and, of many rows, a part at
    a time. Arrays that do not all have as many rows, or lie on several devices, it is given
    at once.

    Raises:
      ValueError: if it returns neither rows nor (rows, context).
    """
    assert target.read is not None
    found = _in_parts(functools.partial(target.read, _evaluating(model)), target.x)
    if not isinstance(found, tuple):
        found = found, target.context
    if len(found) != 2:
        raise ValueError(
            "`flows` must map paths to functions that return rows or (rows, context); got"
            f" {len(found)} values."
        )
    x, context = found
    return target._replace(x=x, context=context)


def _evaluating(model: Any) -> Any:
    model = nnx.clone(model)
    for part in jax.tree.leaves(model, is_leaf=_is_module):
        if _is_module(part):
            part.eval()
    return model


def _in_parts(function: Callable, x: Any) -> Any:
    arrays = jax.tree.leaves(x)
    spread = any(isinstance(a, jax.Array) and everywhere(a) is not None for a in arrays)
    counts = {np.shape(a)[:1] for a in arrays}
    n = sum(counts.pop()) if len(counts) == 1 and not spread else 0
    if n <= _ROWS:
        return function(x)
    parts = [
        function(jax.tree.map(lambda a, i=i: a[i : i + _ROWS], x))
        for i in range(0, n, _ROWS)
    ]
    return jax.tree.map(_joined, *parts)


def _joined(*parts: Any) -> np.ndarray:
    arrays = list(map(np.asarray, parts))
    return np.concatenate(arrays, axis=-min(arrays[0].ndim, 2))  # members lie before


def _is_module(value: Any) -> bool:
    return isinstance(value, nnx.Module)


def rows_of(target: Target, axes: tuple[int, ...], max_rows: int) -> list[FlowRows]:
    """The rows of each member of an ensemble of shape `axes`, or of one flow, of shape ().

    Raises:
      ValueError: for what a flow cannot be fitted to.
    """
    given = {"x": target.x, "context": target.context}
    apart = {
        name: float_array(a, name)
        for name, a in given.items()
        if axes and np.ndim(a) == 2 + len(axes)
    }
    for name, a in apart.items():
        if a.shape[: len(axes)] != axes:
            raise ValueError(
                f"`{name}` must be [rows, columns] for all members, or {list(axes)} and"
                f" then those for each; got shape {a.shape}."
            )
    if not apart:
        return [_checked(target, max_rows)] * math.prod(axes)
    return [
        _checked(target._replace(**{k: a[at] for k, a in apart.items()}), max_rows)
        for at in np.ndindex(axes)
    ]


def _checked(target: Target, max_rows: int) -> FlowRows:
    """Rows, context and weights as arrays that the flow can be fitted to."""
    flow, x = target.flow, float_array(target.x, "x")
    d = flow.num_features
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(
            f"`x` must be [rows, {d}], the flow's number of features; got {x.shape}."
        )
    x = x.astype(at_least_float32(x.dtype))
    context = check_context(flow, target.context)
    if context is not None and context.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"`context` must have one row per row of `x`, {len(x)}; got shape"
            f" {context.shape}."
        )
    weights, positive = check_weights(target.weights, len(x))
    # Clusters are as many as the rows allow.
    fitted = (la for la in _layers(flow) if not isinstance(la, ClusterTransform))
    needed = max(getattr(la, "num_components", 1) for la in fitted)
    if positive <= needed:
        kind = "" if weights is None else " of positive weight"
        raise ValueError(
            f"`x` must have more rows than `num_components`; got {positive} rows{kind} and"
            f" {needed} components. Fit on more data or build the flow with fewer"
            " components."
        )
    if not max_rows > needed:
        raise ValueError(
            f"`max_rows` must be more than `num_components`; got {max_rows} rows and"
            f" {needed} components. Leave it out."
        )
    for name, rows in (("x", x), ("context", context)):
        if rows is not None:
            check_rows(name, rows)
    return FlowRows(x, context, weights, needed)


def _layers(flow: GaussianizationFlow) -> Iterator[Any]:
    for layer in flow.layers:
        yield from layer.layers if isinstance(layer, ScannedBlocks) else [layer]
