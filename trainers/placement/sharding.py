"""The mesh and its axis names, and where every array lies on it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rbig_nnx import ScannedBlocks
from trainers.placement.fully_sharded import fully_sharded
from trainers.placement.names import Patterns, by_pattern, dotted

Axes = str | Sequence[str]  # names of a mesh's axes

_DATA = "data"


def prepare_mesh(
    mesh: Mesh | None, data_axis: Axes | None = None
) -> tuple[Mesh | None, tuple[str, ...]]:
    """The mesh with automatic axes, and the axes over which rows are spread, checked.

    `jax.make_mesh` gives explicit axes, under which indexing a sharded array raises.

    Args:
      mesh: devices, or None for one device.
      data_axis: a name or several; None for "data".

    Raises:
      ValueError: no such axis, or several processes and no mesh.
    """
    build = f"Build it with jax.make_mesh((jax.device_count(),), ({_DATA!r},))."
    axes = (data_axis,) if isinstance(data_axis, str) else tuple(data_axis or (_DATA,))
    if mesh is None:
        if jax.process_count() > 1:
            raise ValueError(
                f"`mesh` must be given where {jax.process_count()} processes train"
                f" together; got None. {build}"
            )
        if data_axis is not None:
            raise ValueError(
                f"`data_axis` must name axes of `mesh`; got {data_axis!r} and no mesh."
                " Leave it out, or give the mesh."
            )
        return None, ()
    names = mesh.axis_names
    if data_axis is None and _DATA not in names:
        raise ValueError(
            f"`mesh` must have an axis named {_DATA!r} where `data_axis` names no other;"
            f" got {names}. Say which spread the rows: data_axis={names[0]!r}, or several"
            " in a tuple."
        )
    if set(axes) - set(names) or len(set(axes)) < len(axes):
        raise ValueError(
            f"`data_axis` must name axes of the mesh, {names}, each once; got"
            f" {data_axis!r}."
        )
    return Mesh(mesh.devices, names), axes


def num_parts(mesh: Mesh | None, axes: tuple[str, ...]) -> int:
    """How many devices the rows are spread over."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in axes)


def shown(axes: tuple[str, ...]) -> str:
    """The axes, for messages."""
    return repr(axes[0] if len(axes) == 1 else axes)


def under(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's function, called under the mesh that was set; an empty one sets none."""

    def call(*args: Any) -> Any:
        with jax.set_mesh(mesh):
            return function(*args)

    return function if mesh.empty else call


def check_batch(
    mesh: Mesh | None,
    axes: tuple[str, ...],
    batch_size: int,
    *,
    accumulate: int = 1,
) -> None:
    """Checks that batches can be spread over the mesh.

    Args:
      mesh: devices, or None for one.
      axes: over which rows are spread.
      batch_size: rows of one step over all devices.
      accumulate: parts of a batch that follow each other on the devices.

    Raises:
      ValueError: the batch does not divide into its parts, or they not over the axis.
    """
    devices = num_parts(mesh, axes)
    size = devices * accumulate
    if batch_size % size:
        over = [f"the {devices} devices of the mesh's {shown(axes)} axis"] * (
            devices > 1
        )
        over += [f"`accumulate`={accumulate} parts"] * (accumulate > 1)
        raise ValueError(
            f"`batch_size` must divide over {' and '.join(over)}; got {batch_size} rows a"
            f" step. Use {max(batch_size // size, 1) * size}."
        )


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """A full copy on every device of the mesh."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def over_rows(mesh: Mesh | None, axes: tuple[str, ...]) -> NamedSharding | None:
    """The first axis spread over the data axis of the mesh."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(axes))


def over_columns(mesh: Mesh | None, axes: tuple[str, ...]) -> NamedSharding | None:
    """The second axis spread over the data axis of the mesh."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(None, axes))


def place(tree: Any, shardings: Any) -> Any:
    """Puts arrays that every process has alike on the device, or the devices of a mesh.

    Args:
      tree: host arrays, or arrays on any devices.
      shardings: one for all or a tree of them; None for one device.
    """
    if shardings is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda _: shardings, tree)
    return jax.tree.map(_place_everywhere, tree, shardings)


def _place_everywhere(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _place_everywhere(jax.random.key_data(leaf), replicated(sharding.mesh))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    # Not `device_put`, which compares the values between the processes every time.
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def place_like(tree: Any, like: Any) -> Any:
    """Puts arrays where those of `like` lie; what is bound to no device stays so."""

    def one(new, old):
        return jax.device_put(new, old.sharding if old.committed else None)

    return jax.tree.map(one, tree, like)


def place_own(
    array: np.ndarray, where: NamedSharding | None, shape: tuple[int, ...]
) -> jax.Array:
    """An array of this shape, of which every process gives what lies on its devices."""
    if where is None:
        return jax.numpy.asarray(array)
    return jax.make_array_from_process_local_data(where, array, shape)


def place_rows(rows: Any, mesh: Mesh | None, axes: tuple[str, ...]) -> Any:
    """Spreads rows over the data axis; every process gives those of its own devices."""
    if mesh is None:
        return place(rows, None)
    where = over_rows(mesh, axes)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(where, leaf), rows
    )


def on_this_process(tree: Any) -> Any:
    """The same arrays, where other processes hold parts of them as whole local copies.

    A model that comes back from training must work in one process alone.
    """

    def local(leaf):
        if leaf.is_fully_addressable:
            return leaf
        whole = jax.jit(lambda a: a, out_shardings=replicated(leaf.sharding.mesh))(leaf)
        return whole.addressable_data(0)

    return jax.tree.map(local, tree)


def gathered(array: Any) -> np.ndarray:
    """One small host array from every process, stacked: [processes, ...], bit for bit."""
    array = np.asarray(array, order="C")
    if jax.process_count() == 1:
        return array[None]
    # As bytes: JAX would round float64 and int64.
    parts = multihost_utils.process_allgather(np.frombuffer(array.tobytes(), np.uint8))
    return np.asarray(parts).view(array.dtype).reshape(-1, *array.shape)


def variable_shardings(
    model: nnx.Module, mesh: Mesh, partition: Patterns | str = ()
) -> dict[str, NamedSharding]:
    """The sharding of each of the model's variables, by dotted name.

    Patterns come before the variables' own metadata (`out_sharding`, and Flax's rules for
    logical names), in which axes that the mesh does not have count as None: an annotated
    model runs on any mesh.

    Args:
      model: any module.
      mesh: devices.
      partition: pairs of a pattern of names and the mesh axis (or None) of each of the
        array's axes, `(("*.kernel", (None, "model")),)`. Those of stacked blocks
        (`rbig_nnx.ScannedBlocks`) are the last axes, as if the blocks lay in a list.
        Or the name of a mesh axis, to spread every large array over it.

    Raises:
      ValueError: a pattern that matches nothing or names no axis of the mesh, or an array
        whose axis does not divide over the devices.
    """
    state = nnx.state(model)
    arrays = {dotted(path): leaf for path, leaf in nnx.to_flat_state(state)}
    if isinstance(partition, str):
        return fully_sharded(arrays, mesh, partition)
    for pattern, axes in partition:
        unknown = [a for a in _flat(axes) if a not in mesh.axis_names]
        if unknown:
            raise ValueError(
                f"`partition` must name axes of the mesh, {mesh.axis_names}; got"
                f" {unknown} for {pattern!r}."
            )
    own = {dotted(p): s for p, s in nnx.to_flat_state(nnx.get_partition_spec(state))}
    asked = by_pattern(arrays, partition, argument="partition", default=None)
    stacked = tuple(
        f"{dotted(path)}." if path else ""
        for path, module in nnx.iter_modules(model)
        if isinstance(module, ScannedBlocks)
    )
    result = {}
    for name, leaf in arrays.items():
        axes = asked[name]
        if axes and len(axes) < leaf.ndim and name.startswith(stacked):
            axes = (None, *axes)
        if axes is None:
            spec = own[name]
            spec = spec.get_value() if isinstance(spec, nnx.Variable) else spec
            axes = [_known(axis, mesh) for axis in spec or ()]
        _check_divides(name, leaf.shape, axes, mesh)
        spec = PartitionSpec(*axes) if _flat(axes) else PartitionSpec()
        result[name] = NamedSharding(mesh, spec)
    return result


def like(tree: Any, shardings: Mapping[str, NamedSharding]) -> Any:
    """The shardings in the structure of a dictionary of variables."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: shardings[dotted(path)], tree
    )


def optimizer_shardings(optimizer: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Moments lie where their parameters do; counters and other forms everywhere.

    Args:
      optimizer: its `init` gives the state, in which what belongs to a parameter has the
        path of the parameter at the end of its own.
      params: to train.
      shardings: of them.
      mesh: devices.
    """
    leaves, places = (
        jax.tree_util.tree_leaves_with_path(params),
        jax.tree.leaves(shardings),
    )
    of_params = {
        path: (leaf.shape, place)
        for (path, leaf), place in zip(leaves, places, strict=True)
    }

    def one(path, leaf):
        ends = (path[i:] for i in range(len(path)))
        shape, place = next(filter(None, map(of_params.get, ends)), ((), None))
        return place if place and shape == leaf.shape else replicated(mesh)

    state = jax.eval_shape(optimizer.init, params)
    return jax.tree_util.tree_map_with_path(one, state)


def _flat(axes: Any) -> list[str]:
    return [
        a for axis in axes for a in ((axis,) if isinstance(axis, str) else axis or ())
    ]


def _known(axis: Any, mesh: Mesh) -> tuple[str, ...] | None:
    return tuple(a for a in _flat([axis]) if a in mesh.axis_names) or None


def _check_divides(name: str, shape: tuple[int, ...], axes: Any, mesh: Mesh):
    if len(axes) > len(shape):
        raise ValueError(
            f"`partition` must name at most one mesh axis for each axis of an array;"
            f" got {tuple(axes)} for {name} of shape {shape}."
        )
    for number, axis in enumerate(axes):
        size = int(np.prod([mesh.shape[a] for a in _flat([axis])], dtype=int))
        if shape[number] % size:
            raise ValueError(
                f"axis {number} of {name}, shape {shape}, must divide over the {size}"
                f" devices of mesh axis {axis!r}. Pick a width that does, or give the"
                f" variable ({name!r}, ()) in `partition` to keep it whole."
            )
