"""The checks that every row passes, whichever door it came through."""

import collections
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_LARGEST = 1e100  # number whose square is one
_NUM_SHOWN = 5  # rows or columns named in a message
_CONVERTED = {  # types of pandas that are no numbers, and how to have numbers or dates
    "Period": "x.dt.to_timestamp()",
    "Interval": "two columns, of x.array.left and x.array.right",
    "complex": "two columns, x.real and x.imag",
    "dict": "a DataFrame, with pandas.DataFrame(X)",
    "time": "pandas.to_timedelta(x.astype(str)), the time since midnight",
    "Time": "x.cast(polars.Duration), the time since midnight",
}


class InputError(ValueError):
    """What the user gave cannot be used; the message says why and the way out."""


def check_rows(
    x: Any, *, name: str = "x", num_features: int | None = None
) -> np.ndarray:
    """Checks rows before any work is done with them.

    Rows to fit (`num_features` None) must be at least two, with no constant column; rows
    for a model that exists need only its width.

    Args:
      x: numbers, [n, d], or [n] for one column.
      name: what the messages call them.
      num_features: the model's width. None: rows to fit.

    Returns:
      The rows, float32, [n, d].

    Raises:
      InputError: for another shape or dtype, values that are not finite in float32, no
        rows, and in rows to fit a single row or constant columns.
    """
    x = np.asarray(x)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2:
        raise InputError(
            f"`{name}` must have rows and columns, [n, d], got shape {x.shape}. "
            "Reshape it with x.reshape(len(x), -1)."
        )
    if num_features is not None and x.shape[1] != num_features:
        raise InputError(
            f"`{name}` must have the model's {num_features} columns, got {x.shape[1]}. "
            "Choose the columns that the model was fitted to, in their order."
        )
    min_rows = 2 if num_features is None else 1
    if x.shape[0] < min_rows or x.shape[1] == 0:
        raise InputError(
            f"`{name}` must have at least {min_rows} rows and one column, got shape "
            f"{x.shape}. Give more data."
        )
    x = as_float32(x, name)
    if num_features is None:
        constant = np.flatnonzero(x.min(axis=0) == x.max(axis=0))
        if constant.size:
            raise InputError(
                f"`{name}` must vary in every column, got constant columns "
                f"{shown(constant)} (from 0). Leave them out."
            )
    return x


def check_finite(x: np.ndarray, name: str, *, first: int = 0):
    """Raises for rows with a value that is not finite.

    Args:
      x: floats, [n, ...].
      name: what the message calls them.
      first: number of the first row, where x is a part of something larger.
    """
    if np.isfinite(x).all():
        return
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    raise InputError(
        f"`{name}` must be finite in {x.dtype}; got NaN, infinity or a missing value in"
        f" {bad.size} of {len(x)} rows, the first is row {first + bad[0]} (from 0)."
        " Drop or impute them."
    )


def as_float32(values: np.ndarray, name: str) -> np.ndarray:
    """Finite numbers as float32."""
    if values.dtype.kind not in "fiub":
        raise InputError(
            f"`{name}` must hold real numbers, got dtype {values.dtype}. "
            "Convert it with x.astype(float), or leave out the columns that are text."
        )
    with np.errstate(over="ignore"):
        values32 = values.astype(np.float32)
    check_finite(values32, name)
    return values32


def shown(items: Sequence[Any] | np.ndarray, limit: int = _NUM_SHOWN) -> str:
    """The first of some items in a message."""
    dots = ", …" if len(items) > limit else ""
    return ", ".join(printable(item) or "''" for item in items[:limit]) + dots


def printable(text: Any, limit: int = 200) -> str:
    """Text from outside in a message: one line, without control characters."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text).strip())
    return line if len(line) <= limit else line[:limit] + "…"


def near(words: Iterable[str], names: Sequence[str]) -> str:
    """Names like the words in a sentence of their own, or nothing."""
    close = (difflib.get_close_matches(w, names, n=3, cutoff=0.6) for w in words)
    found = list(dict.fromkeys(name for names in close for name in names))
    return f" Near: {printable(shown(found))}." if found else ""


def refuse_extreme(x: np.ndarray, where: str):
    """Raises for numbers whose squares float64 does not hold."""
    y = np.asarray(x, np.float64)
    size, spread = np.abs(y).max(), np.ptp(y)
    if size > _LARGEST:
        value = y[np.abs(y).argmax()]
        raise InputError(
            f"{where} must hold numbers within ±{_LARGEST:g}; got {value:g}. Say so if it"
            f" stands for a missing value (--na {value:.15g}), or divide the column by a power"
            " of ten."
        )
    if 0 < spread < 1 / _LARGEST:
        raise InputError(
            f"{where} must vary by {1 / _LARGEST:g} or more; got {spread:g}. Multiply it by a"
            " power of ten."
        )


def repeated(names: Sequence[str]) -> list[str]:
    """Those that come more than once."""
    counts = collections.Counter(names)
    return sorted(name for name, count in counts.items() if count > 1)


def refuse_repeated(names: Sequence[str], option: str):
    """Raises where an option names a column more than once."""
    if twice := repeated(names):
        raise InputError(
            f"{option} must name a column once; got {printable(shown(twice))} twice."
        )


def refuse_twice(names: Sequence[str], name: str):
    """Raises for columns of one name."""
    if twice := repeated(names):
        raise InputError(
            f"`{name}` must name every column differently, got twice: {shown(twice)}."
            " Rename them."
        )


def refuse_others(table: Any, name: str):
    """Raises for what NumPy would take for a single object."""
    ways_out = {
        "toarray": "Make an array of it with .toarray().",
        "collect": "Read it with .collect().",
        "compute": "Read it with .compute().",
        "__dlpack__": "Make an array of it with numpy.from_dlpack(...).",
        "__next__": "Make a list of it with list(...).",
    }
    if hasattr(table, "__array__") or isinstance(table, Mapping):
        return
    found = [way for method, way in ways_out.items() if hasattr(table, method)]
    if found or table is None or callable(table) or isinstance(table, set | frozenset):
        kind = type(table)
        came = "None" if table is None else f"a {kind.__module__}.{kind.__qualname__}"
        way_out = found[0] if found else "Give an array, a DataFrame or a path."
        raise InputError(
            f"`{name}` must be a table in memory or the path of one; got"
            f" {came.replace('builtins.', '')}. {way_out}"
        )


def beyond_64_bits(where: str, low: int, high: int) -> InputError:
    """The error for whole numbers that no type of NumPy holds."""
    return InputError(
        f"{where} must hold integers of 64 bits; got {low} to {high}. Take an offset"
        " off, or convert them to floats."
    )


def refuse_months(dtype: np.dtype, where: str):
    """Raises for durations in months and years, which have no length."""
    if dtype.kind == "m" and np.datetime_data(dtype)[0] in ("Y", "M"):
        raise InputError(
            f"{where} must hold durations in days, seconds or the like; got {dtype}. Make"
            " numbers of them with x.astype(int)."
        )


def not_numbers(where: str, came: Any) -> InputError:
    """The error for a column of something else."""
    if way := _CONVERTED.get(str(came)):
        return InputError(
            f"{where} must hold numbers, words or dates, got {came!s}. Convert it to {way},"
            " or leave the column out."
        )
    return InputError(
        f"{where} must hold real numbers, got {came!r}. Convert it with"
        " x.astype(float) if they are numbers, or leave the column out; words are"
        " modelled by FlowDensity, of a DataFrame."
    )
