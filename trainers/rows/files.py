"""Rows that stay in files: a few at a time in memory.

A file is read by blocks of rows. An epoch visits the blocks of all files in a random order;
the rows of a window, some blocks together, are shuffled and cut into batches, while what
follows is read in the background. Rows of a window that fill no batch wait for the next
epoch. Every batch is a function of (seed, step), so a run goes on from its step number alone.

Of several processes each reads its own blocks, and a window is put together out of what
they have read: the batches are those of one process.
"""

import concurrent.futures
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from trainers.rows import processes
from trainers.rows.encoded import EncodedParts
from trainers.rows.processes import Block
from trainers.tables.checks import InputError, check_finite
from trainers.tables.parts import Parts, open_blocks, open_parts
from trainers.tables.schema import Schema

WINDOW_BYTES = 64 * 2**20  # of rows that are shuffled together
_BLOCKS_A_WINDOW = 8
_SAMPLED_BLOCKS = 16  # that a sample of the rows is drawn from

# Rows, and the order in which they are taken; None: as they lie.
_Window = tuple[np.ndarray, np.ndarray | None]
_NO_WINDOW: _Window = (np.empty(0), None)


class RowFiles:
    """Rows of .npy files, [n, d], or of the columns of .parquet files.

    In several processes that name the same files these are shared out; files that differ
    are each read where they are named, and follow one another in the order of the processes.

    Args:
      path: a file, here or in a bucket, an array from `np.load(path, mmap_mode="r")`,
        several files or a pattern for them ("gs://bucket/rows-*.parquet"), whose columns
        are the same; or `EncodedParts`.
      columns: those to keep, in this order; none for all but an index.
      drop: those to leave out.
      schema: encodes the rows as they are read; without it all columns must be numbers.
      seed: of the order of the rows, and of the noise of discrete columns.
      window_bytes: of the rows that are shuffled together; about three times as much is
        in memory.

    Attributes:
      num_rows: in all files, of all processes.
      num_features: columns.
      note: which process reads what, or None.

    Raises:
      ValueError: files that hold no table of numbers, columns that differ, an unknown
        suffix, and some rows that two processes name.

    Example:
      >>> import numpy as np, pathlib, tempfile
      >>> from trainers import RowFiles
      >>> folder = tempfile.TemporaryDirectory()
      >>> for i in range(2):
      ...     path = pathlib.Path(folder.name) / f"rows-{i}.npy"
      ...     np.save(path, np.arange(10.0).reshape(5, 2))
      >>> rows = RowFiles(f"{folder.name}/rows-*.npy")
      >>> print(rows.num_rows, rows.batches(0, 2, 5).shape)
      10 (2, 5, 2)
      >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Any,
        *,
        columns: str | Sequence[str] = (),
        drop: str | Sequence[str] = (),
        schema: Schema | None = None,
        seed: int = 0,
        window_bytes: int = WINDOW_BYTES,
    ):
        num_bytes = window_bytes // _BLOCKS_A_WINDOW

        def opened() -> Parts | EncodedParts:
            if isinstance(path, EncodedParts):
                return path
            if isinstance(path, np.memmap) and not is_whole_file(path):
                raise InputError(
                    '`path` must be a map of a whole .npy file, of mode "r"; got a part of'
                    " one, or what may differ from its file. Give `fit` the array itself."
                )
            if schema is None:
                return open_parts(path, columns=columns, drop=drop)
            if columns or drop:
                raise InputError(
                    "`columns` and `drop` must be left out with a `schema`, which names"
                    " the columns. Leave them out of its table."
                )
            parts = open_blocks(path, columns=[c.name for c in schema.kept])
            whole = (1.0, 0.0, 0.0)
            return EncodedParts(
                parts, schema, fractions=whole, seed=seed, num_bytes=num_bytes
            )

        self._table = processes.in_all(opened)
        # What else makes the rows: nothing for all columns as they are.
        self._chosen: list[Any] = [list(self._table.names)] if columns or drop else []
        if schema is not None:
            self._chosen = [json.dumps(schema.to_config(), default=str)]
        self.num_features = self._table.shape[1]
        self._place(self._table.blocks(num_bytes))
        self._seed = seed
        self._window_rows = max(window_bytes // (4 * self.num_features), 1)
        self._reader = concurrent.futures.ThreadPoolExecutor(1, "rows")
        self._ahead: dict[tuple[int, int], concurrent.futures.Future] = {}
        self._here: tuple[tuple[int, int] | None, _Window] = (None, _NO_WINDOW)
        self._epochs: list[_Epoch] = []
        self._batch_size = 0

    def batches(
        self, step: int, count: int, batch_size: int, own: np.ndarray | None = None
    ) -> np.ndarray:
        """The batches of `count` steps from `step` on, [count, batch_size, d].

        Args:
          step: the first.
          count: of steps.
          batch_size: rows of all processes.
          own: those that are wanted, by their numbers in a batch; None for all.
        """
        if batch_size != self._batch_size:
            self._epochs, self._batch_size = [], batch_size
        return np.stack([self._batch(s, own) for s in range(step, step + count)])

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """At most n rows, [n, d], from up to 16 blocks; this process's part of those."""
        random = np.random.default_rng([seed, 1])
        size = min(_SAMPLED_BLOCKS, len(self._blocks))
        chosen = sorted(random.choice(len(self._blocks), size, replace=False))
        blocks, keep = [], []
        for k, number in enumerate(chosen):
            blocks.append(_dealt(self._blocks[number], k))
            drawn = random.permutation(blocks[k].size)[: n // size + (k < n % size)]
            keep.append(np.sort(drawn))

        def read() -> np.ndarray:
            pairs = zip(blocks, keep, strict=True)
            return self._side_by_side(
                [self._read(block)[rows] for block, rows in pairs if _is_own(block)]
            )

        own = processes.in_all(read)
        drawn = [
            b._replace(size=len(rows)) for b, rows in zip(blocks, keep, strict=True)
        ]
        rows = processes.share(processes.joined(own, drawn))
        processes.check_shares(rows)
        return rows

    def whole(self) -> np.ndarray:
        """All rows, [n, d], in memory; this process's part of those."""
        blocks = [_dealt(block, place) for place, block in enumerate(self._blocks)]
        own = processes.in_all(
            lambda: self._side_by_side([self._read(b) for b in blocks if _is_own(b)])
        )
        rows = processes.share(processes.joined(own, blocks))
        processes.check_shares(rows)
        return rows

    def get_state(self) -> None:
        """Nothing: the step number is enough."""

    def set_state(self, state: Any) -> None:
        """Nothing to do."""

    def digest(self, of: Callable[[pathlib.Path], str]) -> str:
        """Of the content of all files and the choice of columns.

        Args:
          of: that of a file. Of shared files each process looks at some.
        """
        files, count = self._table.files, jax.process_count()
        own = files[jax.process_index() :: count] if self._is_shared else files
        digests = processes.in_all(lambda: [of(file) for file in own])
        found = [json.loads(text) for text in processes.texts(json.dumps(digests))]
        if self._is_shared:
            found = [[found[i % count][i // count] for i in range(len(files))]]
        whole = [*itertools.chain(*found), *self._chosen]
        if len(whole) == 1:
            return whole[0]
        return hashlib.blake2b(json.dumps(whole).encode(), digest_size=16).hexdigest()

    def _place(self, own: Sequence[tuple[int, int]]):
        """Finds out where the blocks of the data set are."""
        placed = processes.placed(
            self._table.files, self._table.names, [stop - start for start, stop in own]
        )
        self._blocks, self._first = placed.blocks, placed.first_row
        self._is_shared, self.note = placed.is_shared, placed.note
        if isinstance(self._table, EncodedParts):
            self._table.first_block = placed.first_block
        self.num_rows: int | None = sum(block.size for block in self._blocks)

    def _batch(self, step: int, own: np.ndarray | None) -> np.ndarray:
        epoch, window, number = self._locate(step)
        if self._here[0] != (epoch.number, window):
            self._here = (epoch.number, window), self._whole(epoch, window)
        rows, order = self._here[1]
        at = slice(number * self._batch_size, (number + 1) * self._batch_size)
        part = rows[at] if order is None else order[at]
        part = part if own is None else part[own]
        return part if order is None else rows[part]

    def _whole(self, epoch: "_Epoch", window: int) -> _Window:
        """A window, while the next ones are read."""
        blocks = epoch.windows[window]
        job = self._job(epoch, window)
        # So far ahead that every process has a block to read.
        ahead = {}
        needed = -(-jax.process_count() // len(blocks))
        for _ in range(min(needed, len(epoch.windows))):
            epoch, window = self._after(epoch, window)
            ahead[epoch.number, window] = self._job(epoch, window)
        self._ahead = ahead
        rows, order = processes.in_all(job.result)
        return processes.joined(rows, blocks), order

    def _job(self, epoch: "_Epoch", window: int) -> concurrent.futures.Future:
        key = epoch.number, window
        return self._ahead.get(key) or self._reader.submit(
            self._load, epoch.windows[window], key
        )

    def _load(self, blocks: Sequence[Block], key: tuple[int, int]) -> _Window:
        """What this process reads of a window, and the order of all its rows."""
        rows = self._side_by_side([self._read(b) for b in blocks if _is_own(b)])
        random = np.random.default_rng([self._seed, *key, 2])
        order = random.permutation(sum(block.size for block in blocks))
        if jax.process_count() == 1:
            return rows[order], None
        return rows, order

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
        windows: list[list[Block]] = [[]]
        size = 0
        wanted = max(self._window_rows, self._batch_size)
        for place, k in enumerate(random.permutation(len(self._blocks))):
            if size >= wanted:
                windows.append([])
                size = 0
            windows[-1].append(_dealt(self._blocks[k], place))
            size += self._blocks[k].size
        steps = [sum(b.size for b in w) // self._batch_size for w in windows]
        return _Epoch(number, start, windows, start + np.cumsum(steps))

    def _after(self, epoch: "_Epoch", window: int) -> tuple["_Epoch", int]:
        epoch, window, _ = self._locate(int(epoch.ends[window]))
        return epoch, window

    def _read(self, block: Block) -> np.ndarray:
        start = block.start - self._first
        rows = self._table.read(start, start + block.size)
        file, first = self._table.place(start)
        check_finite(rows, str(file), first=first)
        return rows

    def _side_by_side(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty((0, self.num_features), np.float32), *parts])


class _Epoch:
    """One pass over the blocks: windows, and the step after the last of each."""

    def __init__(self, number, start, windows, ends):
        self.number, self.start, self.windows, self.ends = number, start, windows, ends
        self.end = int(ends[-1])


def is_whole_file(x: np.memmap) -> bool:
    """Whether the .npy file of a map holds these rows and no others."""
    if x.filename is None or x.mode == "c" or not x.flags.c_contiguous:
        return False  # what is written to a map of mode "c" stays in memory
    try:
        whole = np.lib.format.open_memmap(x.filename, mode="r")
    except (OSError, ValueError):  # numbers without a header, of `np.memmap`
        return False
    return (whole.shape, whole.dtype) == (x.shape, x.dtype)


def _dealt(block: Block, place: int) -> Block:
    """With the process that reads it: what all have is dealt out in turn."""
    if block.owner is None:
        return block._replace(owner=place % jax.process_count())
    return block


def _is_own(block: Block) -> bool:
    return block.owner == jax.process_index()
