"""A table in memory, every column in the type it came in.

Numbers are looked at on the host before anything becomes a `jax.Array`: JAX wraps int64 and
rounds float64 without a word. DataFrames of pandas, polars and pyarrow come and go through
narwhals, so none of them is required.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np

from trainers.tables import natives

ARRAY = "numpy"  # the origin of tables that came as arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes:
      name: of the column.
      values: numbers in their own type, `datetime64`, `timedelta64`, or objects that are
        strings, [n]; where a value is missing it says nothing.
      missing: True where there is no value, [n].
      source: the type to write back, in narwhals' words ("Int64", "Date", "Categorical",
        "Datetime(time_unit='us', time_zone='UTC')").
      levels: of a categorical type, in its own order.
      date_format: how cells of a text were written, where not as usual: of dates as
        `trainers.tables.dates` has it, of truth values "True|False", of words that would
        be numbers "words".
      native: the type to write back into a DataFrame of the library that it came in, as
        `natives.described` has it, where `source` does not say it.
      label: what pandas calls the column where that is not `name` alone, as
        `natives.of_pandas.label` has it.
      rounded: whether some of its numbers are one in float64, and were not as they came.
    """

    name: str
    values: np.ndarray
    missing: np.ndarray
    source: str
    levels: tuple[Any, ...] = ()
    date_format: str = ""
    native: dict[str, Any] | None = None
    label: dict[str, Any] | None = None
    rounded: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def gone(self) -> np.ndarray:
        """True where there is no finite value, [n]."""
        if self.values.dtype.kind != "f":
            return self.missing
        return self.missing | ~np.isfinite(self.values)

    def take(self, rows: Any) -> Self:
        """The column's rows of these numbers, or where a mask is True."""
        return dataclasses.replace(
            self, values=self.values[rows], missing=self.missing[rows]
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Columns of one length.

    Attributes:
      columns: in order.
      origin: "numpy", "pandas", "polars" or "pyarrow": what `native` gives back.
      notes: what was decided in reading it, one line each, with the option that overrides.
      is_named: whether the names came with it; otherwise they are x0, x1, ...
    """

    columns: tuple[Column, ...]
    origin: str = ARRAY
    notes: tuple[str, ...] = ()
    is_named: bool = True

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        """The column of a name."""
        return self.columns[self._places[name]]

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: j for j, name in enumerate(self.names)}

    def select(self, names: Iterable[str]) -> Self:
        """The columns of these names, in this order."""
        return dataclasses.replace(self, columns=tuple(self[name] for name in names))

    def take(self, rows: Any) -> Self:
        """The rows of these numbers, or where a mask is True."""
        columns = tuple(column.take(rows) for column in self.columns)
        return dataclasses.replace(self, columns=columns)

    def native(self) -> Any:
        """The table as it came: an array, [n, d], or a DataFrame of its library."""
        if self.origin == ARRAY:
            return _as_one([_for_numpy(c) for c in self.columns], len(self))
        return self.dataframe(self.origin)

    def dataframe(self, backend: str) -> Any:
        """The table as a DataFrame of "pandas", "polars" or "pyarrow"."""
        as_came = backend == self.origin
        own = {c.name: c.native for c in self.columns if as_came and c.native}
        lists = {
            c.name: natives.restored(c.values, c.missing, own[c.name], backend)
            if c.name in own
            else _for_dataframe(c)
            for c in self.columns
        }
        frame = nw.from_dict(lists, backend=backend)
        casts = [
            _cast(column)
            for column in self.columns
            if column.name not in own and _is_cast(column, frame.schema[column.name])
        ]
        frame = (frame.with_columns(*casts) if casts else frame).to_native()
        return natives.named(frame, self.columns, backend) if as_came else frame


def numbered(num_columns: int) -> tuple[str, ...]:
    """The names of columns that came without: x0, x1, ..."""
    return tuple(f"x{j}" for j in range(num_columns))


def joined(frames: Sequence[Frame]) -> Frame:
    """The rows of several tables of the same columns, one after another."""
    columns = (
        dataclasses.replace(
            parts[0],
            values=np.concatenate([part.values for part in parts]),
            missing=np.concatenate([part.missing for part in parts]),
            native=parts[0].native
            if all(part.native == parts[0].native for part in parts)
            else None,
            rounded=any(part.rounded for part in parts),
        )
        for parts in zip(*(frame.columns for frame in frames), strict=True)
    )
    return dataclasses.replace(frames[0], columns=tuple(columns))


def _is_cast(column: Column, built: Any) -> bool:
    """Whether a type that was built from values becomes another one."""
    kind = _narwhals_type(column.source)
    if kind is None or built == kind:
        return False
    if isinstance(kind, nw.Categorical):
        # Of numbers only some libraries have any; no rows are of no type.
        return isinstance(built, nw.String | nw.Unknown)
    return not (column.missing.any() and column.values.dtype.kind in "biu")


def _cast(column: Column) -> nw.Expr:
    expression, kind = nw.col(column.name), _narwhals_type(column.source)
    if isinstance(kind, nw.Datetime) and kind.time_zone:
        aware = expression.dt.replace_time_zone("UTC")
        return aware.dt.convert_time_zone(kind.time_zone)
    return expression.cast(kind)


def _narwhals_type(source: str) -> Any:
    """The type of that name, or None for what is left as it is built."""
    if source.startswith("Datetime"):
        unit = source.partition("time_unit='")[2].partition("'")[0] or "us"
        zone = source.partition("time_zone='")[2].partition("'")[0] or None
        return nw.Datetime(unit if unit in ("ns", "us", "ms", "s") else "us", zone)
    if source.startswith(("Enum", "Categorical")):
        return nw.Categorical()
    plain = ("String", "Date", "Boolean", "Float32", "Float64")
    integers = [f"{u}Int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)]
    return getattr(nw, source)() if source in (*plain, *integers) else None


def _as_one(columns: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Columns, [n] each, as [n, d]; of objects where there are dates beside other types."""
    types = {column.dtype for column in columns}
    if len(types) > 1 and any(kind.kind in "mM" for kind in types):
        columns = [np.array(list(column), object) for column in columns]
    return np.stack(columns, axis=1) if columns else np.empty((n, 0))


def _for_numpy(column: Column) -> np.ndarray:
    if not column.missing.any():
        return column.values
    if column.values.dtype.kind in "biu":
        return np.where(column.missing, np.nan, column.values)
    values = column.values.copy()
    gap = {"O": None, "M": "NaT", "m": "NaT"}.get(values.dtype.kind, np.nan)
    values[column.missing] = gap
    return values


def _for_dataframe(column: Column) -> Any:
    values = column.values
    if values.dtype == np.float16 or (
        values.dtype.itemsize > 8 and values.dtype.kind == "f"
    ):
        values = values.astype(np.float64)  # Arrow has no such floats
    held = values[~column.missing] if values.dtype == object else ()
    whole = len(held) and type(held[0]) is int
    if whole and not all(-(2**63) <= value < 2**63 for value in held):
        values = values.astype(str).astype(object)  # Arrow has no such numbers
    if column.missing.any():
        return [
            None if gone else value
            for value, gone in zip(values.tolist(), column.missing, strict=True)
        ]
    return values.tolist() if values.dtype == object else values
