"""Names of columns and levels of categories as JSON: text as it is, others with their type."""

import datetime
import decimal
from typing import Any

import numpy as np

_PLAIN = (bool, int, float, str)


def as_json(value: Any) -> Any:
    """A name or a level.

    Raises:
      ValueError: for other than words, numbers, dates, intervals, periods and tuples of them.
    """
    value = unboxed(value)
    if value is None or type(value) is str:
        return value
    kind = type(value).__name__
    if isinstance(value, _PLAIN):  # as text: JSON has no infinity
        kind = next(k.__name__ for k in _PLAIN if isinstance(value, k))
        return [kind, repr(value) if kind == "float" else value]
    if isinstance(value, tuple):
        return ["tuple", list(map(as_json, value))]
    if isinstance(value, decimal.Decimal):
        return ["Decimal", str(value)]
    if kind in ("date", "datetime"):
        return [kind, value.isoformat()]
    if kind in ("Timestamp", "Timedelta"):
        zone = str(getattr(value, "tz", ""))  # of others the offset is all there is
        return [kind, value.isoformat(), value.unit, *([zone] if "/" in zone else [])]
    if kind == "Period":
        return [kind, str(value), value.freqstr]
    if kind == "Interval":
        return [kind, as_json(value.left), as_json(value.right), value.closed]
    if kind == "NaTType":
        return ["NaT"]
    raise ValueError(f"words, numbers, dates or intervals; got {kind}")


def value_of(written: Any) -> Any:
    """What `as_json` wrote.

    Raises:
      ValueError: for what it does not write.
    """
    if written is None or isinstance(written, str):
        return written
    kind, *parts = written
    if kind in _READERS:
        return _READERS[kind](*parts)
    if kind not in _OF_PANDAS:
        raise ValueError(f"a name or a level must be of a known type; got {kind!r}.")
    import pandas as pd

    if kind in ("Timestamp", "Timedelta"):
        value = getattr(pd, kind)(parts[0]).as_unit(parts[1])
        return value.tz_convert(parts[2]) if len(parts) > 2 else value
    if kind == "Interval":
        return pd.Interval(value_of(parts[0]), value_of(parts[1]), closed=parts[2])
    return pd.Period(parts[0], freq=parts[1]) if kind == "Period" else pd.NaT


_OF_PANDAS = ("Timestamp", "Timedelta", "Interval", "Period", "NaT")
_READERS = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "tuple": lambda parts: tuple(map(value_of, parts)),
    "Decimal": decimal.Decimal,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
}


def unboxed(value: Any) -> Any:
    """NumPy's numbers as Python's, also within tuples."""
    if isinstance(value, tuple):
        return tuple(map(unboxed, value))
    return value.item() if isinstance(value, np.generic) else value


def as_level(level: Any) -> Any:
    """A level as columns hold it: numbers and words as they are, others as text."""
    level = unboxed(level)
    return level if isinstance(level, _PLAIN) else str(level)
