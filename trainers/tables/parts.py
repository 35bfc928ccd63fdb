"""Tables that are read by parts, in memory that does not grow with the file."""

import bisect
import concurrent.futures
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from trainers.tables.arrow import import_pyarrow, is_numeric
from trainers.tables.checks import InputError, shown
from trainers.tables.files.arrays import NpyRows, frame_of_rows
from trainers.tables.files.opening import open_table
from trainers.tables.files.parquet import ParquetFile
from trainers.tables.files.sources import (
    Source,
    as_path,
    is_pattern,
    matching,
)
from trainers.tables.frame import Frame

_FLOAT_BYTES = 8
_OPENED_AT_ONCE = 16  # files


def num_rows_of(path: str | pathlib.Path | Source) -> int | None:
    """The number of rows of a .npy, .npz or .parquet file; None for a text."""
    return open_table(path)[0].num_rows


def size_of(
    path: str | pathlib.Path | Source,
    *,
    columns: str | Sequence[str] = (),
    drop: str | Sequence[str] = (),
    **options: Any,
) -> int:
    """Bytes that the rows would take as float64; of a text a guess from its first lines.

    Args:
      path: as for `read_frame`, and the other arguments too.
      columns: those to keep.
      drop: those to leave out.
      options: those of `read_frame` for texts and archives.
    """
    file, names, _ = open_table(path, columns, drop, **options)
    return _FLOAT_BYTES * len(names) * file.about_rows()


class Parts(Protocol):
    """Rows of a file, or of several, of which any block can be read.

    Attributes:
      files: their paths.
      names: of the columns.
      shape: n, d.
    """

    files: tuple[pathlib.Path, ...]
    names: tuple[str, ...]
    shape: tuple[int, int]

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers or booleans."""
        ...

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last rows of parts of about so many bytes."""
        ...

    def frame(self, start: int, stop: int) -> Frame:
        """The rows from `start` to before `stop`, a block, in their own types."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """The same rows, float32, where all columns are numbers."""
        ...

    def place(self, row: int) -> tuple[pathlib.Path, int]:
        """The file that a row is in, and its number there."""
        ...


def open_parts(
    path: Any, *, columns: str | Sequence[str] = (), drop: str | Sequence[str] = ()
) -> Parts:
    """As `open_blocks`, of columns that must all be numbers.

    Raises:
      ValueError: as `open_blocks`, and for other columns.
    """
    parts = open_blocks(path, columns=columns, drop=drop)
    if bad := [name for name in parts.names if not parts.is_number(name)]:
        raise ValueError(
            f"{parts.files[0]} must have columns of numbers; {bad}. Drop or encode the"
            " others."
        )
    return parts


def open_blocks(
    path: Any, *, columns: str | Sequence[str] = (), drop: str | Sequence[str] = ()
) -> Parts:
    """The files at a path, or behind a memory map, to be read by blocks of rows.

    Args:
      path: a .npy or .parquet file, here or in a bucket ("gs://bucket/rows.npy"), or an
        array from `np.load(path, mmap_mode="r")`. Several files, which must have the same
        columns, follow one another: a sequence of them, or a pattern such as
        "rows-*.parquet", in the order of their names.
      columns: those to keep, in this order; none for all but an index.
      drop: those to leave out.

    Raises:
      ValueError: for other files, what cannot be read by rows, and files whose columns
        differ.
    """
    files = _files(path)
    # A bucket answers slowly, but many questions at once.
    with concurrent.futures.ThreadPoolExecutor(
        min(len(files), _OPENED_AT_ONCE)
    ) as pool:
        opened = list(pool.map(lambda file: _open(file, columns, drop), files))
    first = opened[0]
    for parts in opened:
        if sorted(parts.names) != sorted(first.names):
            raise InputError(
                f"`path` must name files with the same columns; {first.files[0]} has"
                f" {shown(first.names, 20)}, and {parts.files[0]} {shown(parts.names, 20)}."
                " Choose those that all have (`columns`)."
            )
    same = [
        p if p.names == first.names else _open(p.files[0], first.names, ())
        for p in opened
    ]
    return first if len(same) == 1 else ManyParts(same)


def _files(path: Any) -> list[pathlib.Path]:
    if isinstance(path, np.memmap):
        return [pathlib.Path(str(path.filename))]
    if not isinstance(path, str | os.PathLike):
        found = [file for part in path for file in _files(part)]
        if not found:
            raise InputError("`path` must name at least one file; got none.")
        return found
    if not is_pattern(path):
        return [as_path(path)]
    if found := matching(str(path)):
        return found
    raise InputError(f"`path` must name at least one file; no file matches {path}.")


def _open(
    path: pathlib.Path, columns: str | Sequence[str], drop: str | Sequence[str]
) -> Parts:
    if not path.is_file():
        raise ValueError(f"`path` must be a file; {path} is not there.")
    if path.suffix not in (".npy", ".parquet"):
        raise ValueError(
            f"`path` must be a .npy or .parquet file to be read by parts; got {path.name}."
            " Read smaller files whole with trainers.tables.read_frame."
        )
    file, names, _ = open_table(path, columns, drop)
    if isinstance(file, ParquetFile):
        return ParquetParts(path, file, names)
    return NpyParts(path, NpyRows(path, str(path)), names)


class NpyParts:
    """Rows of a .npy file, [n, d]; see `Parts`."""

    def __init__(self, path: pathlib.Path, rows: NpyRows, names: tuple[str, ...]):
        if len(rows.shape) != 2 or 0 in rows.shape or rows.dtype.kind not in "biuf":
            raise ValueError(
                f"{path} must hold numbers, [rows, features] with at least one of each;"
                f" got shape {rows.shape} of {rows.dtype}."
            )
        if not rows.rows_together:
            raise ValueError(
                f"{path} must be in C order to be read by rows. Save it with"
                " np.save(path, np.ascontiguousarray(x))."
            )
        self.files, self.names, self._rows = (path,), names, rows
        self._chosen = [int(name.removeprefix("x")) for name in names]
        self.shape = rows.shape[0], len(names)

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers or booleans."""
        return name in self.names

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last rows of parts of about so many bytes."""
        size = max(num_bytes // (4 * self.shape[1]), 1)
        starts = range(0, self.shape[0], size)
        return [(start, min(start + size, self.shape[0])) for start in starts]

    def frame(self, start: int, stop: int) -> Frame:
        """The rows from `start` to before `stop`, in their own type."""
        rows = self._rows.rows(start, stop)
        return frame_of_rows(rows, str(self.files[0]), self.names)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to before `stop`, float32."""
        rows = self._rows.rows(start, stop)
        if self._chosen != list(range(rows.shape[1])):
            rows = rows[:, self._chosen]
        return rows.astype(np.float32)

    def place(self, row: int) -> tuple[pathlib.Path, int]:
        """The file that a row is in, and its number there."""
        return self.files[0], row


class ParquetParts:
    """Rows of a .parquet file, whose row groups are read whole; see `Parts`."""

    def __init__(self, path: pathlib.Path, file: ParquetFile, names: tuple[str, ...]):
        self.files, self.names, self._file = (path,), names, file
        self._starts = np.concatenate([[0], np.cumsum(file.group_rows)]).astype(int)
        self.shape = int(self._starts[-1]), len(names)
        if not self.shape[0]:
            raise ValueError(f"{path} must hold at least one row; it is empty.")

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers or booleans."""
        return is_numeric(import_pyarrow().types, self._file.types[name])

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last rows of the row groups."""
        del num_bytes  # a row group is the least that can be read
        pairs = zip(self._starts[:-1], self._starts[1:], strict=True)
        return [(int(a), int(b)) for a, b in pairs if b > a]

    def frame(self, start: int, stop: int) -> Frame:
        """The row group that starts with row `start`, in its own types."""
        del stop
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        return self._file.group(group, self.names)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The row group that starts with row `start`, float32."""
        frame = self.frame(start, stop)
        rows = np.empty((len(frame), self.shape[1]), np.float32)
        for j, column in enumerate(frame.columns):
            rows[:, j] = np.where(column.missing, np.nan, column.values)
        return rows

    def place(self, row: int) -> tuple[pathlib.Path, int]:
        """The file that a row is in, and its number there."""
        return self.files[0], row


class ManyParts:
    """Files with the same columns, one after another; see `Parts`."""

    def __init__(self, parts: Sequence[Parts]):
        self._parts = parts
        self.files = tuple(file for part in parts for file in part.files)
        self.names = parts[0].names
        sizes = [part.shape[0] for part in parts]
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self.shape = self._starts[-1], len(self.names)

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers or booleans in every file."""
        return all(part.is_number(name) for part in self._parts)

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last rows of the blocks of each file."""
        return [
            (first + start, first + stop)
            for part, first in zip(self._parts, self._starts[:-1], strict=True)
            for start, stop in part.blocks(num_bytes)
        ]

    def frame(self, start: int, stop: int) -> Frame:
        """The rows from `start` to before `stop`, a block, in their own types."""
        part, first = self._part(start)
        return part.frame(start - first, stop - first)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The same rows, float32, where all columns are numbers."""
        part, first = self._part(start)
        return part.read(start - first, stop - first)

    def place(self, row: int) -> tuple[pathlib.Path, int]:
        """The file that a row is in, and its number there."""
        part, first = self._part(row)
        return part.place(row - first)

    def _part(self, row: int) -> tuple[Parts, int]:
        number = bisect.bisect_right(self._starts, row) - 1
        return self._parts[number], self._starts[number]
