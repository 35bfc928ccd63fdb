"""Which flows of a model are fitted, and the rows of each."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.fit.checks import check_rows, check_weights
from rbig_nnx.fit.sample import everywhere
from rbig_nnx.math.arrays import float_array
from rbig_nnx.nn.flow import GaussianizationFlow, check_context
from rbig_nnx.nn.stack import ScannedBlocks

_ROWS = 1_024  # that a function of rows is given at a time


class FlowRows(NamedTuple):
    """What a flow is fitted to."""

    x: Array  # [n, d]
    context: Array | None  # [n, c]
    weights: Array | None  # [n]
    needed: int  # the fits need more rows than this


class Target(NamedTuple):
    """A flow that is fitted, and what the caller gave for it."""

    flow: GaussianizationFlow
    paths: list[tuple]  # several where it is shared
    read: Callable | None = None  # (model, x) to rows or (rows, context)
    x: Any = None
    context: Any = None
    weights: Any = None

    @property
    def name(self) -> str:
        """The first path, dotted; empty of the model itself."""
        return _dotted(self.paths[0])


def check_untraced(**arguments: Any) -> None:
    """Refuses arguments that are traced, and any within `jax.jit`.

    Raises:
      ValueError: naming the argument.
    """
    traced = [name for name, value in arguments.items() if _is_traced(value)]
    if traced or _is_traced(jnp.zeros(())):
        raise ValueError(
            f"`{(traced or ['model'])[0]}` must not be traced: a warm start decides on the"
            " host what it fits. Call it outside of jax.jit, vmap, scan and grad, and give"
            " them the model that it returns."
        )


def _is_traced(value: Any) -> bool:
    return any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(value))


def targets(model: Any, flows: Any, x: Any, context: Any, weights: Any) -> list[Target]:
    """The flows that are asked for, each once, and what belongs to each.

    The arguments are those of `warm_start`.

    Raises:
      ValueError: if there is no flow, or what should name one does not.
    """
    every, reads = _every(model), isinstance(flows, Mapping)
    if reads:
        named = _named("flows", flows, every)
        chosen = [t._replace(read=_checked_read(t.name, read)) for t, read in named]
    elif flows is None and isinstance(x, Mapping):
        chosen = [t for t, _ in _named("x", x, every)]
    else:
        chosen = _matching("flows", flows, every)
    if not chosen:
        raise ValueError(
            "`flows`, or the paths in `x`, must name at least one flow; got none. Leave"
            " `flows` out for all."
        )
    _check_apart(chosen)

    def each(argument: str, value: Any) -> list[Any]:
        if not isinstance(value, Mapping):
            return [value] * len(chosen)
        own = {id(t.flow): found for t, found in _named(argument, value, chosen)}
        return [own.get(id(t.flow)) for t in chosen]

    xs = [x] * len(chosen) if reads else each("x", x)
    contexts = each("context", context)
    conditional = [t.flow.context_features > 0 for t in chosen]
    if any(conditional) and not isinstance(context, Mapping):
        contexts = [context if reads_it else None for reads_it in conditional]
    for t, rows in zip(chosen, xs, strict=True):
        if isinstance(x, Mapping) and rows is None:
            raise ValueError(
                f"`x` must hold rows of every flow that is fitted; got none of"
                f" {t.name!r}."
            )
    weights = each("weights", weights)
    return [
        t._replace(x=x, context=context, weights=w)
        for t, x, context, w in zip(chosen, xs, contexts, weights, strict=True)
    ]


def _every(model: Any) -> list[Target]:
    found: dict[int, Target] = {}
    for path, flow in _paths_of_flows(model):
        found.setdefault(id(flow), Target(flow, [])).paths.append(path)
    if not found:
        raise ValueError(
            "`model` must be or contain a GaussianizationFlow; got"
            f" {type(model).__name__}, which holds none."
        )
    return list(found.values())


def _paths_of_flows(
    node: Any, path: tuple = (), above: tuple = ()
) -> Iterator[tuple[tuple, GaussianizationFlow]]:
    """The flows in a model with their paths, of a shared one all."""
    if isinstance(node, GaussianizationFlow):
        yield path, node
        return
    if isinstance(node, nnx.Variable) or any(node is other for other in above):
        return
    children, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda value: value is not node
    )
    for keys, child in children:
        if keys:  # else it is a leaf
            yield from _paths_of_flows(child, (*path, _key(keys[0])), (*above, node))


def _key(entry: Any) -> str | int:
    return next(
        getattr(entry, kind) for kind in ("name", "idx", "key") if hasattr(entry, kind)
    )


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))


def _checked_read(name: str, read: Any) -> Callable:
    if callable(read):
        return read
    raise ValueError(
        "`flows` must map paths to functions (model, x) -> rows; got"
        f" {type(read).__name__} for {name!r}. Rows themselves go into `x`: {{{name!r}:"
        " rows}."
    )


def _check_apart(chosen: list[Target]) -> None:
    """Refuses flows that share a layer: a fit of one would spoil that of the other."""
    owners: dict[int, Target] = {}
    for target in chosen:
        for i, layer in enumerate(target.flow.layers):
            owner = owners.setdefault(id(layer), target)
            if owner is not target:
                raise ValueError(
                    f"`flows` must have no layers in common; {owner.name!r} and"
                    f" {target.name!r} share the latter's layer {i}. Choose one of them."
                )


def _named(
    argument: str, values: Mapping[Any, Any], every: list[Target]
) -> list[tuple[Target, Any]]:
    """The flows that keys match, each with the value of the first, in the keys' order.

    Raises:
      ValueError: if a key matches no flow, or none that an earlier one does not.
    """
    named: dict[int, tuple[Target, Any]] = {}
    for key, value in values.items():
        matching = _matching(argument, str(key), every)
        if all(id(t.flow) in named for t in matching):
            raise ValueError(
                f"`{argument}` must name each flow once; {key!r} matches only"
                f" {matching[0].name!r}, which an earlier key matches."
            )
        for t in matching:
            named.setdefault(id(t.flow), (t, value))
    return list(named.values())


def _matching(argument: str, flows: Any, every: list[Target]) -> list[Target]:
    """The flows that a path, a filter or one of several matches.

    Raises:
      ValueError: if one of them matches none.
    """
    if flows is None:
        return every
    if isinstance(flows, list | tuple):
        parts = [t for part in flows for t in _matching(argument, part, every)]
        return list({id(t.flow): t for t in parts}.values())
    matches = _predicate(flows)
    found = [t for t in every if any(matches(path, t.flow) for path in t.paths)]
    if not found:
        names = [_dotted(path) for t in every for path in t.paths]
        shown = [repr(name) if name else "'' (the model itself)" for name in names]
        raise ValueError(
            f"`{argument}` must match a flow of the model; {flows!r} matches none of"
            f" {', '.join(shown)}."
        )
    return found


def _predicate(flows: Any) -> Callable[[tuple, GaussianizationFlow], bool]:
    if isinstance(flows, str):
        return lambda path, _: fnmatch.fnmatchcase(_dotted(path), flows)
    if isinstance(flows, nnx.Module) or not (
        callable(flows) or flows is Ellipsis or isinstance(flows, bool)
    ):
        raise ValueError(
            "`flows` must be a path such as 'heads.density', an nnx filter, a list of"
            f" them, or functions of rows by path; got {type(flows).__name__}."
        )
    return nnx.filterlib.to_predicate(flows)


def read_rows(read: Callable, model: Any, x: Any) -> Any:
    """`read(model, x)`, of many rows a part at a time, in evaluation mode.

    Args:
      read: function of a model and rows, which treats every row by itself.
      model: as it is left: `read` gets a copy.
      x: rows, or a tree of arrays of rows. Where they do not all have as many, or lie on
        several devices, they are read at once.

    Returns:
      What `read` returns for all rows: an array, or a tuple of them.
    """
    model = nnx.clone(model)
    for part in jax.tree.leaves(model, is_leaf=_is_module):
        if _is_module(part):
            part.eval()
    arrays = jax.tree.leaves(x)
    spread = any(isinstance(a, jax.Array) and everywhere(a) is not None for a in arrays)
    counts = {np.shape(a)[:1] for a in arrays}
    n = sum(counts.pop()) if len(counts) == 1 and not spread else 0
    if n <= _ROWS:
        return read(model, x)
    parts = [
        read(model, jax.tree.map(lambda a, i=i: a[i : i + _ROWS], x))
        for i in range(0, n, _ROWS)
    ]
    return jax.tree.map(lambda *a: np.concatenate(list(map(np.asarray, a))), *parts)


def _is_module(value: Any) -> bool:
    return isinstance(value, nnx.Module)


def checked(target: Target, max_rows: int) -> FlowRows:
    """Rows, context and weights as arrays that the flow can be fitted to.

    Raises:
      ValueError: for what it cannot.
    """
    flow, x = target.flow, float_array(target.x, "x")
    d = flow.num_features
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(
            f"`x` must be [rows, {d}], the flow's number of features; got {x.shape}."
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    context = check_context(flow, target.context)
    if context is not None and context.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"`context` must have one row per row of `x`, {len(x)}; got shape"
            f" {context.shape}."
        )
    weights, positive = check_weights(target.weights, len(x))
    needed = max(getattr(la, "num_components", 1) for la in _layers(flow))
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
