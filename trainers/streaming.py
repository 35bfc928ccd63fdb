"""Rows that stay in a file, or come from an iterator: a few at a time in memory.

A file is read by blocks of rows. An epoch visits its blocks in a random order; the rows of a
window, some blocks together, are shuffled and cut into batches, while the next window is
read in the background. Rows of a window that fill no batch wait for the next epoch. Every
batch is a function of (seed, step), so a run goes on from its step number alone.
"""

import base64
import concurrent.futures
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from trainers import data
from trainers.tables import import_pyarrow

WINDOW_BYTES = 64 * 2**20  # of rows that are shuffled together
_BLOCKS_A_WINDOW = 8
_SAMPLED_BLOCKS = 16  # that a sample of the rows is drawn from


class RowSource(Protocol):
    """What training needs of rows that are not in memory.

    Attributes:
      num_rows: where it is known, or None.
    """

    num_rows: int | None

    def batches(self, step: int, count: int, batch_size: int) -> data.Rows:
        """The batches of `count` steps from `step` on, arrays [count, batch_size, ...]."""

    def sample(self, n: int, *, seed: int) -> data.Rows:
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


class RowFile:
    """Rows of a .npy file, [n, d], or of the columns of a .parquet file.

    Args:
      path: the file, or an array from `np.load(path, mmap_mode="r")`.
      seed: of the order of the rows.
      window_bytes: of the rows that are shuffled together; about three times as much is
        in memory.

    Raises:
      ValueError: a file that holds no table of numbers, or an unknown suffix.

    Example:
      >>> import numpy as np, pathlib, tempfile
      >>> from trainers.streaming import RowFile
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name) / "rows.npy"
      >>> np.save(path, np.arange(20.0).reshape(10, 2))
      >>> rows = RowFile(path)
      >>> print(rows.num_rows, rows.batches(0, 2, 5).shape)
      10 (2, 5, 2)
      >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike | np.memmap,
        *,
        seed: int = 0,
        window_bytes: int = WINDOW_BYTES,
    ):
        self._table = _open(path)
        self.num_rows, self.num_features = self._table.shape
        self._seed = seed
        self._blocks = self._table.blocks(window_bytes // _BLOCKS_A_WINDOW)
        self._window_rows = max(window_bytes // (4 * self.num_features), 1)
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "rows")
        self._ahead: tuple[tuple[int, int], concurrent.futures.Future] | None = None
        self._here: tuple[tuple[int, int] | None, np.ndarray] = (None, np.empty(0))
        self._epochs: list[_Epoch] = []
        self._batch_size = 0

    def batches(self, step: int, count: int, batch_size: int) -> np.ndarray:
        """The batches of `count` steps from `step` on, [count, batch_size, d]."""
        if batch_size != self._batch_size:
            self._epochs, self._batch_size = [], batch_size
        return np.stack([self._batch(s) for s in range(step, step + count)])

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """At most n rows, [n, d], from up to 16 blocks drawn at random."""
        random = np.random.default_rng([seed, 1])
        size = min(_SAMPLED_BLOCKS, len(self._blocks))
        chosen = random.choice(len(self._blocks), size, replace=False)
        drawn = []
        for k, number in enumerate(sorted(chosen)):
            rows = self._read([self._blocks[number]])
            share = n // size + (k < n % size)
            keep = random.permutation(len(rows))[:share]
            drawn.append(rows[np.sort(keep)])
        return np.concatenate(drawn)

    def get_state(self) -> None:
        """Nothing: the step number is enough."""

    def set_state(self, state: Any) -> None:
        """Nothing to do."""

    def _batch(self, step: int) -> np.ndarray:
        epoch, window, number = self._locate(step)
        if self._here[0] != (epoch.number, window):
            if self._ahead is None or self._ahead[0] != (epoch.number, window):
                self._start_reading(epoch, window)
            self._here = self._ahead[0], self._ahead[1].result()
            self._start_reading(*self._after(epoch, window))
        start = number * self._batch_size
        return self._here[1][start : start + self._batch_size]

    def _locate(self, step: int) -> tuple["_Epoch", int, int]:
        """Epoch, window in it, and batch in that."""
        while not self._epochs or step >= self._epochs[-1].end:
            self._epochs.append(self._next_epoch())
        epoch = next(e for e in self._epochs if step < e.end)
        window = int(np.searchsorted(epoch.ends, step, side="right"))
        before = epoch.ends[window - 1] if window else epoch.start
        return epoch, window, step - int(before)

    def _next_epoch(self) -> "_Epoch":
        start = self._epochs[-1].end if self._epochs else 0
        number = len(self._epochs)
        random = np.random.default_rng([self._seed, number])
        windows: list[list[tuple[int, int]]] = [[]]
        size = 0
        wanted = max(self._window_rows, self._batch_size)
        for k in random.permutation(len(self._blocks)):
            if size >= wanted:
                windows.append([])
                size = 0
            windows[-1].append(self._blocks[k])
            size += self._blocks[k][1] - self._blocks[k][0]
        steps = [sum(b - a for a, b in w) // self._batch_size for w in windows]
        return _Epoch(number, start, windows, start + np.cumsum(steps))

    def _after(self, epoch: "_Epoch", window: int) -> tuple["_Epoch", int]:
        epoch, window, _ = self._locate(int(epoch.ends[window]))
        return epoch, window

    def _start_reading(self, epoch: "_Epoch", window: int):
        key = (epoch.number, window)
        job = self._reader.submit(self._shuffled, epoch.windows[window], key)
        self._ahead = key, job

    def _shuffled(self, blocks, key) -> np.ndarray:
        rows = self._read(blocks)
        np.random.default_rng([self._seed, *key, 2]).shuffle(rows)
        return rows

    def _read(self, blocks: Sequence[tuple[int, int]]) -> np.ndarray:
        parts = []
        for start, stop in blocks:
            rows = self._table.read(start, stop)
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f"{self._table.path} must hold finite numbers; row"
                    f" {start + int(finite.argmin())} has NaN, infinity or a missing"
                    " value. Drop or impute such rows."
                )
            parts.append(rows)
        return np.concatenate(parts)


class _Epoch:
    """One pass over the blocks: windows, and the step after the last of each."""

    def __init__(self, number, start, windows, ends):
        self.number, self.start, self.windows, self.ends = number, start, windows, ends
        self.end = int(ends[-1])


class IteratorRows:
    """Batches as an iterator gives them; it decides the order and the batch size.

    Args:
      iterator: with `__next__`, `get_state` and `set_state`.
    """

    num_rows = None

    def __init__(self, iterator: CheckpointableIterator):
        self._iterator = iterator

    def batches(self, step: int, count: int, batch_size: int) -> data.Rows:
        """The next `count` batches, arrays [count, batch_size, ...]."""
        found = [self._next(step + i) for i in range(count)]
        sizes = {data.num_rows(batch) for batch in found}
        if sizes != {batch_size}:
            raise ValueError(
                f"`x_train` must give batches of `batch_size`={batch_size} rows; got"
                f" {sorted(sizes)}. Batch the iterator to that size, and drop the rest."
            )
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def sample(self, n: int, *, seed: int) -> data.Rows:
        """The next n rows; the iterator goes back to where it was."""
        del seed
        state = self._iterator.get_state()
        found, size = [], 0
        while size < n:
            try:
                found.append(self._next(len(found)))
            except StopIteration:
                break
            size += data.num_rows(found[-1])
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

    def _next(self, step: int) -> data.Rows:
        return data.as_rows(next(self._iterator), name=f"x_train, batch {step}")


def as_source(x: Any, *, seed: int) -> RowSource | None:
    """A source for a path, a memory map, an iterator or a source; None for arrays."""
    if isinstance(x, RowFile | IteratorRows):
        return x
    if isinstance(x, str | os.PathLike | np.memmap):
        return RowFile(x, seed=seed)
    if not hasattr(x, "__array__") and isinstance(x, CheckpointableIterator):
        return IteratorRows(x)
    return None


def _open(path: Any) -> "_Npy | _Parquet":
    if isinstance(path, np.memmap):
        return _Npy(path.filename)
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"`path` must be a file; {path} is not there.")
    if path.suffix == ".npy":
        return _Npy(path)
    if path.suffix == ".parquet":
        return _Parquet(path)
    raise ValueError(
        f"`path` must be a .npy or .parquet file to be read by parts; got {path.name}."
        " Read smaller files whole with trainers.tables.read_table."
    )


class _Npy:
    def __init__(self, path):
        self.path = path
        array = np.load(path, mmap_mode="r")
        if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{path} must hold numbers, [rows, features] with at least one of each;"
                f" got shape {array.shape} of {array.dtype}."
            )
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{path} must be in C order to be read by rows. Save it with"
                " np.save(path, np.ascontiguousarray(x))."
            )
        self.shape, self._dtype, self._offset = array.shape, array.dtype, array.offset

    def blocks(self, num_bytes):
        size = max(num_bytes // (4 * self.shape[1]), 1)
        starts = range(0, self.shape[0], size)
        return [(start, min(start + size, self.shape[0])) for start in starts]

    def read(self, start, stop):
        # Not through the map, whose pages would count as this process's memory.
        width = self.shape[1]
        offset = self._offset + start * width * self._dtype.itemsize
        count = (stop - start) * width
        rows = np.fromfile(self.path, self._dtype, count, offset=offset)
        return rows.reshape(-1, width).astype(np.float32)


class _Parquet:
    def __init__(self, path):
        self.path = path
        arrow = import_pyarrow()
        self._file = arrow.parquet.ParquetFile(path)
        schema = self._file.schema_arrow
        bad = [f.name for f in schema if not _is_number(arrow, f.type)]
        if bad or not len(schema):
            raise ValueError(
                f"{path} must have columns of numbers; {bad or 'it has none'}. Drop or"
                " encode the others."
            )
        groups = range(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(i).num_rows for i in groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self.shape = int(self._starts[-1]), len(schema)
        if not self.shape[0]:
            raise ValueError(f"{path} must hold at least one row; it is empty.")

    def blocks(self, num_bytes):
        del num_bytes  # a row group is the least that can be read
        pairs = zip(self._starts[:-1], self._starts[1:], strict=True)
        return [(int(a), int(b)) for a, b in pairs if b > a]

    def read(self, start, stop):
        del stop
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        table = self._file.read_row_group(group)
        rows = np.empty((table.num_rows, self.shape[1]), np.float32)
        for j, column in enumerate(table.columns):
            rows[:, j] = column.to_numpy()
        return rows


def _is_number(arrow, kind) -> bool:
    types = arrow.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
