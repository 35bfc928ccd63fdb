"""What was learned of one column, and the order of its categories."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Self

import numpy as np
from msgspec import Meta

from trainers.tables.checks import InputError, shown
from trainers.tables.dates import ISO
from trainers.tables.frame import Column, Frame
from trainers.tables.kinds import Kind, Levels, Skipped, Spike, ticks
from trainers.tables.kinds.base import Value
from trainers.tables.kinds.exact import (
    digits_of,
    from_origin,
    is_told,
    needs_origin,
    rounding,
    whole_from,
)
from trainers.tables.kinds.finding import declared, find
from trainers.tables.kinds.found import Found
from trainers.tables.kinds.ticks import Ticks, type_of

_UNIT = r"^(?:\d{0,9}(?:D|h|m|s|ms|us|ns))?$"
_DTYPE = r"^(?:O|[<>=|][biuf]\d{1,2}|[<>=][mM]8\[(?:[YMWDhms]|ms|us|ns)\])$"
_LOOKED_AT = 50_000  # rows that order categories


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnSchema:
    """One column: its name, its kind, and the type it came in.

    Attributes:
      name: of the column.
      kind: what becomes of its values.
      source: the type to write back, as of `Column`.
      dtype: NumPy's, of the values.
      why: the reason for the kind.
      low, high: seen; None for words.
      missing: how many values were missing or infinite.
      unit, origin: of dates, as of `Ticks`; of whole numbers beyond 2⁵³ the one from which
        the others are counted.
      date_format: of dates that came as text: how more of them are read, and written.
      digits: of numbers in a type that holds few: after the point, of nearly all of them.
        0.1 is then what float64 calls 0.1; None where they are of any length.
      native, label: type and name in the DataFrame that it came in, as of `Column`.
    """

    name: str
    kind: Kind
    source: str
    dtype: Annotated[str, Meta(pattern=_DTYPE)]
    why: str
    low: Value | None = None
    high: Value | None = None
    missing: Annotated[int, Meta(ge=0)] = 0
    unit: Annotated[str, Meta(pattern=_UNIT)] = ""
    origin: int = 0
    date_format: str = ""
    digits: Annotated[int, Meta(ge=0, le=9)] | None = None
    native: dict[str, Any] | None = None
    label: dict[str, Any] | None = None

    @property
    def kind_name(self) -> str:
        """What people call the kind."""
        name = self.kind.kind_name if isinstance(self.kind, Levels) else self.kind.kind
        return f"date, {name}" if self.unit else name

    @property
    def ticks(self) -> Ticks:
        """How dates are counted."""
        return Ticks(np.dtype(self.dtype).kind, self.unit, self.origin)

    @property
    def known_format(self) -> str:
        """How more of a text is read: dates are dates there too, also with a bad cell."""
        return self.date_format or (ISO if self.unit else "")

    def of_kind(self, found: Found) -> Self:
        """With the kind that was found, and why."""
        counted = self.origin and not self.unit
        why = f"{found.why}, from {self.origin} on" if counted else found.why
        return dataclasses.replace(self, kind=found.kind, why=why)

    def about(self) -> dict[str, Any]:
        """For people, as JSON."""
        kind = self.kind
        log_p = (
            "a mass"
            if kind.is_mass
            else f"a density per {'day' if self.unit else 'unit'}"
        )
        if isinstance(kind, Spike):
            value = self.ticks.text(kind.value) if self.unit else f"{kind.value:g}"
            rest = "a mass" if kind.rest.is_mass else log_p
            log_p = f"a mass at {value} and {rest} elsewhere"
        return {
            "column": self.name,
            "kind": self.kind_name,
            "why": self.why,
            "low": self.low,
            "high": self.high,
            "missing": self.missing,
            "log_p": log_p if kind.width else "",
        }

    def numbers(self, column: Column) -> np.ndarray:
        """The values as the kind reads them: words, or float64 (dates in days)."""
        values = column.values
        wanted, came = _form(np.dtype(self.dtype)), _form(values.dtype)
        levels = getattr(self.kind, "levels", ("",))
        if wanted == "words" and not any(isinstance(level, str) for level in levels):
            values = values.astype(object)  # categories that are numbers
        elif wanted != came:
            as_in = f", as {levels[0]!r}" if wanted == "words" else ", as"
            held = values[~column.missing]
            example = f", as {held[0]!r}" if came == "words" and len(held) else ""
            raise InputError(
                f"column {self.name!r} must hold {wanted}{as_in} in the fit; got"
                f" {came}{example}."
            )
        if self.unit:
            _check_zone(self, column)
            return self.ticks.numbers(values)
        if self.origin:
            return from_origin(self.origin, values)
        if values.dtype == object:
            return values
        with np.errstate(over="ignore"):  # of longer floats, which are refused then
            numbers = np.asarray(values, np.float64)
        if self.digits is None:
            return numbers
        decimal = np.round(numbers, self.digits)
        return np.where(decimal.astype(values.dtype) == values, decimal, numbers)

    def column(self, values: np.ndarray) -> Column:
        """Decoded values as the column came."""
        dtype = np.dtype(self.dtype)
        if self.unit:
            values = self.ticks.dates(values, dtype)
        elif dtype.kind in "iu":
            whole = np.rint(np.asarray(values, np.float64))
            values = whole_from(whole, self.origin, dtype)
        elif dtype.kind == "b":
            values = np.asarray(values, np.float64) > 0.5
        elif dtype.kind != "O":
            values = np.asarray(values).astype(dtype)
        return self._column(values, np.zeros(len(values), bool))

    def nothing(self, num_rows: int) -> Column:
        """The column where none of its values can be told."""
        return self._column(np.zeros(num_rows, self.dtype), np.ones(num_rows, bool))

    def _column(self, values: np.ndarray, missing: np.ndarray) -> Column:
        return Column(
            self.name,
            values,
            missing,
            self.source,
            date_format=self.date_format,
            native=self.native,
            label=self.label,
        )

    def refuse_contradictions(self) -> None:
        """Raises where what is said of it is of the right types, and cannot be."""
        words = {isinstance(v, str) for v in getattr(self.kind, "levels", ())}
        if not self.native and words - {self.dtype == "O"}:
            raise ValueError(f"{self.name} has other levels than its type")
        ends = [isinstance(v, str) for v in (self.low, self.high) if v is not None]
        copy = isinstance(self.kind, Skipped) and self.kind.of and not self.unit
        if len(ends) == 1 or len(set(ends)) == 2 or (copy and ends != [False, False]):
            raise ValueError(f"{self.name} has ends of other types")

    def to_config(self) -> dict[str, Any]:
        """JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("native", "label"):  # which earlier releases do not know
            if values[name] is None:
                del values[name]
        return values | {"kind": self.kind.to_config()}


def learned(
    column: Column, asked: str | None, *, where: str, mass: bool, given: bool
) -> tuple[ColumnSchema, list[str]]:
    """What a column is, and what is worth a warning; as `ticks.find` and `finding.find`."""
    schema, values = _start(column, asked)
    values, options = values[~column.gone], {"where": where, "mass": mass}
    if not len(values):
        found = Found(Skipped(reason="empty"), "no values")
    elif schema.unit:
        options |= {"dates": column.values[~column.gone], "given": given}
        found = ticks.find(values, schema.ticks, asked, **options)
    elif asked is not None:
        found = declared(values, asked, **options)
    else:
        found = find(values, given=given, **options)
    notes = filter(None, (found.note, rounding(found, column, where)))
    return schema.of_kind(found), list(notes)


def _start(column: Column, asked: str | None) -> tuple[ColumnSchema, np.ndarray]:
    """A schema without its kind yet, and the values that decide it; `asked` is a kind."""
    values, dates = column.values, column.values.dtype.kind in "mM"
    if dates:
        values = values.astype(type_of(values.dtype))
    held = values[~column.gone]
    about: dict[str, Any] = {"low": None, "high": None}
    if dates:
        found = Ticks.of(held, days=asked == "continuous")
        ends = np.sort(held)[[0, -1]] if len(held) else ()
        about |= dict(zip(("low", "high"), map(found.written, ends), strict=False))
        about |= {"unit": found.unit, "origin": found.origin}
    elif held.dtype != object and len(held):
        about = {"low": _plain(held.min()), "high": _plain(held.max())}
    schema = ColumnSchema(
        name=column.name,
        kind=Skipped(reason="not looked at"),
        source=column.source,
        dtype=values.dtype.str if values.dtype != object else "O",
        why="",
        missing=int(column.gone.sum()),
        date_format=column.date_format,
        native=column.native,
        label=column.label,
        **about,
    )
    if held.dtype.kind in "iu" and len(held) and needs_origin(held):
        middle = np.sort(held)[len(held) // 2]
        schema = dataclasses.replace(schema, origin=int(middle))
        return schema, schema.numbers(column).astype(np.int64)
    if values.dtype == object or (values.dtype.kind in "biu" and is_told(held)):
        return schema, values
    if values.dtype in (np.float16, np.float32):
        schema = dataclasses.replace(schema, digits=digits_of(held))
    return schema, schema.numbers(column)


def is_zoned(column: ColumnSchema | Column) -> bool:
    """Whether its times say what zone they are in."""
    return "time_zone='" in column.source


def _check_zone(fitted: ColumnSchema, column: Column):
    """Raises for times of which only some say what zone they are in."""
    aware, came = map(is_zoned, (fitted, column))
    if aware != came:
        which = ("without", "with")
        raise InputError(
            f"column {fitted.name!r} must hold times {which[aware]} a time zone, as in the"
            f" fit; got times {which[came]} one, which may be hours apart. Convert them"
            f" (x.dt.{'tz_localize(ZONE)' if aware else 'tz_localize(None)'}; in a text,"
            f" {'Z or +02:00 behind the time' if aware else 'no Z or +02:00 behind it'})."
        )


def in_order(columns: Sequence[ColumnSchema], frame: Frame) -> list[ColumnSchema]:
    """Categories in the order in which the other columns differ most between them.

    By the mean of the first principal component of the other columns: a flow then has less
    to bend, and a tenth of a nat more where words go along with numbers.
    """
    known = [c for c in columns if c.kind.width and not _is_unordered(c.kind)]
    unordered = [c for c in columns if _is_unordered(c.kind)]
    if not known or not unordered:
        return list(columns)
    rows = np.linspace(0, len(frame) - 1, min(len(frame), _LOOKED_AT)).astype(int)
    part = frame.take(rows)
    whole = ~np.any([part[c.name].gone for c in known + unordered], axis=0)
    part = part.take(whole)
    encoded = []
    for c in known:
        middle = np.full((len(part), c.kind.noise), 0.5)
        encoded.append(c.kind.encode(c.numbers(part[c.name]), middle)[0])
    z = np.concatenate(encoded, axis=1)
    z = z - z.mean(0)
    _, vectors = np.linalg.eigh(z.T @ z)
    first = vectors[:, -1] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    places = z @ first
    changed = {}
    for c in unordered:
        values, kind = c.numbers(part[c.name]), c.kind
        means = [np.mean(places[values == v]) if (values == v).any() else 0.0
                 for v in kind.levels]  # fmt: skip
        order = np.argsort(means, kind="stable")
        changed[c.name] = dataclasses.replace(
            kind,
            levels=tuple(kind.levels[i] for i in order),
            shares=tuple(kind.shares[i] for i in order),
        )
    return [dataclasses.replace(c, kind=changed.get(c.name, c.kind)) for c in columns]


def without_states(columns: Iterable[ColumnSchema]) -> set[str]:
    """Names of the columns whose missing values lose nothing: neither kept nor written back.

    One value in some rows and none in the others are two states, and no constant.
    """
    return {
        c.name for c in columns if isinstance(c.kind, Skipped) and c.kind.value is None
    }


def refuse_missing(frame: Frame, *, skipped: Any = (), name: str = "X"):
    """Raises for missing values and infinities, with the counts by column."""
    counts = []
    for column in frame.columns:
        if column.name not in skipped and column.gone.any():
            counts.append(f"{column.gone.sum()} in {column.name}{_always(column)}")
    if counts:
        told = shown(counts)
        raise InputError(
            f"`{name}` must be whole and finite; got NaN, infinity or missing values: {told}"
            f" (of {len(frame)} rows). Drop or impute them; of a file, --missing drop-rows"
            " or drop-columns."
        )


def _always(column: Column) -> str:
    """What a column with missing values holds, where that is one value: it has two states."""
    held = column.values[~column.gone]
    if not len(held) or (held != held[0]).any():
        return ""
    return f" (else always {held[0]}: fill the empty cells to model both)"


def _is_unordered(kind: Kind) -> bool:
    categorical = isinstance(kind, Levels) and kind.kind_name == "categorical"
    return categorical and len(kind.levels) > 2


def _form(dtype: np.dtype) -> str:
    return {"O": "words", "M": "dates", "m": "durations"}.get(dtype.kind, "numbers")


def _plain(value: Any) -> Any:
    return float(value) if value.dtype.kind == "f" else value.item()
