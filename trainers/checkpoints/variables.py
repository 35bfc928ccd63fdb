"""A model's variables by dotted name, real ones or those of a model that has none yet."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.meta.checksums import is_held_together, on_host
from trainers.placement.names import dotted

_VALUE = ".value"  # how the paths in a tree of NNX variables end


def arrays_of(model: nnx.Module) -> dict[str, Any]:
    """A model's arrays by dotted name, random keys as their words.

    They are NumPy's, but for those that several processes hold parts of.
    """
    arrays = {}
    for name, leaf in _named_leaves(nnx.state(model)):
        array = jax.random.key_data(leaf) if on_disk.is_key(leaf) else leaf
        here = not is_held_together(array) or array.is_fully_replicated
        arrays[name] = on_host(array) if here else array
    return arrays


def described(
    model: nnx.Module, shardings: Any = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and place of each array by dotted name, random keys as their words.

    Args:
      model: with arrays, or with `jax.ShapeDtypeStruct`s for them.
      shardings: one `jax.sharding.Sharding` for all, or a tree of them with names of the
        model. Of other arrays it is their own, if they lie on several devices; a model
        of `jax.ShapeDtypeStruct`s may tell.

    Raises:
      ValueError: `shardings` that are none or of no array, or that do not divide one.
    """
    leaves = dict(_named_leaves(nnx.state(model)))
    asked = _asked(shardings, leaves)
    result = {}
    for name, leaf in leaves.items():
        sharding = _on_devices(asked.get(name) or _own(leaf), name)
        if on_disk.is_key(leaf):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        try:
            if sharding is not None:
                sharding.shard_shape(leaf.shape)
        except ValueError as error:
            raise ValueError(
                f"`shardings` must divide {name}, of shape {leaf.shape}; got {sharding}."
            ) from error
        result[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return result


def with_arrays(
    model: nnx.Module,
    arrays: dict[str, np.ndarray | jax.Array],
    places: Mapping[str, jax.ShapeDtypeStruct] | None = None,
) -> nnx.Module:
    """A new model like `model` with the named arrays for its own, in its own types.

    `arrays` is emptied: none of them is held twice for longer than it takes to move it.

    Args:
      model: with arrays, or with what says what they are to be.
      arrays: by dotted name.
      places: as of `described`; where one has a sharding the array goes there.
    """
    places = places or {}
    graphdef, state = nnx.split(model)

    def new(name: str, leaf: Any) -> Any:
        if name not in arrays:
            return leaf
        sharding = getattr(places.get(name), "sharding", None)
        return _like(leaf, arrays.pop(name), sharding)

    flat = []
    for path, variable in nnx.to_flat_state(state):
        named = list(_named_arrays(path, variable))
        structure = jax.tree.structure(_value(variable))
        value = jax.tree.unflatten(structure, [new(name, leaf) for name, leaf in named])
        whole = jax.tree_util.treedef_is_leaf(structure)
        flat.append((path, value if whole else variable.replace(value)))
    return nnx.merge(graphdef, nnx.from_flat_state(flat), copy=True)


def is_abstract(leaf: Any) -> bool:
    """Whether a leaf only says what its array is to be."""
    return isinstance(leaf, jax.ShapeDtypeStruct)


def abstract_names(model: nnx.Module) -> list[str]:
    """Of the leaves that only say what they are to be."""
    return [n for n, leaf in _named_leaves(nnx.state(model)) if is_abstract(leaf)]


def _named_leaves(state: Any) -> Iterator[tuple[str, Any]]:
    for path, variable in nnx.to_flat_state(state):
        yield from _named_arrays(path, variable)


def _named_arrays(path: tuple, variable: Any) -> Iterator[tuple[str, Any]]:
    """One, or those of a tree, such as integers and their scale."""
    for inner, array in jax.tree_util.tree_leaves_with_path(_value(variable)):
        array = array if hasattr(array, "shape") else np.asarray(array)  # a number
        yield dotted((*path, *inner)), array


def _value(variable: Any) -> Any:
    return variable.get_value() if isinstance(variable, nnx.Variable) else variable


def _asked(shardings: Any, leaves: Mapping[str, Any]) -> dict[str, Any]:
    found = jax.tree_util.tree_leaves_with_path(shardings)
    for path, sharding in found:
        if not isinstance(sharding, jax.sharding.Sharding):
            raise ValueError(
                "`shardings` must be a jax.sharding.Sharding or a tree of them; got"
                f" {type(sharding).__name__} for {dotted(path) or 'all'}. Use"
                " jax.NamedSharding(mesh, spec)."
            )
    if isinstance(shardings, jax.sharding.Sharding):
        return dict.fromkeys(leaves, shardings)
    named = {dotted(path).removesuffix(_VALUE): value for path, value in found}
    if unknown := sorted(named.keys() - leaves.keys()):
        raise ValueError(
            f"`shardings` must have names of the model; got {', '.join(unknown[:3])},"
            f" which is none of {', '.join(list(leaves)[:3])}, ..."
        )
    return named


def _own(leaf: Any) -> Any:
    if is_abstract(leaf):
        return leaf.sharding
    spread = isinstance(leaf, jax.Array) and len(leaf.devices()) > 1
    return leaf.sharding if spread else None


def _on_devices(sharding: Any, name: str) -> Any:
    """Of a mesh that has no devices, the same on the mesh that is set."""
    if not isinstance(getattr(sharding, "mesh", None), jax.sharding.AbstractMesh):
        return sharding
    mesh = jax.sharding.get_mesh()
    if sharding.mesh.empty or mesh.axis_names != sharding.mesh.axis_names:
        if sharding.is_fully_replicated:
            return None
        raise ValueError(
            f"`model` must say on which devices {name} is to lie; got a sharding of a mesh"
            f" without devices, {sharding.spec}. Restore it under `jax.set_mesh(mesh)`,"
            " pass `shardings`, or build it by nnx.get_abstract_model(build, mesh)."
        )
    return jax.NamedSharding(mesh, sharding.spec)


def _like(leaf: Any, array: np.ndarray | jax.Array, sharding: Any) -> jax.Array:
    if on_disk.is_key(leaf):
        words = array if sharding is None else jax.device_put(array, sharding)
        return jax.random.wrap_key_data(jnp.asarray(words), impl=_key_impl(leaf))
    if sharding is None:
        return jnp.asarray(array, leaf.dtype)
    return jax.device_put(array.astype(leaf.dtype), sharding)


def _key_impl(leaf: Any) -> Any:
    found = []
    # In a trace: what only says that it is a key does not give it.
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
    return found[0]
