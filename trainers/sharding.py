"""The mesh and its axis names: the one place that knows them."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def prepare_mesh(mesh: Mesh | None, batch_size: int) -> Mesh | None:
    """Checks that rows can be spread over `mesh`; returns it with automatic axes.

    `jax.make_mesh` gives explicit axes, under which indexing a sharded array raises.

    Args:
      mesh: devices with an axis named "data", or None for one device.
      batch_size: rows of one step over all devices.

    Returns:
      The mesh to use, or None.

    Raises:
      ValueError: no axis "data", or the batch does not divide over it.
    """
    if mesh is None:
        return None
    if DATA_AXIS not in mesh.axis_names:
        raise ValueError(
            f"`mesh` must have an axis named {DATA_AXIS!r}; got {mesh.axis_names}."
            f" Build it with jax.make_mesh((jax.device_count(),), ({DATA_AXIS!r},))."
        )
    size = mesh.shape[DATA_AXIS]
    if batch_size % size:
        raise ValueError(
            f"`batch_size` must divide over the {size} devices of the mesh's"
            f" {DATA_AXIS!r} axis; got {batch_size} rows a step. Use"
            f" {max(batch_size // size, 1) * size}."
        )
    return Mesh(mesh.devices, mesh.axis_names)


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """A full copy on every device of the mesh."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def over_rows(mesh: Mesh | None, *, axis: int = 0) -> NamedSharding | None:
    """Axis number `axis` spread over the data axis of the mesh."""
    if mesh is None:
        return None
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def place(tree, sharding: NamedSharding | None):
    """Puts host arrays on the device, or on the devices of a mesh."""
    if sharding is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    return jax.device_put(tree, sharding)
