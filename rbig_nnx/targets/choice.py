"""Which flows of a model are fitted, and what the caller gave for each."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from rbig_nnx.nn.flow import GaussianizationFlow


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
    conditional = [bool(t.flow.context_features) for t in chosen]
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
    for key, child in _children(node):
        yield from _paths_of_flows(child, (*path, key), (*above, node))


def _children(node: Any) -> list[tuple[str | int, Any]]:
    # One level: only the first that is asked about, the node, is opened.
    opened = iter([False])
    found, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda _: next(opened, True)
    )
    if found and not found[0][0]:  # a leaf; or a module that is no pytree
        return list(vars(node).items()) if isinstance(node, nnx.Module) else []
    return [(_key(keys[0]), child) for keys, child in found]


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
