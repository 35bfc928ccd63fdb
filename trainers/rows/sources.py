"""Rows from outside of memory: what training asks of them, and iterators that give them."""

import base64
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from trainers.rows import memory, processes
from trainers.rows.files import RowFiles, is_whole_file
from trainers.tables.checks import InputError

_ENDLESS = 2**40  # elements: what is repeated without end says that it has more


class RowSource(Protocol):
    """What training needs of rows that are not in memory.

    Attributes:
      num_rows: where it is known, or None.
      note: what is worth a line, or None.
    """

    num_rows: int | None
    note: str | None

    def batches(
        self, step: int, count: int, batch_size: int, own: np.ndarray | None = None
    ) -> memory.Rows:
        """The batches of `count` steps from `step` on, arrays [count, batch_size, ...].

        Of several processes each wants its `own` rows of a batch.
        """

    def sample(self, n: int, *, seed: int) -> memory.Rows:
        """At most n rows, for noise, scores and warm starts; training is not moved on.

        Of several processes each gets its part of them.
        """

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

    In several processes each has an iterator over its part of every batch; the batch is
    theirs in the order of the processes.

    Args:
      iterator: with `__next__`, `get_state` and `set_state`.
      is_shared: whether the iterators of all processes go through one data set, by turns,
        so that their states are alike and hold for any number of processes.
      note: what is worth a line.
    """

    num_rows: int | None = None

    def __init__(
        self,
        iterator: CheckpointableIterator,
        *,
        is_shared: bool = False,
        note: str | None = None,
    ):
        self._iterator, self._is_shared, self.note = iterator, is_shared, note

    def batches(
        self, step: int, count: int, batch_size: int, own: np.ndarray | None = None
    ) -> memory.Rows:
        """The next `count` batches, arrays [count, batch_size, ...], or the own part."""
        size, wanted = batch_size, f"batches of `batch_size`={batch_size} rows"
        if own is not None:
            size = len(own)
            wanted = (
                f"batches of {size} rows in each of {jax.process_count()} processes, its"
                f" part of `batch_size`={batch_size}"
            )

        def stacked() -> memory.Rows:
            found = [self._next(step + i) for i in range(count)]
            sizes = {memory.num_rows(batch) for batch in found}
            if sizes != {size}:
                raise InputError(
                    f"`x_train` must give {wanted}; got {sorted(sizes)}. Batch the"
                    " iterator to that size, and drop the rest."
                )
            return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

        return processes.in_all(stacked)

    def sample(self, n: int, *, seed: int) -> memory.Rows:
        """The next n rows, or a part of them; the iterator goes back to where it was."""
        del seed
        own = processes.in_all(lambda: self._first_rows(n))
        if jax.process_count() == 1:
            return own
        rows = jax.tree.map(
            lambda leaf: processes.share(np.concatenate(processes.arrays(leaf))), own
        )
        processes.check_shares(rows)
        return rows

    def get_state(self) -> Any:
        """The iterator's, JSON-able; in several processes those of all."""
        state = self._iterator.get_state()
        if isinstance(state, bytes):
            state = {"base64": base64.b64encode(state).decode()}
        else:
            state = {"json": state}
        if jax.process_count() == 1 or self._is_shared:
            return state
        return {
            "processes": [json.loads(t) for t in processes.texts(json.dumps(state))]
        }

    def set_state(self, state: Any) -> None:
        """Goes to where `get_state` was called.

        Raises:
          InputError: the state of iterators of another number of processes.
        """
        states = state.get("processes", [state])
        if len(states) != jax.process_count() and not (
            self._is_shared and len(states) == 1
        ):
            raise InputError(
                "`x_train` must be read by as many processes as before, each of whose"
                f" iterators keeps its own place: {len(states)}; got"
                f" {jax.process_count()}. Start that many, or begin anew (`resume`=False)."
            )
        state = states[0] if len(states) == 1 else states[jax.process_index()]
        if "base64" in state:
            self._iterator.set_state(base64.b64decode(state["base64"]))
        else:
            self._iterator.set_state(state["json"])

    def _first_rows(self, n: int) -> memory.Rows:
        """Those of this process among the first n of all."""
        count, index = jax.process_count(), jax.process_index()
        state = self._iterator.get_state()
        found, size = [], 0
        while size < n:
            try:
                batch = self._next(len(found))
            except InputError:
                if found:
                    break
                raise
            each = memory.num_rows(batch)
            wanted = slice(max(0, n - size - index * each))
            found.append(jax.tree.map(lambda leaf, wanted=wanted: leaf[wanted], batch))
            size += count * each
        self._iterator.set_state(state)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)

    def _next(self, step: int) -> memory.Rows:
        try:
            batch = next(self._iterator)
        except StopIteration:
            raise InputError(
                f"`x_train` must give a batch for every step; it ended after {step}."
                " Repeat it without end, as .repeat() of Grain's data sets does."
            ) from None
        if getattr(batch, "ndim", 2) == 1:
            raise InputError(
                "`x_train` must give batches, [batch_size, d]; got one row, of shape"
                f" {batch.shape}. Batch it, as .batch() of Grain's data sets does."
            )
        return memory.as_rows(batch, name=f"x_train, batch {step}")


def as_source(x: Any, *, seed: int) -> RowSource | None:
    """A source for paths, a memory map, an iterator or a source; None for arrays."""
    if isinstance(x, RowFiles | IteratorRows):
        return x
    if _names_files(x):
        return RowFiles(x, seed=seed)
    if isinstance(x, np.memmap):
        # A part of a map, or what was computed from one, is an array like any other.
        return RowFiles(x, seed=seed) if is_whole_file(x) else None
    if hasattr(x, "__array__"):
        return None
    iterator = x if isinstance(x, CheckpointableIterator) else _iterator_of(x)
    return None if iterator is None else _of_processes(x, iterator)


def in_memory(x: Any) -> Any:
    """The rows of files, this process's part of them; anything else as it is."""
    if isinstance(x, RowFiles):
        return x.whole()
    return RowFiles(x).whole() if _names_files(x) else x


def _names_files(x: Any) -> bool:
    several = isinstance(x, list | tuple) and len(x) > 0
    return all(isinstance(p, str | os.PathLike) for p in (x if several else [x]))


def _iterator_of(x: Any) -> CheckpointableIterator | None:
    """Of a data set or loader, such as Grain's."""
    table = hasattr(x, "columns") or hasattr(x, "column_names")
    if table or isinstance(x, Mapping | Sequence) or not hasattr(x, "__iter__"):
        return None
    iterator = iter(x)
    return iterator if isinstance(iterator, CheckpointableIterator) else None


def _of_processes(x: Any, iterator: CheckpointableIterator) -> IteratorRows:
    """Batches of several processes, each with its own; what all give is shared out.

    Args:
      x: what the user gave.
      iterator: over it.

    Raises:
      InputError: all processes give the same batches, and these cannot be told apart.
    """
    sliceable = hasattr(x, "__getitem__") and hasattr(x, "__len__")
    count, index = jax.process_count(), jax.process_index()
    if count == 1:
        return IteratorRows(iterator, is_shared=sliceable)
    if len(set(processes.texts(processes.in_all(lambda: _first(iterator))))) == 1:
        if not sliceable:
            raise InputError(
                f"`x_train` must give each of the {count} processes its own rows; got the"
                " same first batch in all. Give grain.MapDataset, whose elements are"
                " shared out, slice it yourself, [jax.process_index() ::"
                " jax.process_count()], or use grain.sharding.ShardByJaxProcess."
            )
        note = f"`x_train`: {count} processes take its batches by turns"
        return IteratorRows(iter(x[index::count]), is_shared=True, note=note)
    _warn_of_lengths(x)
    note = f"`x_train`: each of {count} processes gives its part of every batch"
    return IteratorRows(iterator, note=note)


def _first(iterator: CheckpointableIterator) -> str:
    """A digest of the first batch; the iterator goes back."""
    state = iterator.get_state()
    batch = IteratorRows(iterator)._next(0)
    iterator.set_state(state)
    leaves = [np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(batch)]
    return hashlib.blake2b(b"".join(leaves), digest_size=16).hexdigest()


def _warn_of_lengths(x: Any):
    """Says so where the data sets that processes repeat differ in length."""
    lengths = processes.texts(str(_repeated(x) or ""))
    if len(set(lengths)) > 1:
        warnings.warn(
            "`x_train` repeats data sets of different length in the processes,"
            f" {', '.join(length or 'unknown' for length in lengths)}: elements of the"
            " shorter ones come more often. Give the whole grain.MapDataset in every"
            " process, which is shared out evenly.",
            UserWarning,
            stacklevel=2,
        )


def _repeated(x: Any) -> int | None:
    """Elements of what a data set of Grain's repeats without end, if it does."""
    is_endless = False
    while True:
        length = len(x) if hasattr(x, "__len__") else None
        if length is not None and length < _ENDLESS:
            return length if is_endless else None
        is_endless = is_endless or length is not None
        parents = getattr(x, "parents", ())
        if len(parents) != 1:
            return None
        x = parents[0]
