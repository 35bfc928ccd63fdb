"""Tables in arrays of NumPy: .npy and .npz, never unpickled."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trainers.paths import in_bucket
from trainers.tables.checks import InputError, printable, shown
from trainers.tables.door import of_array
from trainers.tables.files.sources import Source
from trainers.tables.frame import ARRAY, Column, Frame, numbered


class ArrayFile:
    """A table in a .npy file, or in the arrays of an .npz file; see `TableFile`.

    Args:
      source: the file.
      array: which array of an .npz file is the table. None: its only one, or those of one
        dimension together.
    """

    index = ()

    def __init__(self, source: Source, *, array: str | None = None):
        self.source = source
        self.notes = source.notes
        if source.kind == "npz":
            self._columns = _archive(source, array)
        else:
            self._columns = _columns(
                NpyRows(source.path, source.name).map(), source.name
            )
        self.names = tuple(self._columns)
        self.is_named = self.names != numbered(len(self.names))
        self.num_rows = len(next(iter(self._columns.values()), ()))

    def whole(self, names: Sequence[str], limit: int | None = None) -> Frame:
        """The columns of these names, in this order; at most so many rows."""
        if self.source.kind == "npy":
            stop = self.num_rows if limit is None else min(limit, self.num_rows)
            return self._frame(
                NpyRows(self.source.path, self.source.name), names, 0, stop
            )
        columns = {name: self._columns[name][:limit] for name in names}
        return self._of(columns)

    def parts(self, names: Sequence[str], rows: int) -> Iterator[Frame]:
        """The same, so many rows at a time."""
        for start in range(0, self.num_rows, rows):
            stop = min(start + rows, self.num_rows)
            if self.source.kind == "npy":
                file = NpyRows(self.source.path, self.source.name)
                yield self._frame(file, names, start, stop)
            else:
                columns = {name: self._columns[name][start:stop] for name in names}
                yield self._of(columns)

    def about_rows(self) -> int:
        """The number of rows."""
        return self.num_rows

    def _frame(self, file: "NpyRows", names, start: int, stop: int) -> Frame:
        frame = frame_of_rows(file.rows(start, stop), self.source.name, names)
        return dataclasses.replace(frame, notes=self.notes)

    def _of(self, columns: Mapping[str, np.ndarray]) -> Frame:
        frame = _frame_of(columns, self.source.name)
        return dataclasses.replace(frame, notes=self.notes)


def frame_of_rows(rows: np.ndarray, where: str, names: Sequence[str]) -> Frame:
    """Columns of rows of an array."""
    columns = _columns(rows, where)
    return _frame_of({name: columns[name] for name in names}, where)


def _frame_of(columns: Mapping[str, np.ndarray], where: str) -> Frame:
    made = (_column(values, name, where) for name, values in columns.items())
    return Frame(tuple(made), ARRAY)


class NpyRows:
    """The rows of a .npy file in their own type, any of them at once.

    Attributes:
      shape: of the array.
      dtype: of the array.
      rows_together: whether a row's values lie side by side.
    """

    def __init__(self, path: pathlib.Path, name: str):
        self.path, self.name = path, name
        array = self.map()
        self.shape, self.dtype = array.shape, array.dtype
        if in_bucket(path):
            _, by_column, _, self._offset = self._header()
            self.rows_together = not by_column or len(self.shape) < 2
        else:
            self._offset = getattr(array, "offset", 0)
            self.rows_together = array.flags.c_contiguous

    def map(self) -> np.ndarray:
        """The array, which is read where it is looked at; of a bucket its form alone."""
        try:
            if in_bucket(self.path):
                shape, _, dtype, _ = self._header()
                return np.broadcast_to(np.zeros((), dtype), shape)
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a torn header is read as Python and fails as such
            raise InputError(
                f"`path` must be a .npy file of plain numbers, got {self.name}, which"
                f" NumPy cannot read: {_why(error)}. Save it again, without objects."
            ) from error
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"`path` must be a .npy file, got {self.name}, an archive."
            )
        return array

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to before `stop`."""
        # Not through the map, whose pages would count as this process's memory.
        size = self.dtype.itemsize
        width = int(np.prod(self.shape[1:]))
        count = stop - start
        if self.rows_together:
            flat = self._values(count * width, start * width * size)
            return flat.reshape(count, *self.shape[1:])
        columns = [
            self._values(count, (j * self.shape[0] + start) * size)
            for j in range(width)
        ]
        return np.stack(columns, axis=1)

    def _values(self, count: int, offset: int) -> np.ndarray:
        offset += self._offset
        if not in_bucket(self.path):
            return np.fromfile(self.path, self.dtype, count, offset=offset)
        with self.path.open("rb") as file:
            file.seek(offset)
            found = file.read(count * self.dtype.itemsize)
        if len(found) < count * self.dtype.itemsize:
            raise InputError(
                f"{self.name} is shorter than its header says. Write it again."
            )
        return np.frombuffer(found, self.dtype)

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype, int]:
        """Shape, whether columns lie together, type, and where the numbers begin."""
        formats = np.lib.format
        with self.path.open("rb") as file:
            first = formats.read_magic(file) == (1, 0)
            read = (
                formats.read_array_header_1_0
                if first
                else formats.read_array_header_2_0
            )
            shape, by_column, dtype = read(file)
            if dtype.hasobject:
                raise ValueError("it holds objects")
            return shape, by_column, dtype, file.tell()


def _archive(source: Source, array: str | None) -> dict[str, np.ndarray]:
    try:
        # Opened here: NumPy leaves what it cannot read open.
        with (
            source.path.open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            names = list(archive.files)
            if array is not None or len(names) == 1:
                chosen = _array_name(source, names, array)
                alone = archive[chosen]
                single = alone.ndim == 1 and not alone.dtype.names and array is None
                return _columns(alone, source.name, chosen if single else None)
            arrays = {name: archive[name] for name in names}
    except InputError:
        raise
    except Exception as error:  # as in `NpyRows.map`, and what zipfile says
        raise InputError(
            f"`path` must be a .npz file of plain numbers, got {source.name}, which NumPy"
            f" cannot read: {_why(error)}. Save it again, without objects."
        ) from error
    if len({values.shape for values in arrays.values()}) != 1 or any(
        values.ndim != 1 or values.dtype.names for values in arrays.values()
    ):
        _array_name(source, names, None)
    return arrays


def _array_name(source: Source, found: Sequence[str], array: str | None) -> str:
    if array is None and len(found) == 1:
        return found[0]
    if array is not None and array in found:
        return array
    if not found:
        raise InputError(
            f"`path` must be a .npz file with arrays, got {source.name} without any."
        )
    raise InputError(
        f"--array must name one of the arrays of {source.name}, {printable(shown(found))},"
        f" got {array!r}. Name one, or save it alone as .npy."
    )


def _columns(
    array: np.ndarray, where: str, name: str | None = None
) -> dict[str, np.ndarray]:
    """The columns of an array; `name` is that of a single one."""
    if array.dtype.names:
        array = array.reshape(-1)
        return {field: array[field] for field in array.dtype.names or ()}
    if array.ndim == 1:
        return {name or "x0": array}
    if array.ndim != 2:
        raise InputError(
            f"`path` must hold rows and columns, [n, d], got shape {array.shape} in"
            f" {where}. Save x.reshape(len(x), -1) instead."
        )
    return {f"x{j}": array[:, j] for j in range(array.shape[1])}


def _column(values: np.ndarray, name: str, where: str) -> Column:
    if values.dtype.kind not in "US" or values.ndim != 1:
        column = of_array(values, name, where=f"column {name!r} of {where}")
        if values.ndim == 1:
            return column
        raise InputError(
            f"{where} must hold one number a cell, got shape {values.shape[1:]} in column"
            f" {printable(name)}. Leave it out with --drop {printable(name)}."
        )
    words = np.char.decode(values, "latin-1") if values.dtype.kind == "S" else values
    missing = words == ""
    objects = words.astype(object)
    objects[missing] = None
    return Column(name, objects, missing, "String")


def _why(error: Exception) -> str:
    """What NumPy says, but for its advice to unpickle what may be no file of its own."""
    if "allow_pickle" in str(error):
        return "it is none of NumPy's files, or holds objects"
    return printable(error).rstrip(".")
