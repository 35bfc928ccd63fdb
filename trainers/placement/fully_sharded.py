"""Fully sharded data parallel training: every device keeps its part of each variable."""

import math
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh, NamedSharding, PartitionSpec

_LEAST = 2**10  # numbers, from which an array is worth a part for each device


def fully_sharded(
    arrays: Mapping[str, Any], mesh: Mesh, axis: str
) -> dict[str, NamedSharding]:
    """Spreads the longest axis that divides over the devices; small arrays lie everywhere.

    Args:
      arrays: by name, with shapes.
      mesh: devices.
      axis: of the mesh.

    Raises:
      ValueError: a name that is no axis of the mesh.

    Example:
      >>> import jax
      >>> from trainers.placement.fully_sharded import fully_sharded
      >>> mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
      >>> kernel = jax.ShapeDtypeStruct((64, 128), "float32")
      >>> tuple(fully_sharded({"kernel": kernel}, mesh, "data")["kernel"].spec)
      (None, 'data')
    """
    if axis not in mesh.axis_names:
        raise ValueError(
            f"`partition` must name an axis of the mesh, {mesh.axis_names}, or be pairs of"
            f" a pattern and axes; got {axis!r}."
        )
    devices = mesh.shape[axis]

    def place(shape: tuple[int, ...]) -> NamedSharding:
        whole = [i for i, size in enumerate(shape) if size % devices == 0]
        if not whole or math.prod(shape) < _LEAST:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(whole, key=lambda i: shape[i])
        spec = [axis if i == longest else None for i in range(len(shape))]
        return NamedSharding(mesh, PartitionSpec(*spec))

    return {name: place(array.shape) for name, array in arrays.items()}
