"""Tables that are read by parts, in memory that does not grow with the file."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from trainers.tables.arrow import import_pyarrow, is_numeric
from trainers.tables.files.arrays import NpyRows, frame_of_rows
from trainers.tables.files.opening import open_table, without_rows
from trainers.tables.files.parquet import ParquetFile
from trainers.tables.files.sources import Source, TableFile
from trainers.tables.frame import Frame

_FLOAT_BYTES = 8


def frames_of(
    path: str | pathlib.Path | Source,
    *,
    rows: int = 100_000,
    columns: str | Sequence[str] = (),
    drop: str | Sequence[str] = (),
    sep: str | None = None,
    decimal: str | None = None,
    header: int | str | None = None,
    encoding: str | None = None,
    array: str | None = None,
    date_formats: Mapping[str, str] | None = None,
) -> Iterator[Frame]:
    r"""Reads a table so many rows at a time.

    The types of a text are those of the first rows. Integers may become float64 later, and
    dates instants; words where numbers were are holes if they are few, else an error. Each
    frame's `notes` hold what was decided so far.

    Args:
      path: as for `read_frame`.
      rows: of each frame but the last.
      columns: as for `read_frame`, and so on.
      drop: columns to leave out.
      sep: what separates cells.
      decimal: "." or ",".
      header: number of the line that names the columns, or "none".
      encoding: in Python's words.
      array: of an .npz file.
      date_formats: of columns of dates.

    Raises:
      InputError: as `read_frame`; what is wrong further down, once it is reached.

    Example:
      >>> import pathlib, tempfile
      >>> from trainers.tables import frames_of
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name) / "rows.csv"
      >>> _ = path.write_text("a,b\n1,2.5\n2,3.5\n4,4.5\n")
      >>> [frame["a"].values.tolist() for frame in frames_of(path, rows=2)]
      [[1, 2], [4]]
      >>> folder.cleanup()
    """
    text = {"sep": sep, "decimal": decimal, "header_line": header, "encoding": encoding}
    text["date_formats"] = date_formats
    file, names, notes = open_table(path, columns, drop, array=array, **text)
    return _frames(file, names, notes, rows)


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
    if "header" in options:
        options["header_line"] = options.pop("header")
    file, names, _ = open_table(path, columns, drop, **options)
    return _FLOAT_BYTES * len(names) * file.about_rows()


class Parts(Protocol):
    """Rows of a file, of which any block can be read.

    Attributes:
      path: the file.
      names: of the columns.
      shape: n, d.
    """

    path: pathlib.Path
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


def open_parts(path: Any) -> Parts:
    """The file at a path, or behind a memory map, whose columns must all be numbers.

    Raises:
      ValueError: as `open_blocks`, and for other columns.
    """
    parts = open_blocks(path)
    if bad := [name for name in parts.names if not parts.is_number(name)]:
        raise ValueError(
            f"{parts.path} must have columns of numbers; {bad}. Drop or encode the others."
        )
    return parts


def open_blocks(
    path: Any, *, columns: str | Sequence[str] = (), drop: str | Sequence[str] = ()
) -> Parts:
    """The file at a path, or behind a memory map, to be read by blocks of rows.

    Args:
      path: a .npy or .parquet file, or an array from `np.load(path, mmap_mode="r")`.
      columns: those to keep, in this order; none for all but an index.
      drop: those to leave out.

    Raises:
      ValueError: for other files, and what cannot be read by rows.
    """
    path = pathlib.Path(str(path.filename) if isinstance(path, np.memmap) else path)
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
        self.path, self.names, self._rows = path, names, rows
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
        return frame_of_rows(self._rows.rows(start, stop), str(self.path), self.names)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to before `stop`, float32."""
        rows = self._rows.rows(start, stop)
        if self._chosen != list(range(rows.shape[1])):
            rows = rows[:, self._chosen]
        return rows.astype(np.float32)


class ParquetParts:
    """Rows of a .parquet file, whose row groups are read whole; see `Parts`."""

    def __init__(self, path: pathlib.Path, file: ParquetFile, names: tuple[str, ...]):
        self.path, self.names, self._file = path, names, file
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


def _frames(
    file: TableFile, names: Sequence[str], notes: tuple[str, ...], rows: int
) -> Iterator[Frame]:
    empty = True
    for frame in file.parts(names, rows):
        if not len(frame):
            continue
        empty = False
        notes_here = (*frame.notes, *notes)
        yield dataclasses.replace(frame, notes=notes_here, is_named=file.is_named)
    if empty:
        raise without_rows(file, names)
