"""Rows from outside of memory: what training asks of them, and iterators that give them."""

import base64
import os
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from trainers.rows import memory
from trainers.rows.files import RowFile


class RowSource(Protocol):
    """What training needs of rows that are not in memory.

    Attributes:
      num_rows: where it is known, or None.
    """

    num_rows: int | None

    def batches(self, step: int, count: int, batch_size: int) -> memory.Rows:
        """The batches of `count` steps from `step` on, arrays [count, batch_size, ...]."""

    def sample(self, n: int, *, seed: int) -> memory.Rows:
        """At most n rows, for noise, scores and warm starts; training is not moved on."""

    def get_state(self) -> Any:
        """Where it stands beyond the step number, JSON-able."""

    def set_state(self, state: Any) -> None:
        """Goes to where `get_state` was called."""


@runtime_checkable
class CheckpointableIterator(Protocol):
    """An iterator over batches that can go back: what Grain's iterators are."""

    def __next__(self) -> Any:
        """The next batch: an array [batch_size, d], or a tuple or dict of arrays."""

    def get_state(self) -> Any:
        """Where it stands: JSON-able, or bytes."""

    def set_state(self, state: Any) -> None:
        """Goes to where `get_state` was called."""


class IteratorRows:
    """Batches as an iterator gives them; it decides the order and the batch size.

    Args:
      iterator: with `__next__`, `get_state` and `set_state`.
    """

    num_rows = None

    def __init__(self, iterator: CheckpointableIterator):
        self._iterator = iterator

    def batches(self, step: int, count: int, batch_size: int) -> memory.Rows:
        """The next `count` batches, arrays [count, batch_size, ...]."""
        found = [self._next(step + i) for i in range(count)]
        sizes = {memory.num_rows(batch) for batch in found}
        if sizes != {batch_size}:
            raise ValueError(
                f"`x_train` must give batches of `batch_size`={batch_size} rows; got"
                f" {sorted(sizes)}. Batch the iterator to that size, and drop the rest."
            )
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def sample(self, n: int, *, seed: int) -> memory.Rows:
        """The next n rows; the iterator goes back to where it was."""
        del seed
        state = self._iterator.get_state()
        found, size = [], 0
        while size < n:
            try:
                found.append(self._next(len(found)))
            except StopIteration:
                break
            size += memory.num_rows(found[-1])
        self._iterator.set_state(state)
        if not found:
            raise ValueError("`x_train` must give at least one batch; it gave none.")
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *found)

    def get_state(self) -> Any:
        """The iterator's, JSON-able."""
        state = self._iterator.get_state()
        if isinstance(state, bytes):
            return {"base64": base64.b64encode(state).decode()}
        return {"json": state}

    def set_state(self, state: Any) -> None:
        """Goes to where `get_state` was called."""
        if "base64" in state:
            self._iterator.set_state(base64.b64decode(state["base64"]))
        else:
            self._iterator.set_state(state["json"])

    def _next(self, step: int) -> memory.Rows:
        return memory.as_rows(next(self._iterator), name=f"x_train, batch {step}")


def as_source(x: Any, *, seed: int) -> RowSource | None:
    """A source for a path, a memory map, an iterator or a source; None for arrays."""
    if isinstance(x, RowFile | IteratorRows):
        return x
    if isinstance(x, str | os.PathLike):
        return RowFile(x, seed=seed)
    if isinstance(x, np.memmap):
        # A part of a map, or what was computed from one, is an array like any other.
        return RowFile(x, seed=seed) if _is_whole_file(x) else None
    if not hasattr(x, "__array__") and isinstance(x, CheckpointableIterator):
        return IteratorRows(x)
    return None


def _is_whole_file(x: np.memmap) -> bool:
    if x.filename is None or not x.flags.c_contiguous:
        return False
    whole = np.load(x.filename, mmap_mode="r")
    return (whole.shape, whole.dtype) == (x.shape, x.dtype)
