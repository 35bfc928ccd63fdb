"""One message for many arrays, where the compiler would send one for each."""

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

Axes = str | tuple[str, ...]


def mean_of_parts(tree: Any, axes: Axes) -> Any:
    """The mean over the devices of mesh axes, one all-reduce for each type. In `shard_map`."""
    leaves, structure = jax.tree.flatten(tree)
    result: list[Any] = [None] * len(leaves)
    for own in _groups(leaf.dtype for leaf in leaves).values():
        flat = jnp.concatenate([leaves[i].ravel() for i in own])
        start, mean = 0, jax.lax.pmean(flat, axes)
        for i in own:
            result[i] = mean[start : start + leaves[i].size].reshape(leaves[i].shape)
            start += leaves[i].size
    return jax.tree.unflatten(structure, result)


def is_spread(shardings: Any) -> bool:
    """Whether a device holds only a part of some of the arrays; None is one device."""
    return any(_axes_of(where) for where in jax.tree.leaves(shardings))


def whole(tree: Any, shardings: Any) -> Any:
    """The arrays on every device, one all-gather for each type and way to spread. Traced.

    Args:
      tree: arrays.
      shardings: of them, a tree of `NamedSharding`; None for one device.
    """
    if not is_spread(shardings):
        return tree
    leaves, structure = jax.tree.flatten(tree)
    places = jax.tree.leaves(shardings)
    kinds = ((leaf.dtype, _axes_of(w)) for leaf, w in zip(leaves, places, strict=True))
    for (_, axes), own in _groups(kinds).items():
        if axes:
            found = _gathered([leaves[i] for i in own], [places[i] for i in own], axes)
            for i, leaf in zip(own, found, strict=True):
                leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


def in_place(tree: Any, shardings: Any) -> Any:
    """The arrays where these shardings say, if they spread any. Traced."""
    if not is_spread(shardings):
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings)


def over_parts(
    function: Callable[..., Any], mesh: jax.sharding.Mesh, axes: Axes, *args: Any
) -> Any:
    """The mean of `function(*args, rows)` of each device's part of the rows. Traced.

    Args:
      function: gives a tree of arrays, means over the rows that it gets.
      mesh: devices.
      axes: of the mesh, over which rows are spread.
      *args: what every device has alike, and last the rows.
    """
    everywhere = PartitionSpec()
    return jax.shard_map(
        lambda *args: mean_of_parts(function(*args), axes),
        mesh=mesh,
        in_specs=(*[everywhere] * (len(args) - 1), PartitionSpec(axes)),
        out_specs=everywhere,
        check_vma=False,  # loops within start with what is alike everywhere
    )(*args)


def _gathered(leaves: list, places: list[NamedSharding], axes: tuple[str, ...]) -> list:
    mesh = places[0].mesh

    def gather(*parts):
        flat = jnp.concatenate([part.ravel() for part in parts])
        every = jax.lax.all_gather(flat, axes)
        every = every.reshape(*[mesh.shape[a] for a in axes], -1)
        found, start = [], 0
        for leaf, part, place in zip(leaves, parts, places, strict=True):
            piece = every[..., start : start + part.size]
            piece = piece.reshape(*every.shape[:-1], *part.shape)
            order = []
            for number in range(part.ndim):
                names = _names(place.spec[number]) if number < len(place.spec) else ()
                order += [*map(axes.index, names), len(axes) + number]
            found.append(piece.transpose(order).reshape(leaf.shape))
            start += part.size
        return found

    return jax.shard_map(
        gather,
        mesh=mesh,
        in_specs=tuple(place.spec for place in places),
        out_specs=PartitionSpec(),
        check_vma=False,
    )(*leaves)


def _groups(kinds: Any) -> dict[Any, list[int]]:
    found = collections.defaultdict(list)
    for number, kind in enumerate(kinds):
        found[kind].append(number)
    return found


def _axes_of(where: NamedSharding) -> tuple[str, ...]:
    """The mesh axes over which an array is spread, in the mesh's order."""
    used = {name for axis in where.spec for name in _names(axis)}
    return tuple(name for name in where.mesh.axis_names if name in used)


def _names(axis: Any) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else tuple(axis or ())
