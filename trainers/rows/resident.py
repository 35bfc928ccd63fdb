"""Training rows that stay in the memory of the devices, spread over the data axis.

A device holds rows / devices of them. The batches are the same global rows in the same order
for every layout: they are exchanged when a step needs them, or, drawn from strata of the
rows, lie where they are needed.
"""

import itertools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from trainers.placement import sharding
from trainers.rows import memory


class ResidentRows:
    """Where each row of the data set lies.

    With several processes each one gives its own rows; the data set is theirs in the order
    of the processes.

    Args:
      rows: of this process, on the host.
      mesh: devices, or None for one.
      data_axis: of the mesh, over which rows are spread.

    Attributes:
      own: the rows of this process.
      num_rows: of all processes.

    Raises:
      ValueError: a part of the data axis that several processes share.
    """

    def __init__(
        self,
        rows: memory.Rows,
        mesh: Mesh | None,
        data_axis: tuple[str, ...] = ("data",),
    ):
        self._axes = data_axis
        counts = sharding.gathered(np.int64(memory.num_rows(rows)))
        self.own, self.num_rows = rows, int(counts.sum())
        self._bounds = [0, *np.cumsum(counts).tolist()]  # rows of each process
        self._first = self._bounds[jax.process_index()]
        # Parts of the data axis, in the order of their rows.
        self._parts = parts_by_process(mesh, data_axis)
        self._order = np.concatenate(self._parts)
        self._starts = self._runs(1)
        self._size = int(np.diff([*self._starts, self.num_rows]).max())
        before = sum(map(len, self._parts[: jax.process_index()]))
        self._own = slice(before, before + len(self._parts[jax.process_index()]))
        # Where the own rows change devices.
        self._inner = self._starts[self._own][1:] - self._first

    def _runs(self, num: int) -> np.ndarray:
        """First rows of `num` equal runs of the rows of each part."""
        runs = []
        for (first, end), parts in zip(
            itertools.pairwise(self._bounds), self._parts, strict=True
        ):
            total = num * len(parts)
            runs.append(first + np.arange(total) * (end - first) // total)
        return np.concatenate(runs)

    def strata(self, num: int) -> np.ndarray:
        """First rows of `num` equal runs of the rows; if several, each lies on one device.

        Raises:
          ValueError: they do not divide over the devices.
        """
        parts = len(self._order)
        if num == 1:
            return np.zeros(1, int)
        if num % parts or np.any(np.diff(self._order) < 0):
            raise ValueError(
                f"`strata` must be 1 or a multiple of the {parts} devices along the mesh's"
                f" {sharding.shown(self._axes)} axis, on which the processes follow one"
                f" another; got {num}. Use 1 or {max(num // parts, 1) * parts}."
            )
        return self._runs(num // parts)

    def own_strata(self, num: int) -> slice:
        """Which of `strata(num)` lie with this process; all, if there is but one."""
        each = num // len(self._order)
        return slice(self._own.start * each, self._own.stop * each if each else None)

    def padded(self) -> memory.Rows:
        """The own rows, those of each part filled with zeros to equally many."""
        if memory.num_rows(self.own) == self._size * (len(self._inner) + 1):
            return self.own
        return jax.tree.map(
            lambda leaf: np.concatenate(
                [_pad(part, self._size) for part in np.split(leaf, self._inner)]
            ),
            self.own,
        )

    def subset(self, size: int, *, seed: int) -> memory.Rows:
        """The own among `size` rows of the data set, the same for every layout."""
        if self.num_rows <= size:
            return self.own
        chosen = np.random.default_rng(seed).choice(self.num_rows, size, replace=False)
        index = chosen - self._first
        held = (index >= 0) & (index < memory.num_rows(self.own))
        return memory.take(self.own, index[held])

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Where the rows with these numbers lie in the padded, spread array."""
        part = np.searchsorted(self._starts, index, side="right") - 1
        return self._order[part] * self._size + index - self._starts[part]


def parts_by_process(mesh: Mesh | None, axes: tuple[str, ...]) -> list[list[int]]:
    """The parts of the data axes that lie with each process.

    Raises:
      ValueError: a part that several processes share, or a process without one.
    """
    if mesh is None:
        return [[0]]
    where = [mesh.axis_names.index(axis) for axis in axes]
    ordered = np.moveaxis(mesh.devices, where, range(len(axes)))
    ordered = ordered.reshape(sharding.num_parts(mesh, axes), -1)
    parts: list[list[int]] = [[] for _ in range(jax.process_count())]
    for number, devices in enumerate(ordered):
        owners = {device.process_index for device in np.ravel(devices)}
        if len(owners) > 1:
            raise ValueError(
                f"`mesh` must keep each part of its {sharding.shown(axes)} axis within one"
                f" process, which feeds its rows; part {number} lies on processes"
                f" {sorted(owners)}. Put the {sharding.shown(axes)} axis first."
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
