"""Training rows that stay in the memory of the devices, spread over the data axis.

A device holds rows / devices of them: the batches of a step, the same global rows in the
same order for every layout, are exchanged when the step needs them.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from trainers import data, sharding


class ResidentRows:
    """Where each row of the data set lies.

    With several processes each one gives its own rows; the data set is theirs in the order
    of the processes.

    Args:
      rows: of this process, on the host.
      mesh: devices, or None for one.

    Attributes:
      own: the rows of this process.
      num_rows: of all processes.

    Raises:
      ValueError: a part of the data axis that several processes share.
    """

    def __init__(self, rows: data.Rows, mesh: Mesh | None):
        counts = sharding.gathered(np.int64(data.num_rows(rows)))
        self.own, self.num_rows = rows, int(counts.sum())
        self._first = int(counts[: jax.process_index()].sum())
        self._own_size, self._positions = data.num_rows(rows), None
        if mesh is None:
            return
        parts = _parts_by_process(mesh)
        each = max(-(-int(n) // len(p)) for n, p in zip(counts, parts, strict=True))
        self._own_size = len(parts[jax.process_index()]) * each
        self._positions = np.concatenate(
            [
                (np.asarray(p)[:, None] * each + np.arange(each)).ravel()[:n]
                for n, p in zip(counts, parts, strict=True)
            ]
        ).astype(np.int32)

    def padded(self) -> data.Rows:
        """The own rows and zeros, so that all devices hold equally many."""
        return jax.tree.map(lambda leaf: _pad(leaf, self._own_size), self.own)

    def subset(self, size: int, *, seed: int) -> data.Rows:
        """The own among `size` rows of the data set, the same for every layout."""
        if self.num_rows <= size:
            return self.own
        chosen = np.random.default_rng(seed).choice(self.num_rows, size, replace=False)
        index = chosen - self._first
        held = (index >= 0) & (index < data.num_rows(self.own))
        return data.take(self.own, index[held])

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Where the rows with these numbers lie in the padded, spread array."""
        return index if self._positions is None else self._positions[index]


def _parts_by_process(mesh: Mesh) -> list[list[int]]:
    """The parts of the data axis that lie with each process."""
    axis = mesh.axis_names.index(sharding.DATA_AXIS)
    parts: list[list[int]] = [[] for _ in range(jax.process_count())]
    for number, devices in enumerate(np.moveaxis(mesh.devices, axis, 0)):
        owners = {device.process_index for device in np.ravel(devices)}
        if len(owners) > 1:
            raise ValueError(
                f"`mesh` must keep each part of its {sharding.DATA_AXIS!r} axis within one"
                f" process, which feeds its rows; part {number} lies on processes"
                f" {sorted(owners)}. Put the {sharding.DATA_AXIS!r} axis first."
            )
        parts[owners.pop()].append(number)
    if not all(parts):
        raise ValueError("`mesh` must hold devices of every process.")
    return parts


def _pad(leaf: np.ndarray, size: int) -> Any:
    missing = size - len(leaf)
    if not missing:
        return leaf
    return np.concatenate([leaf, np.zeros_like(leaf, shape=(missing, *leaf.shape[1:]))])
