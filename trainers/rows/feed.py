"""The rows of each dispatch: from the devices' memory, or from a source outside of it."""

import functools
from typing import Any

import jax
import numpy as np

from trainers.placement import sharding
from trainers.placement.strategy import Jit, Pmap
from trainers.rows import memory
from trainers.rows.resident import ResidentRows, parts_by_process
from trainers.rows.sources import RowSource


class ResidentFeed:
    """All rows lie on the devices; a dispatch says which.

    Args:
      rows: of this process.
      strategy: where rows lie.
      batch_size: rows of a step, over all devices.
      seed: of their order.
      strata: of the rows, for equal parts of every batch.

    Attributes:
      rows_move: whether a device may need rows that others hold.

    Raises:
      ValueError: strata that do not divide over the devices, or a batch not over them.
    """

    def __init__(
        self,
        rows: ResidentRows,
        strategy: Jit | Pmap,
        *,
        batch_size: int,
        seed: int,
        strata: int = 1,
    ):
        self.sample, self.num_rows = rows.own, rows.num_rows
        self.rows_move = strata == 1
        self._everywhere = sharding.replicated(strategy.mesh)
        # Of strata each device is told its own rows.
        self._told = self._everywhere if self.rows_move else strategy.by_device
        self._rows = strategy.place_rows(rows.padded())
        self._positions = rows.positions
        self._order = memory.EpochOrder(
            rows.num_rows,
            batch_size,
            seed=seed,
            starts=rows.strata(strata),
            own=rows.own_strata(strata),
        )

    def example(self, num_steps: int) -> tuple[Any, Any, Any]:
        """Arguments like those of a dispatch of at most `num_steps`."""
        return self(0, 1, num_steps)

    def __call__(self, step: int, count: int, num_steps: int) -> tuple[Any, Any, Any]:
        """Rows, their numbers by step, and how many steps: `count` of `num_steps` lines."""
        found = self._positions(self._order.indices(step, count))
        indices = np.zeros((num_steps, found.shape[1]), np.int32)
        indices[:count] = found
        shape = num_steps, self._order.batch_size
        return (
            self._rows,
            sharding.place_own(indices, self._told, shape),
            sharding.place(np.int32(count), self._everywhere),
        )


class StreamFeed:
    """A dispatch brings its rows along.

    Args:
      source: gives the batches.
      sample: rows of it, for the noise and for shapes.
      strategy: where rows lie.
      batch_size: rows of a step, over all devices.
    """

    rows_move = False  # each device is sent its own

    def __init__(
        self,
        source: RowSource,
        sample: memory.Rows,
        strategy: Jit | Pmap,
        *,
        batch_size: int,
    ):
        self.sample, self.num_rows = sample, source.num_rows
        self._source, self._strategy = source, strategy
        self._batch_size = batch_size
        mesh = strategy.mesh
        devices = sharding.num_parts(mesh, strategy.data_axis)
        self._parts = devices, batch_size // devices  # of a batch, and rows of each
        numbers = np.arange(batch_size, dtype=np.int32).reshape(devices, -1)
        # Of every batch, in several processes.
        own = parts_by_process(mesh, strategy.data_axis)[jax.process_index()]
        self._own_devices = len(own)
        self._own = None if len(own) == devices else numbers[own].ravel()
        self._everywhere = sharding.replicated(mesh)
        self._indices = functools.cache(self._make_indices)

    def example(self, num_steps: int) -> tuple[Any, Any, Any]:
        """Arguments like those of a dispatch of at most `num_steps`; nothing is read."""
        size = self._own_devices * self._parts[1]
        nothing = jax.tree.map(
            lambda leaf: np.zeros((0, size, *leaf.shape[1:]), leaf.dtype),
            self.sample,
        )
        return self._placed(nothing, 0, num_steps)

    def __call__(self, step: int, count: int, num_steps: int) -> tuple[Any, Any, Any]:
        """Rows, their numbers by step, and how many steps: `count` of `num_steps` lines."""
        batches = self._source.batches(step, count, self._batch_size, self._own)
        return self._placed(batches, count, num_steps)

    def _placed(self, batches, count, num_steps):
        devices, each = self._own_devices, self._parts[1]
        shape = devices, num_steps, each  # a device's rows of all steps lie together

        def padded(leaf):
            rows = np.zeros((*shape, *leaf.shape[2:]), leaf.dtype)
            parts = leaf.reshape(-1, devices, each, *leaf.shape[2:])
            rows[:, :count] = parts.swapaxes(0, 1)
            return rows.reshape(-1, *leaf.shape[2:])

        rows = self._strategy.place_rows(jax.tree.map(padded, batches))
        count = sharding.place(np.int32(count), self._everywhere)
        return rows, self._indices(num_steps), count

    def _make_indices(self, num_steps: int) -> jax.Array:
        """Where the rows of each step lie: the same in every dispatch."""
        devices, each = self._parts
        indices = np.arange(num_steps * self._batch_size, dtype=np.int32)
        indices = indices.reshape(devices, num_steps, each).swapaxes(0, 1)
        return sharding.place(indices.reshape(num_steps, -1), self._strategy.by_device)
