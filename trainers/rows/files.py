"""Rows that stay in a file: a few at a time in memory.

A file is read by blocks of rows. An epoch visits its blocks in a random order; the rows of a
window, some blocks together, are shuffled and cut into batches, while the next window is
read in the background. Rows of a window that fill no batch wait for the next epoch. Every
batch is a function of (seed, step), so a run goes on from its step number alone.
"""

import concurrent.futures
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.rows.encoded import EncodedParts
from trainers.tables.checks import check_finite
from trainers.tables.parts import open_parts

WINDOW_BYTES = 64 * 2**20  # of rows that are shuffled together
_BLOCKS_A_WINDOW = 8
_SAMPLED_BLOCKS = 16  # that a sample of the rows is drawn from


class RowFile:
    """Rows of a .npy file, [n, d], or of the columns of a .parquet file.

    Args:
      path: the file, an array from `np.load(path, mmap_mode="r")`, or `EncodedParts`.
      seed: of the order of the rows.
      window_bytes: of the rows that are shuffled together; about three times as much is
        in memory.

    Attributes:
      path: the file.
      num_rows: in it.
      num_features: columns.

    Raises:
      ValueError: a file that holds no table of numbers, or an unknown suffix.

    Example:
      >>> import numpy as np, pathlib, tempfile
      >>> from trainers.rows.files import RowFile
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
        path: str | os.PathLike | np.memmap | EncodedParts,
        *,
        seed: int = 0,
        window_bytes: int = WINDOW_BYTES,
    ):
        encoded = isinstance(path, EncodedParts)
        self._table = path if encoded else open_parts(path)
        self.path = self._table.path
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
            check_finite(rows, str(self._table.path), first=start)
            parts.append(rows)
        return np.concatenate(parts)


class _Epoch:
    """One pass over the blocks: windows, and the step after the last of each."""

    def __init__(self, number, start, windows, ends):
        self.number, self.start, self.windows, self.ends = number, start, windows, ends
        self.end = int(ends[-1])
