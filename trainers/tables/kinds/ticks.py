"""Dates and durations as numbers: whole ticks where they lie on a grid of the clock, or days.

A tick is the longest time that divides both the day and all differences: a day for dates,
a quarter of an hour for 10:00, 10:15, 11:30. Ticks are counted as whole numbers, so nothing
is rounded on the way; what has no ticks of a second or more is counted in days.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from trainers.tables.checks import InputError
from trainers.tables.kinds import finding
from trainers.tables.kinds.exact import from_origin, whole_from
from trainers.tables.kinds.found import Found
from trainers.tables.kinds.levels import Skipped, Spike
from trainers.tables.kinds.remarks import far_note

_DAY = {"D": 1, "h": 24, "m": 1440, "s": 86_400, "ms": 86_400_000,
        "us": 86_400_000_000, "ns": 86_400_000_000_000}  # fmt: skip
_SPOKEN = {"D": "day", "h": "hour", "m": "minute", "s": "second", "ms": "millisecond",
           "us": "microsecond", "ns": "nanosecond"}  # fmt: skip
_COARSER = {"W": "D", "M": "D", "Y": "D", "generic": "s"}  # and finer than ns: ns
_TIES = 0.05  # share of repeated values from which milliseconds are a grid too
_LARGEST = 2**63  # counts from here on are taken in float64
_KINDS = ("positive", "bounded", "spike")  # that need the numbers people have
_MIDNIGHT = re.compile(r"T00:00(?::00(?:\.0+)?)?$")
_SENTINEL = re.compile(
    r"(?:9999|2999|0001)-.*|(?:1900|1970|1753)-01-01(?:T00:00.*)?|1899-12-3[01].*"
    r"|2099-12-31.*"
).fullmatch


@dataclasses.dataclass(frozen=True)
class Ticks:
    """How dates, or durations, are counted.

    Attributes:
      kind: "M" of dates or "m" of durations, as NumPy has it.
      unit: "15m" for whole ticks of a quarter of an hour; "us" for days that are whole
        microseconds.
      origin: where the count begins, in the unit without its number.
    """

    kind: str
    unit: str
    origin: int

    @classmethod
    def of(cls, values: np.ndarray, *, days: bool = False) -> Self:
        """The ticks of values [n] that are not missing; `days` asks for days."""
        kind, unit = values.dtype.kind, _unit(values.dtype)
        whole = _counts(values, unit)
        if not len(whole):
            return cls(kind, unit, 0)
        middle = len(whole) // 2
        # Durations are counted from none, so that they are positive.
        origin = int(np.partition(whole, middle)[middle]) if kind == "M" else 0
        # Modulo 2⁶⁴, which holds how far apart any two of them are.
        apart = np.where(whole < origin, origin - whole, whole - origin)
        tick = int(np.gcd.reduce(apart.astype(np.uint64), initial=_DAY[unit]))
        sizes = {u: _DAY[unit] // n for u, n in _DAY.items() if n <= _DAY[unit]}
        base = next(u for u, s in sizes.items() if tick % s == 0 and origin % s == 0)
        size, origin = tick // sizes[base], origin // sizes[base]
        repeat = len(np.unique(whole)) < (1 - _TIES) * len(whole)
        fine = base in ("us", "ns") or (base == "ms" and not repeat)
        on_grid = not fine and not days
        return cls(kind, f"{size}{base}" if on_grid else base, origin)

    @property
    def are_whole(self) -> bool:
        """Whether numbers are whole ticks, and not days."""
        return self.unit[0].isdigit()

    @property
    def a_day(self) -> float:
        """How many ticks a day has; 1 where days are counted."""
        base, size = self._parts
        return _DAY[base] / size

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Dates [n] of any unit as float64; whole for those of the fit, if they are."""
        base, size = self._parts
        fine = max(_unit(values.dtype), base, key=_DAY.__getitem__)
        counts = _counts(values, fine)
        times = _DAY[fine] // _DAY[base]
        return from_origin(self.origin * times, counts, size * times)

    def dates(self, numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The inverse, in a type of dates or durations; the ends of what it holds beyond."""
        base, size = self._parts
        end = (2**63 - 1) // max(_DAY[_unit(dtype)] // _DAY[base], 1)
        counts = np.rint(np.asarray(numbers, np.float64) * size)
        whole = whole_from(counts, self.origin, np.dtype(np.int64))
        return np.clip(whole, -end, end).astype(f"{self.kind}8[{base}]").astype(dtype)

    def text(self, number: float) -> str:
        """A number as `written`."""
        dtype = np.dtype(f"{self.kind}8[{self._parts[0]}]")
        return self.written(self.dates(np.array([number]), dtype)[0])

    def written(self, date: Any) -> str:
        """A date as --na takes it: 2020-01-31, 2020-01-31T23:30 or, durations, 27:15:00."""
        base = self._parts[0]
        unit: Any = "m" if base in ("D", "h") else base
        if self.kind == "M":
            # Not through a coarser type, which wraps round near the least date.
            return _MIDNIGHT.sub("", np.datetime_as_string(date, unit))
        count = date.astype(f"m8[{unit}]").astype(np.int64)
        seconds = int(count) / (_DAY[unit] / _DAY["s"])
        hours, rest = divmod(abs(seconds), 3600)
        minutes, rest = divmod(rest, 60)
        tail = f"{rest:02.0f}" if rest == int(rest) else f"{rest:09.6f}"
        return f"{'-' * (seconds < 0)}{hours:02.0f}:{minutes:02.0f}:{tail}"

    @property
    def _parts(self) -> tuple[str, int]:
        """The unit in which ticks are whole, and how many of it are counted as 1."""
        base, size = np.datetime_data(f"M8[{self.unit}]")
        return base, size if self.are_whole else _DAY[base]

    def steps(self, step: float) -> str:
        """A step in words: days, or "15 minutes"."""
        base, size = np.datetime_data(f"M8[{self.unit}]")
        count = step * size
        return f"{count:g} {_SPOKEN[base]}{'s' * (count != 1)}"


def find(
    x: np.ndarray,
    ticks: Ticks,
    asked: str | None,
    *,
    dates: np.ndarray,
    where: str,
    mass: bool = True,
    given: bool = False,
) -> Found:
    """The kind of a column of dates.

    Args:
      x: what `Ticks.numbers` gave, [n].
      ticks: of the column.
      asked: the kind that a user asked for, with steps in days; None for none.
      dates: what the numbers are of, [n].
      where: as of `finding.find`.
      mass: likewise.
      given: likewise.

    Raises:
      InputError: a kind that dates cannot be.
    """
    x = x.astype(np.int64) if ticks.are_whole else x

    def text(number: float) -> str:  # the date's own: float64 may not hold all digits
        same = x == number
        return ticks.written(dates[same.argmax()]) if same.any() else ticks.text(number)

    options: dict[str, Any] = {"where": where, "mass": mass}
    if asked is None or asked.strip() == "date":
        found = finding.find(x, given=given, **options)
    else:
        found = finding.declared(x, _in_ticks(asked, ticks, where), **options)
    note = "" if given else far_note(x, where, text, _SENTINEL)
    note = note or ("" if ticks.are_whole else found.note)
    why = _why(found.kind, found.why, ticks, text)
    return dataclasses.replace(found, why=why, note=note)


def _in_ticks(asked: str, ticks: Ticks, where: str) -> str:
    """What was asked of days, of ticks."""
    name = re.split(r"[(:]", asked.strip())[0]
    if ticks.kind == "M" and name in _KINDS:
        raise InputError(
            f"`kinds` must be date, continuous, rounded(DAYS), categorical, boolean or"
            f" skipped for dates; got {asked!r} for {where}."
        )
    step = re.fullmatch(r"\s*rounded\s*[(:]\s*([\d.eE+-]+)\s*\)?\s*", asked)
    if step and ticks.are_whole:
        return f"rounded({float(step[1]) * ticks.a_day!r})"
    return asked


def _why(kind: Any, why: str, ticks: Ticks, text: Callable[[float], str]) -> str:
    """A reason with dates for numbers."""
    if isinstance(kind, Spike):
        share, _, rest = why.partition(" in ")[2].partition(", beside ")
        rest = _why(kind.rest, rest, ticks, text)
        return f"{text(kind.value)} in {share}, beside {rest}"
    if isinstance(kind, Skipped):
        return f"always {text(kind.value)}" if kind.reason == "constant" else why
    if not ticks.are_whole:
        return "times" if why == "numbers" else why
    why = why.partition("; each row")[0]  # dates in order are no identifiers
    why = re.sub(r", -?[\d.e+]+ to -?[\d.e+]+", "", why)  # the range is told anyway
    step = ticks.steps(getattr(kind, "step", 0) or 1)
    why = re.sub(r"steps of [\d.e+]+", f"steps of {step}", why)
    whole = f"whole {step[2:]}s" if step.startswith("1 ") else f"steps of {step}"
    return why.replace("whole numbers", whole)


def type_of(dtype: np.dtype) -> np.dtype:
    """The type that dates are kept in: in units of at least a nanosecond."""
    fine = np.datetime_data(dtype)[0] in ("ps", "fs", "as")
    return np.dtype(f"{dtype.kind}8[ns]") if fine else dtype


def _unit(dtype: np.dtype) -> str:
    """The unit that a type is counted in."""
    unit = np.datetime_data(dtype)[0]
    return unit if unit in _DAY else _COARSER.get(unit, "ns")


def _counts(values: np.ndarray, unit: str) -> np.ndarray:
    """In a unit as fine as their own, int64, or float64 where that does not hold them."""
    own = _unit(values.dtype)
    whole = values.astype(f"{values.dtype.kind}8[{own}]").astype(np.int64)
    times = _DAY[unit] // _DAY[own]
    there = ~np.isnat(values)
    if (
        times > 1
        and np.abs(np.where(there, whole, 0)).max(initial=0) >= _LARGEST // times
    ):
        return np.asarray(whole, np.float64) * times
    return whole * times
