"""Tables into files, whole or by parts."""

import contextlib
import csv
import functools
import gzip
import io
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, BinaryIO, Self

import numpy as np

from trainers.tables import dates
from trainers.tables.arrow import arrow_of_frame, import_pyarrow
from trainers.tables.checks import InputError, printable, shown
from trainers.tables.files.outputs import TEXT, check_output, kind_of, replacing
from trainers.tables.files.texts import cells
from trainers.tables.frame import Frame

_EXACT = 2**53  # integers up to here are exact in float64
_DAY_SECONDS = 86_400
_GZIP_LEVEL = 6  # what the command gzip takes


def write_frame(
    path: str | pathlib.Path, frame: Frame, *, inputs: Sequence[Any] = ()
) -> None:
    """Writes a table, every column in its own type as far as the format has it.

    Text gets integers as integers, dates in the format that they came in from text (else
    as ISO 8601), words as they are, and floats with the digits that read back the same
    value. A file that is there is replaced when the new
    one is whole.

    Args:
      path: .csv or .tsv (also with .gz or .zst behind), .parquet, .npz, or .npy, which has
        neither names nor words; "-" is standard output, as .csv.
      frame: the table.
      inputs: files that must not be written over.

    Raises:
      InputError: one line, as `check_output`; for columns that .npy cannot hold; and for
        what goes wrong in writing.
    """
    with PartWriter(path, inputs=inputs) as writer:
        writer.write(frame)


class PartWriter:
    """A table into a file part by part; the file is there once all of it is.

    Args:
      path: as for `write_frame`. An .npz file keeps all parts in memory until the end.
      inputs: files that must not be written over.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from trainers.tables import PartWriter, frame_of
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name) / "rows.csv"
      >>> with PartWriter(path) as writer:
      ...     writer.write(frame_of(np.array([[1, 2], [3, 4]])))
      ...     writer.write(frame_of(np.array([[5, 6]])))
      >>> print(path.read_text())
      x0,x1
      1,2
      3,4
      5,6
      <BLANKLINE>
      >>> folder.cleanup()
    """

    def __init__(self, path: str | pathlib.Path, *, inputs: Sequence[Any] = ()):
        check_output(path, inputs=inputs)
        self.path = path
        suffix, self._compression = kind_of(path)
        formats = {".parquet": _Parquet, ".npy": _Npy, ".npz": _Npz}
        self._make = formats.get(suffix, lambda file: _Text(file, TEXT[suffix]))
        self._format: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(replacing(self.path))
            if self._compression == "gzip":  # pyarrow's has the slowest level only
                file = stack.enter_context(
                    gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)
                )
            elif self._compression:
                arrow = import_pyarrow()
                file = stack.enter_context(
                    arrow.CompressedOutputStream(file, self._compression)
                )
            self._format = stack.enter_context(self._make(file))
            self._stack = stack.pop_all()
        return self

    def write(self, frame: Frame) -> None:
        """Appends rows, which must have the columns of those before."""
        try:
            self._format.write(frame)
        except OSError as error:
            raise InputError(
                f"`path` {printable(self.path)!r} cannot be written: {printable(error)}."
            ) from error

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)


class _Parquet(contextlib.AbstractContextManager):
    """Row groups, one for each part."""

    def __init__(self, file: BinaryIO):
        self._file, self._writer = file, None

    def write(self, frame: Frame) -> None:
        table = arrow_of_frame(frame)
        if self._writer is None:
            parquet = import_pyarrow().parquet
            self._writer = parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table.cast(self._writer.schema))

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.close()


class _Text(contextlib.AbstractContextManager):
    """Lines, the first of them with the names."""

    def __init__(self, file: Any, sep: str):
        self._file, self._sep, self._begun = file, sep, False

    def write(self, frame: Frame) -> None:
        pyarrow_csv = import_pyarrow().csv
        if not self._begun:
            line = io.StringIO()
            writer = csv.writer(line, delimiter=self._sep, lineterminator="\n")
            writer.writerow(frame.names)
            self._file.write(line.getvalue().encode())
            self._begun = True
        options = pyarrow_csv.WriteOptions(
            include_header=False,
            delimiter=self._sep,
            null_string="NA",  # a line without anything would be no row
        )
        buffer = io.BytesIO()
        pyarrow_csv.write_csv(_spoken(frame), buffer, options)
        self._file.write(buffer.getbuffer())

    def __exit__(self, *error: Any) -> None:
        pass


class _Npy(contextlib.AbstractContextManager):
    """Rows of one type, [n, d]; the header's number of rows is written at the end."""

    def __init__(self, file: BinaryIO):
        self._file, self._count, self._width = file, 0, 0
        self._dtype: Any = None

    def write(self, frame: Frame) -> None:
        rows = _one_type(frame, self._dtype)
        if self._dtype is None:
            self._dtype, self._width = rows.dtype, rows.shape[1]
            self._head()
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def _head(self) -> None:
        # NumPy leaves blanks in the header for a number of rows that grows.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._count, self._width),
            },
        )

    def __exit__(self, *error: Any) -> None:
        if self._dtype is not None:
            self._file.seek(0)
            self._head()


class _Npz(contextlib.AbstractContextManager):
    """An array for each column, by its name."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._parts: list[Frame] = []

    def write(self, frame: Frame) -> None:
        self._parts.append(frame)

    def __exit__(self, kind: Any, *error: Any) -> None:
        if kind is not None or not self._parts:
            return
        with zipfile.ZipFile(self._file, "w", allowZip64=True) as archive:
            for name in self._parts[0].names:
                values = np.concatenate([_bare(part[name]) for part in self._parts])
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)


def _bare(column: Any) -> np.ndarray:
    """Values as an array of NumPy's types: words as text, holes as NaN, NaT or ""."""
    values = column.values
    if values.dtype == object:
        return np.where(column.missing, "", values).astype(str)
    if not column.missing.any():
        return values
    if values.dtype.kind in "biu":
        values = _as_float(values, column.name)
    values = values.copy()
    values[column.missing] = np.nan if values.dtype.kind == "f" else "NaT"
    return values


def _one_type(frame: Frame, dtype: np.dtype | None) -> np.ndarray:
    """The columns side by side in one type, [n, d], exactly; `dtype` if it is chosen."""
    columns = [_bare(column) for column in frame.columns]
    kinds = {"number" if c.dtype.kind in "biuf" else c.dtype.kind for c in columns}
    words = [
        f"{c.name} ({c.source})"
        for c in frame.columns
        if kinds != {"number"} and c.values.dtype.kind not in "biuf"
    ]
    if words:
        raise InputError(
            f"`path` that ends in .npy can hold numbers only, not {printable(shown(words))}."
            " Write .csv, .parquet or .npz."
        )
    common = dtype or np.result_type(*columns)
    for column, values in zip(frame.columns, columns, strict=True):
        if common.kind == "f" and values.dtype.kind in "iu":
            _as_float(values, column.name)
        elif not np.can_cast(values.dtype, common, "same_kind"):
            raise InputError(
                f"`path` that ends in .npy must keep the type of its first rows,"
                f" {common}, got {values.dtype} in column {printable(column.name)}. Write"
                " .csv or .parquet."
            )
    return np.stack([values.astype(common) for values in columns], axis=1)


def _as_float(values: np.ndarray, name: str) -> np.ndarray:
    if values.size and max(abs(int(values.min())), abs(int(values.max()))) > _EXACT:
        raise InputError(
            f"column {printable(name)} must hold integers up to 2^53 to be written beside"
            " floats or holes. Write .csv or .parquet."
        )
    return values.astype(np.float64)


def _spoken(frame: Frame) -> Any:
    """Columns as text has them: words for categories, clocks for times of the day."""
    arrow = import_pyarrow()
    table, types = arrow_of_frame(frame), arrow.types
    columns = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        form = frame[field.name].date_format
        if types.is_duration(field.type):
            column = _clock(column)
        kind = column.type
        if form and (
            types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind)
        ):
            column = dates.written(column, form)
        elif form and types.is_boolean(kind):
            column = arrow.compute.if_else(column, *form.split(cells.OR))
        elif types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        elif types.is_string_view(field.type):
            column = column.cast(arrow.string())
        elif types.is_time(kind):
            column = _coarsest(column, _time)
        elif types.is_timestamp(field.type):
            zone = field.type.tz
            column = _coarsest(column, functools.partial(arrow.timestamp, tz=zone))
        columns[field.name] = column
    return arrow.table(columns)


def _coarsest(column: Any, kind: Any) -> Any:
    """In seconds where nothing is lost, else milliseconds, ..."""
    arrow = import_pyarrow()
    for unit in ("s", "ms", "us", "ns"):
        try:
            return column.cast(kind(unit))
        except arrow.ArrowInvalid:
            continue
    return column


def _time(unit: str) -> Any:
    """pyarrow's time of the day in a unit."""
    arrow = import_pyarrow()
    return arrow.time32(unit) if unit in ("s", "ms") else arrow.time64(unit)


def _clock(column: Any) -> Any:
    """Durations within a day as 12:34:56, others as seconds."""
    arrow = import_pyarrow()
    pc = arrow.compute
    column = _coarsest(column, arrow.duration)
    unit = column.type.unit
    count = column.cast(arrow.int64())
    a_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    within = pc.all(pc.and_(pc.greater_equal(count, 0),
                            pc.less(count, _DAY_SECONDS * a_second))).as_py()  # fmt: skip
    if not within:
        return pc.divide(count.cast(arrow.float64()), float(a_second))
    kind = _time(unit)
    return count.cast(
        arrow.int32() if arrow.types.is_time32(kind) else count.type
    ).cast(kind)
