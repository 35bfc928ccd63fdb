"""The one door for tables: in memory or in a file, every column in the type it came in."""

import dataclasses
import datetime
import decimal
import os
from collections.abc import Mapping, Sequence
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
    values = np.ma.getdata(values)
    if values.dtype == object:
        values, missing = _of_objects(values, missing, where)
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
    return Column(name, values, missing, _source(values.dtype))


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
        try:
            native = natives.described(series.to_native(), origin)
            label = natives.label(own, frame.to_native(), origin)
        except ValueError as error:
            raise InputError(
                f"{where} must have a name and categories that are {error}. Rename them,"
                " or make words of them with .astype(str)."
            ) from None
        found = _of_series(series, column, native, where=where)
        columns.append(dataclasses.replace(found, native=native, label=label))
    return Frame(tuple(columns), origin)


def _of_series(
    series: nw.Series, name: str, native: dict[str, Any] | None, *, where: str
) -> Column:
    kind = series.dtype
    if isinstance(kind, nw.Int128 | nw.UInt128):
        series = _in_64_bits(series, where)
    if isinstance(kind, _NOT_READ):
        raise not_numbers(where, kind)
    missing = np.asarray(series.is_null().to_numpy(), bool)
    levels: tuple[Any, ...] = ()
    if isinstance(kind, nw.Categorical | nw.Enum):
        levels = tuple(map(as_level, natives.levels_of(native)))
        levels = levels or tuple(series.cat.get_categories().to_list())
    if isinstance(kind, nw.Categorical | nw.Enum | nw.String):
        values = np.empty(len(series), object)
        values[:] = [None if _is_missing(v) else as_level(v) for v in series.to_list()]
        return Column(name, values, missing, str(kind), levels)
    if isinstance(kind, nw.Object | nw.Decimal | nw.Unknown):
        values, missing = _of_dataframe_objects(series.to_list(), missing, where)
        words = values.dtype == object
        source = "String" if words else _source(values.dtype)
        if values.dtype.kind == "M" and _are_aware(series.drop_nulls().to_list()):
            source = "Datetime(time_unit='us', time_zone='UTC')"
        return Column(name, values, missing, source)
    if isinstance(kind, nw.Date):
        dates = [None if _is_missing(v) else v for v in series.to_list()]
        values = np.asarray(dates, "datetime64[D]")
    elif isinstance(kind, nw.Datetime):
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
    if values.dtype.kind not in "biufmM":
        raise not_numbers(where, kind)
    if values.dtype.kind in "fmM":
        missing = missing | np.isnan(values)
    return Column(name, values, missing, str(kind))


def _of_objects(values: np.ndarray, missing: np.ndarray, where: str):
    """Python's numbers in an object array, as one NumPy type."""
    missing = missing | np.array([_is_missing(v) for v in values], bool)
    held = values[~missing].tolist()
    words = [v for v in held if isinstance(v, str | bytes)]
    if words:
        raise not_numbers(where, words[:1])
    if held and all(isinstance(v, bool | np.bool_) for v in held):
        held = np.asarray(held, bool)
    elif held and all(isinstance(v, datetime.date) for v in held):
        instants = any(isinstance(v, datetime.datetime) for v in held)
        held = [_in_utc(v) for v in held] if _are_aware(held, where) else held
        held = np.asarray(held, f"datetime64[{'us' if instants else 'D'}]")
    elif held and all(isinstance(v, datetime.timedelta) for v in held):
        held = np.asarray(held, "timedelta64[us]")
    elif any(isinstance(v, decimal.Decimal) for v in held):
        held = np.asarray([float(v) for v in held])
    elif (
        held
        and all(isinstance(v, int) for v in held)
        and (not -(2**63) <= min(held) <= max(held) < 2**64)
    ):
        raise beyond_64_bits(where, min(held), max(held))
    elif any(isinstance(v, list | tuple | dict | set | np.ndarray) for v in held):
        raise not_numbers(where, type(held[0]).__name__)
    else:
        held = np.asarray(held) if held else np.zeros(0)
    if held.dtype.kind not in "biufmM":
        raise not_numbers(where, type(values[~missing][0]).__name__)
    filled = np.zeros(len(values), held.dtype)
    filled[~missing] = held
    return filled, missing


def _are_aware(held: Sequence[Any], where: str = "") -> bool:
    """Whether instants have a time zone; all or none of them."""
    aware = {getattr(v, "tzinfo", None) is not None for v in held}
    if len(aware) > 1:
        raise InputError(
            f"{where} must hold times that all have a time zone, or none; got some of both."
            " Convert them with pandas.to_datetime(x, utc=True)."
        )
    return aware == {True}


def _of_dataframe_objects(values: Sequence[Any], missing: np.ndarray, where: str):
    """Columns of Python objects: words stay words."""
    array = np.empty(len(values), object)
    array[:] = values
    missing = missing | np.array([_is_missing(v) for v in values], bool)
    words = np.array([isinstance(v, str) for v in array], bool)
    if words.any():
        others = array[~missing & ~words]
        if len(others):
            raise InputError(
                f"{where} must hold words or numbers, not both; got"
                f" {array[words][0]!r} in {words.sum()} rows and {others[0]!r} in"
                f" {len(others)}. Make words of all with .astype(str), or numbers with"
                " pandas.to_numeric."
            )
        array[~missing] = [str(word) for word in array[~missing]]
        return array, missing
    return _of_objects(array, missing, where)


def _in_utc(date: datetime.date) -> datetime.date:
    """An instant with a time zone as NumPy counts it; others as they are."""
    if getattr(date, "tzinfo", None) is None:
        return date
    return date.astimezone(datetime.UTC).replace(tzinfo=None)  # type: ignore[attr-defined]


def _in_64_bits(series: nw.Series, where: str) -> nw.Series:
    """Integers of 128 bits in a type that NumPy has."""
    low, high = series.min(), series.max()
    if low is not None and not -(2**63) <= low <= high < 2**64:
        raise beyond_64_bits(where, low, high)
    return series.cast(nw.UInt64() if (high or 0) >= 2**63 else nw.Int64())


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


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
