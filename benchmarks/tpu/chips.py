"""Slices of TPUs as the compiler knows them, and a bound on the time of a program."""

from typing import NamedTuple

import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh


class Chip(NamedTuple):
    """Figures of one chip, of docs.cloud.google.com/tpu/docs/v4, v5e and v6e."""

    flops: float  # a second, bfloat16 products
    memory_bandwidth: float  # bytes a second
    link_bandwidth: float  # bytes a second out of it, half of what counts both ways


class Slice(NamedTuple):
    """Chips that belong together."""

    topology: str
    shape: tuple[int, ...]
    chip: Chip


_V4 = Chip(275e12, 1.228e12, 300e9)
_V5E = Chip(197e12, 0.819e12, 200e9)
_V6E = Chip(918e12, 1.638e12, 400e9)
SLICES = {
    "v5e-8": Slice("v5e:2x4", (8,), _V5E),
    "v4-8": Slice("v4:2x2x1", (4,), _V4),  # its name counts cores, two a chip
    "v6e-8": Slice("v6e:2x4", (8,), _V6E),
    "v5e-256": Slice("v5e:16x16", (256,), _V5E),
}
_PASSES = 6  # of bfloat16 products, for one of float32 at the highest precision


def mesh_of(name: str, model: int = 1) -> Mesh:
    """The chips of a slice along ("data",), or ("data", "model") for `model` > 1."""
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=SLICES[name].topology
    )
    devices = np.array(found.devices)
    if model == 1:
        return Mesh(devices, ("data",))
    return Mesh(devices.reshape(-1, model), ("data", "model"))


def bound(
    name: str, *, flops: float, moved: float, sent: float, highest: bool = True
) -> dict[str, float]:
    """Microseconds for the products, the memory and the links, each alone at its peak.

    Args:
      name: of a slice.
      flops: of a chip, all counted as products: a lower bound.
      moved: bytes between a chip and its memory.
      sent: bytes of the collectives' results, twice through the links for a sum in a ring.
      highest: products of float32 at the highest precision.
    """
    chip = SLICES[name].chip
    return {
        "products": 1e6 * flops * (_PASSES if highest else 1) / chip.flops,
        "memory": 1e6 * moved / chip.memory_bandwidth,
        "links": 1e6 * 2 * sent / chip.link_bandwidth,
    }
