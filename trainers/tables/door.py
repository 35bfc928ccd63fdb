"""The one door for tables: in memory or in a file, every column in the type it came in."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from trainers.tables import natives
from trainers.tables.checks import (
    InputError,
    beyond_64_bits,
    not_numbers,
    printable,
    refuse_months,
    refuse_others,
    refuse_twice,
    shown,
)
from trainers.tables.frame import Column, Frame
from trainers.tables.natives.labels import as_level, unboxed
from trainers.tables.natives.of_objects import (
    are_aware,
    is_missing,
    is_rounded,
    numbers_of,
    words_or_numbers,
)
from trainers.tables.natives.of_pandas import instants

_NOT_READ = (nw.Time, nw.List, nw.Array, nw.Struct, nw.Binary)


def as_frame(
    table: Any, *, name: str = "X", date_formats: Mapping[str, str] | None = None
) -> Frame:
    """A table, whatever it came as, with every column in its own type.

    Args:
      table: an array, a DataFrame, a mapping of columns, a `Frame`, or a path.
      name: what the messages call it.
      date_formats: of columns of dates, where it is a path to a text.

    Raises:
      InputError: for what is no table of numbers, words and dates.
    """
    if isinstance(table, str | os.PathLike):
        from trainers.tables.reading import read_frame

        return read_frame(table, date_formats=date_formats)
    return frame_of(table, name=name)


def frame_of(table: Any, *, name: str = "X") -> Frame:
    """A table in memory as a `Frame`.

    Args:
      table: NumPy array of any real type and byte order ([n, d], [n], structured or masked),
        what NumPy makes of lists, or a DataFrame of pandas, polars or pyarrow.
      name: what the messages call it.

    Raises:
      InputError: arrays of text, of complex numbers or of other objects, other shapes.
    """
    if isinstance(table, Frame):
        return table
    if type(table).__name__ == "RecordBatch":
        import pyarrow as pa

        table = pa.Table.from_batches([table])
    refuse_others(table, name)
    if hasattr(table, "columns") or hasattr(table, "column_names"):
        try:
            frame = nw.from_native(table, eager_only=True)
        except TypeError:
            pass
        except nw.exceptions.DuplicateError:
            names = getattr(table, "column_names", table.columns)
            refuse_twice(list(map(str, names)), name)
        else:
            return of_dataframe(frame, name=name)
    if isinstance(table, Mapping):
        return frame_of_columns(table, name=name)
    array = _as_array(table, name)
    if array.dtype.names:
        return frame_of_columns({n: array[n] for n in array.dtype.names}, name=name)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        way_out = (
            "Reshape it with x.reshape(len(x), -1)."
            if array.ndim
            else "Give an array, a DataFrame or a mapping of columns."
        )
        alone = "one number" if array.dtype.kind in "biufc" else "one object"
        came = f"shape {array.shape}" if array.ndim else f"{alone}, {array}"
        raise InputError(
            f"`{name}` must have rows and columns, [n, d], got {came}. {way_out}"
        )
    columns = (array[:, j] for j in range(array.shape[1]))
    return Frame(
        tuple(
            of_array(column, f"x{j}", where=f"column {j} of `{name}`")
            for j, column in enumerate(columns)
        ),
        is_named=False,
    )


def _as_array(values: Any, name: str) -> np.ndarray:
    """An array, masked where it came so."""
    if np.ma.isMaskedArray(values):
        return values
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"`{name}` must be what NumPy makes an array of; got a"
            f" {type(values).__name__}: {printable(error)}"
        ) from error


def frame_of_columns(columns: Mapping[str, Any], *, name: str = "X") -> Frame:
    """A mapping of names to arrays of one length, [n] each, as a `Frame`.

    Raises:
      InputError: other lengths or shapes, and as `of_array`.
    """
    columns = {key: _as_array(array, name) for key, array in columns.items()}
    refuse_twice(list(map(str, columns)), name)
    shapes = {key: array.shape for key, array in columns.items()}
    for key, shape in shapes.items():
        if len(shape) != 1:
            came = f"shape {shape}" if shape else f"{columns[key].item()!r}"
            raise InputError(
                f"column {key!r} of `{name}` must hold one value for each row, [n]; got"
                f" {came}. Give a list or an array of one dimension."
            )
    if len(set(shapes.values())) > 1:
        told = shown([f"{shape[0]} in {key}" for key, shape in shapes.items()])
        raise InputError(
            f"`{name}` must have as many rows in every column; got {told}. Cut or fill"
            " them to one length."
        )
    return Frame(
        tuple(
            of_array(array, str(key), where=f"column {key!r} of `{name}`")
            for key, array in columns.items()
        )
    )


def of_array(values: Any, name: str, *, where: str) -> Column:
    """A column from an array, [n]; NaN, NaT and masked values are missing.

    Raises:
      InputError: for text and other things that are no numbers or dates.
    """
    missing = np.ma.getmaskarray(values)
    came = values = np.ma.getdata(values)
    if values.dtype == object:
        with _told(where):
            values, missing = numbers_of(values, missing, where)
    if values.dtype.kind in "USc":
        came = "complex" if values.dtype.kind == "c" else values[:1].tolist()
        raise not_numbers(where, came)
    refuse_months(values.dtype, where)
    if values.dtype.kind not in "biufmM":
        try:  # bfloat16 and friends are numbers to JAX and not to NumPy
            values = values.astype(np.float32)
        except (TypeError, ValueError):
            raise not_numbers(where, values.dtype) from None
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind in "fmM":
        missing = missing | np.isnan(values)
    rounded = came.dtype == object and is_rounded(came[~missing], values[~missing])
    return Column(name, values, missing, _source(values.dtype), rounded=rounded)


def of_dataframe(frame: nw.DataFrame, *, name: str = "X") -> Frame:
    """A narwhals DataFrame as a `Frame`; its library's index is no column of it."""
    names = [str(unboxed(column)) for column in frame.columns]
    refuse_twice(names, name)
    origin = frame.implementation.value
    columns = []
    for own, column, series in zip(
        frame.columns, names, frame.iter_columns(), strict=True
    ):
        where = f"column {column!r} of `{name}`"
        with _told(where):
            try:
                native = natives.described(series.to_native(), origin)
                label = natives.label(own, frame.to_native(), origin)
            except ValueError as error:
                raise InputError(
                    f"{where} must have a name and categories that are {error}. Rename"
                    " them, or make words of them with .astype(str)."
                ) from None
            found = _of_series(series, column, native, where=where)
        columns.append(dataclasses.replace(found, native=native, label=label))
    return Frame(tuple(columns), origin)


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Names the column whose objects are beyond what Python's own types hold."""
    try:
        yield
    except OverflowError as error:
        raise InputError(
            f"{where} must hold dates of the years 1 to 9999, in UTC too, and numbers of"
            f" float64; got others: {printable(error)}. Leave those rows or the column out."
        ) from error


def _of_series(
    series: nw.Series, name: str, native: dict[str, Any] | None, *, where: str
) -> Column:
    try:
        kind = series.dtype
    except ValueError:  # decimals of a negative scale, which narwhals has no word for
        raise not_numbers(where, series.to_native().type) from None
    if isinstance(kind, nw.Int128 | nw.UInt128):
        series = _in_64_bits(series, where)
    if isinstance(kind, _NOT_READ):
        raise not_numbers(where, kind)
    missing = np.zeros(len(series), bool)  # of objects each is asked later
    if not isinstance(kind, nw.Object):
        missing = np.asarray(series.is_null().to_numpy(), bool)
    levels: tuple[Any, ...] = ()
    if isinstance(kind, nw.Categorical | nw.Enum):
        levels = tuple(map(as_level, natives.levels_of(native)))
        levels = levels or tuple(series.cat.get_categories().to_list())
    if isinstance(kind, nw.Categorical | nw.Enum | nw.String):
        values = np.empty(len(series), object)
        values[:] = [None if is_missing(v) else as_level(v) for v in series.to_list()]
        return Column(name, values, missing, str(kind), levels)
    if isinstance(kind, nw.Unknown) and (zoned := instants(series.to_native())):
        values, source = zoned
        return Column(name, values, missing, source)
    if isinstance(kind, nw.Object | nw.Decimal | nw.Unknown):
        held = series.to_list()
        values, missing = words_or_numbers(held, missing, where)
        words = values.dtype == object
        source = "String" if words else _source(values.dtype)
        held = list(itertools.compress(held, ~missing))
        if values.dtype.kind == "M" and are_aware(held):
            source = source.replace("None", "'UTC'")
        rounded = is_rounded(held, values[~missing])
        return Column(name, values, missing, source, rounded=rounded)
    if isinstance(kind, nw.Date):  # as days: Python's dates end with the year 9999
        series = series.cast(nw.Int32())
    if isinstance(kind, nw.Datetime):
        zone = getattr(kind, "time_zone", None)
        plain = series.dt.replace_time_zone(None) if zone is None else (
            series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        )  # fmt: skip
        unit = getattr(kind, "time_unit", "us")
        values = np.asarray(plain.to_numpy()).astype(f"datetime64[{unit}]")
    elif missing.any() and not isinstance(kind, nw.Float32 | nw.Float64):
        filled = series.drop_nulls().to_numpy()
        values = np.zeros(len(missing), filled.dtype)
        values[~missing] = filled
    else:
        values = np.asarray(series.to_numpy())
    if isinstance(kind, nw.Date):
        values = values.astype("datetime64[D]")
    if values.dtype.kind not in "biufmM":
        raise not_numbers(where, kind)
    if values.dtype.kind in "fmM":
        missing = missing | np.isnan(values)
    return Column(name, values, missing, str(kind))


def _in_64_bits(series: nw.Series, where: str) -> nw.Series:
    """Integers of 128 bits in a type that NumPy has."""
    low, high = series.min(), series.max()
    if low is not None and not -(2**63) <= low <= high < 2**64:
        raise beyond_64_bits(where, low, high)
    return series.cast(nw.UInt64() if (high or 0) >= 2**63 else nw.Int64())


def _source(dtype: np.dtype) -> str:
    if dtype.kind == "b":
        return "Boolean"
    if dtype.kind in "iu":
        return f"{'U' if dtype.kind == 'u' else ''}Int{8 * dtype.itemsize}"
    if dtype.kind == "M":
        unit = np.datetime_data(dtype)[0]
        return (
            "Date" if unit == "D" else f"Datetime(time_unit={unit!r}, time_zone=None)"
        )
    if dtype.kind == "m":
        return "Duration"
    return "Float32" if dtype == np.float32 else "Float64"
