"""pyarrow, an extra: imported where it is needed; its types, as a `Frame` holds them."""

import contextlib
import dataclasses
from typing import Any

import numpy as np

from trainers.tables import natives
from trainers.tables.checks import InputError, printable, shown
from trainers.tables.door import frame_of
from trainers.tables.frame import Column, Frame
from trainers.tables.natives.of_objects import DIGITS

_OLDEST = 26  # of pyarrow; the first that writes missing cells as a word of ours


def import_pyarrow() -> Any:
    """The package, or an InputError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "`path` must be .npy or .npz without pyarrow, which reads and writes .csv,"
            " .parquet and what is compressed. Install it with:"
            " pip install 'rbig-nnx[data]'"
        ) from error
    if int(pyarrow.__version__.partition(".")[0]) < _OLDEST:
        raise InputError(
            f"`pyarrow` must be {_OLDEST} or newer to read and write tables; got"
            f" {pyarrow.__version__}. Install it with: pip install 'rbig-nnx[data]'"
        )
    return pyarrow


def is_numeric(types: Any, kind: Any) -> bool:
    """A column without a single value counts as numbers: all of them missing."""
    checks = (types.is_integer, types.is_floating, types.is_decimal)
    checks += (types.is_boolean, types.is_null)
    return any(check(kind) for check in checks)


def holds(kind: Any) -> bool:
    """Whether a `Frame` can hold columns of a type: no lists, records or bytes."""
    types = import_pyarrow().types
    if types.is_dictionary(kind):
        return holds(kind.value_type)
    checks = (types.is_string, types.is_large_string, types.is_string_view)
    checks += (types.is_temporal,)
    interval = types.is_interval(kind)
    return is_numeric(types, kind) or (any(c(kind) for c in checks) and not interval)


def encoded(column: Any) -> tuple[Any, Any]:
    """Numbers of words, and the words: what is done is done once for each word."""
    arrow = import_pyarrow()
    if not isinstance(column, arrow.ChunkedArray):
        column = arrow.chunked_array([column])
    found = column.dictionary_encode().unify_dictionaries()
    if not found.num_chunks:
        return arrow.chunked_array([], arrow.int32()), arrow.array([], arrow.string())
    indices = arrow.chunked_array([chunk.indices for chunk in found.chunks])
    return indices, found.chunk(0).dictionary


def is_whole(column: Any) -> bool:
    """Whether float64 holds integers only."""
    arrow = import_pyarrow()
    if not arrow.types.is_floating(column.type):
        return False
    pc = arrow.compute
    return bool(pc.all(pc.equal(column, pc.round(column))).as_py())


def may_be_rounded(column: Any) -> bool:
    """Whether float64 holds a finite number from where on it leaves integers out."""
    arrow = import_pyarrow()
    if not arrow.types.is_floating(column.type):
        return False
    pc = arrow.compute
    top = pc.max(pc.abs(pc.if_else(pc.is_finite(column), column, 0.0))).as_py()
    return top is not None and top >= 2**53


def frame_of_arrow(table: Any, name: str) -> Frame:
    """A table of pyarrow as a `Frame`; every type must be one that it can hold."""
    bad = [f"{f.name} ({f.type})" for f in table.schema if not holds(f.type)]
    if bad:
        raise InputError(
            f"{name} must hold numbers, words or dates in every column, got"
            f" {printable(shown(bad))}. Leave them out with --drop."
        )
    arrow = import_pyarrow()
    plain = [_plain(column) for column in table.columns]
    frame = frame_of(arrow.table(plain, names=table.column_names), name=name)
    columns = (
        dataclasses.replace(
            column,
            native=natives.described(own, frame.origin),
            rounded=_is_rounded(own, column),
        )
        for column, own in zip(frame.columns, table.columns, strict=True)
    )
    return dataclasses.replace(frame, columns=tuple(columns))


def arrow_of_frame(frame: Frame) -> Any:
    """A `Frame` as a table of pyarrow, categories with their levels in their order."""
    arrow = import_pyarrow()
    table = frame.dataframe("pyarrow")
    for j, column in enumerate(frame.columns):
        if arrow.types.is_run_end_encoded(table.schema[j].type):  # no file has it
            whole = arrow.compute.run_end_decode(table.column(j))
            table = table.set_column(j, column.name, whole)
        as_came = column.native is not None and frame.origin == "pyarrow"
        is_dictionary = arrow.types.is_dictionary(table.schema[j].type)
        if as_came or not column.levels or not is_dictionary:
            continue
        levels = arrow.array([str(level) for level in column.levels])
        found = table.column(j).cast(arrow.string())
        places = arrow.compute.index_in(found, levels).combine_chunks()
        if places.null_count == int(column.missing.sum()):
            array = arrow.DictionaryArray.from_arrays(places, levels)
            table = table.set_column(j, column.name, array)
    return table


def _is_rounded(own: Any, column: Column) -> bool:
    """Whether float64 tells fewer of a column of decimals apart."""
    arrow = import_pyarrow()
    if not arrow.types.is_decimal(own.type) or column.values.dtype.kind != "f":
        return False
    values = column.values[~column.missing]
    if np.abs(values).max(initial=0) < 10.0 ** (DIGITS - own.type.scale):
        return False
    words = arrow.compute.count_distinct(own.cast(arrow.string())).as_py()
    return words > len(np.unique(values))


def _plain(column: Any) -> Any:
    """The column in a type that NumPy has too."""
    arrow = import_pyarrow()
    types, kind = arrow.types, column.type
    if types.is_null(kind):
        return arrow.nulls(len(column), arrow.float64())
    if types.is_decimal(kind):
        is_long = kind.scale == 0 and kind.precision > DIGITS
        if is_long:  # in every part of a file, whatever it holds
            for whole in (arrow.int64(), arrow.uint64()):
                with contextlib.suppress(arrow.ArrowInvalid):
                    return column.cast(whole)
        # pyarrow's own way to float64 is off by one unit
        return column.cast(arrow.string()).cast(arrow.float64())
    if types.is_float16(kind):
        return column.cast(arrow.float32())
    if types.is_date64(kind):
        return column.cast(arrow.date32())
    if types.is_string_view(kind):
        return column.cast(arrow.string())
    if types.is_time(kind):  # since midnight
        number = arrow.int32() if types.is_time32(kind) else arrow.int64()
        unit = arrow.duration(kind.unit)
        return column.cast(number).cast(arrow.int64()).cast(unit)
    return column
