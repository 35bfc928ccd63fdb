"""Arrays that lie on a mesh with explicit axes, as `jax.make_mesh` gives them.

There the types of all values say where they lie, and an operation whose result could lie in
two ways is an error. So what is computed within is left to the compiler, on the same devices.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from rbig_nnx.nn.base.changes import calling, write


def on_any_mesh(
    function: Callable[..., tuple[Array, Array]], module: Any, *args: Any
) -> tuple[Array, Array]:
    """`function(module, *args)`, where arrays may be spread over axes that are explicit.

    The function's own values are left to the compiler; its results lie as the rows do.

    Args:
      function: of the module, of rows [..., k] that broadcast and of what else it reads;
        gives [..., d] and [...].
      module: gets what the function writes to it.
      *args: rows are arrays; what is none is passed on.
    """
    mesh = _spread_over((module, args))
    if mesh is None:
        return function(module, *args)
    rows = [a for a in args if isinstance(a, jax.Array)]
    shapes = [a.shape[:-1] for a in rows]
    size = np.broadcast_shapes(*shapes)
    batch: list[Any] = [None] * len(size)
    for a, shape in zip(rows, shapes, strict=True):
        for back in range(1, len(shape) + 1):
            if shape[-back] == size[-back]:
                batch[-back] = batch[-back] or _spec(a)[len(shape) - back]
    specs = (PartitionSpec(*batch, None), PartitionSpec(*batch)), PartitionSpec()
    automatic = jax.sharding.auto_axes(
        functools.partial(calling, function),
        out_sharding=jax.tree.map(functools.partial(NamedSharding, mesh), specs),
    )
    result, changed = automatic(*_everywhere((module, *args)))
    write(module, changed)
    return result


def automatic_mesh(mesh: Mesh) -> Mesh:
    """The same devices and names of axes, over which the compiler spreads arrays."""
    return Mesh(mesh.devices, mesh.axis_names)


def given_meshes(tree: Any) -> list[Mesh]:
    """The meshes that arrays lie on."""
    places = [a.sharding for a in jax.tree.leaves(tree) if _is_concrete(a)]
    return list({p.mesh: None for p in places if isinstance(p, NamedSharding)})


def on_meshes(tree: Any, other: Callable[[Mesh], Mesh]) -> Any:
    """The arrays on other meshes of the same devices; no data move.

    Args:
      tree: of anything; what is no array on a mesh stays as it is.
      other: gives the mesh that takes the place of one.
    """
    if isinstance(tree, dict):  # whose order `jax.tree.map` would change
        return {name: on_meshes(branch, other) for name, branch in tree.items()}

    def one(a):
        where = a.sharding if _is_concrete(a) else None
        if not isinstance(where, NamedSharding) or other(where.mesh) == where.mesh:
            return a
        where = NamedSharding(
            other(where.mesh), where.spec, memory_kind=where.memory_kind
        )
        return jax.make_array_from_single_device_arrays(
            a.shape, where, [part.data for part in a.addressable_shards], dtype=a.dtype
        )

    return jax.tree.map(one, tree)


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """No mesh is set within, whatever `jax.set_mesh` set; not under `jax.jit`."""
    if jax.sharding.get_abstract_mesh().empty:
        yield
        return
    with jax.set_mesh(None):
        yield


@contextlib.contextmanager
def automatic_axes(model: Any) -> Iterator[None]:
    """Within, the model's arrays lie on automatic axes, and no mesh is set.

    Afterwards they, or what every process has written alike in their place, lie where they
    did; what is bound to no device stays so.

    Args:
      model: of variables, changed in place.
    """
    with set_aside():
        state = nnx.state(model)
        where = {
            path: a.sharding
            for path, a in jax.tree_util.tree_leaves_with_path(state)
            if _is_concrete(a) and a.committed
        }
        if where:
            nnx.update(model, on_meshes(state, automatic_mesh))
        try:
            yield
        finally:
            if where:
                back = jax.tree_util.tree_map_with_path(
                    lambda path, a: _put(a, where.get(path)), nnx.state(model)
                )
                nnx.update(model, back)


def _put(a: Any, where: Any) -> Any:
    if where is None or a.sharding == where:
        return a
    if where.is_fully_addressable:
        return jax.device_put(a, where)
    host = np.asarray(a)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])


def _spread_over(tree: Any) -> Any:
    """The mesh over whose explicit axes some of the arrays are spread, or None."""
    arrays = (a for a in jax.tree.leaves(tree) if isinstance(a, jax.Array))
    spread = (jax.typeof(a).sharding.mesh for a in arrays if any(_spec(a)))
    return next(spread, None)


def _everywhere(tree: Any) -> Any:
    """On the mesh that is set, also what came from outside of it: so will gradients be."""
    if jax.sharding.get_abstract_mesh().empty:
        return tree

    def one(a):
        outside = isinstance(a, jax.Array) and jax.typeof(a).sharding.mesh.empty
        return jax.sharding.reshard(a, PartitionSpec()) if outside else a

    return jax.tree.map(one, tree)


def _spec(a: Array) -> tuple[Any, ...]:
    """The mesh axes of each axis of an array, as far as its type tells them."""
    sharding = jax.typeof(a).sharding
    return (*sharding.spec, *[None] * (a.ndim - len(sharding.spec)))


def _is_concrete(a: Any) -> bool:
    return isinstance(a, jax.Array) and not isinstance(a, jax.core.Tracer)
