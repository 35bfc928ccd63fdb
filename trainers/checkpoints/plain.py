"""Checkpoints that Orbax wrote without this library: one tree of arrays, or items of it.

`ocp.StandardCheckpointer().save(path, nnx.state(model))`, a pure dictionary, the newest step
of a `CheckpointManager`, or one of its items. Nothing in them tells damage from numbers.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.failures import beginning
from trainers.checkpoints.format import CheckpointError
from trainers.paths import Path

_TREE = "_METADATA"  # Orbax writes it beside the arrays of a tree
_VALUE = (
    ".value"  # how names end where a tree of NNX variables was saved, not of arrays
)


def items_in(path: Path, step: int | None) -> dict[str, Path]:
    """The folders of the trees at `path` by the names of their items; "" for a single one.

    Args:
      path: of a tree, of a step, or of a manager's steps.
      step: of a manager; None for its newest.

    Raises:
      CheckpointError: a manager without that step.
    """
    if (path / _TREE).exists():
        return {"": path}
    steps = {int(p.name): p for p in path.iterdir() if p.name.isdigit()}
    items = {p.name: p for p in path.iterdir() if (p / _TREE).exists()}
    if not steps or items.keys() - set(map(str, steps)):
        return items if len(items) != 1 else {"": next(iter(items.values()))}
    if step is not None and step not in steps:
        raise CheckpointError(
            f"`step` must be 'best', 'last' or one of {sorted(steps)} in {path}; got"
            f" {step!r}."
        )
    for number in sorted(steps, reverse=True) if step is None else [step]:
        if found := items_in(steps[number], None):
            return found
    return {}


def describe(items: Mapping[str, Path]) -> dict[str, Any]:
    """Shape and type of every array by dotted name, behind its item's name.

    Raises:
      CheckpointError: what describes a tree is damaged.
    """
    result = {}
    for item, folder in items.items():
        for leaf in jax.tree.leaves(_tree(folder)):
            if hasattr(leaf, "shape"):
                name = leaf.name.removesuffix(_VALUE)
                result[f"{item}.{name}" if item else name] = leaf
    return result


def read(
    items: Mapping[str, Path],
    names: Collection[str],
    places: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, Any]:
    """Some of the arrays that `describe` names.

    Args:
      items: as of `items_in`.
      names: of the arrays.
      places: by name; those with a sharding are read to where it says.

    Raises:
      CheckpointError: Orbax does not read them.
    """
    result = {}
    for item, folder in items.items():
        prefix = f"{item}." if item else ""
        own = {n.removeprefix(prefix) for n in names if n.startswith(prefix)}
        if not own:
            continue

        def target(leaf: Any, prefix: str = prefix) -> Any:
            name = prefix + leaf.name.removesuffix(_VALUE)
            return on_disk.target(leaf.shape, leaf.dtype, places.get(name))

        wanted = _pruned(_tree(folder), own)
        targets = jax.tree.map(target, wanted)
        read = jax.tree.leaves(on_disk.restored(folder, targets, folder))
        for leaf, array in zip(jax.tree.leaves(wanted), read, strict=True):
            name = leaf.name.removesuffix(_VALUE)
            if name in own:
                result[prefix + name] = array
    return result


def _tree(folder: Path) -> Any:
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.metadata(folder).item_metadata.tree
    except Exception as error:  # of many kinds, for a file that does not parse
        raise on_disk.damaged(folder, beginning(error)) from error


def _pruned(tree: Any, names: Collection[str]) -> Any:
    """The tree without the entries of dictionaries that hold none of the names."""
    if not isinstance(tree, dict):
        return tree
    parts = {key: part for key, part in tree.items() if _holds(part, names)}
    return {key: _pruned(part, names) for key, part in parts.items()}


def _holds(tree: Any, names: Collection[str]) -> bool:
    found = (leaf.name for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape"))
    return any(name.removesuffix(_VALUE) in names for name in found)
