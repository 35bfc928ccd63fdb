"""Columns of Python's objects as one type of NumPy, or as words."""

import datetime
import decimal
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.tables.checks import InputError, beyond_64_bits, not_numbers

DIGITS = 15  # that float64 keeps of any decimal
_EXACT = 2**53  # integers up to here are exact in float64


def numbers_of(values: np.ndarray, missing: np.ndarray, where: str):
    """Python's numbers in an object array, as one NumPy type."""
    missing = missing | np.array([is_missing(v) for v in values], bool)
    held = values[~missing].tolist()
    words = [v for v in held if isinstance(v, str | bytes)]
    if words:
        raise not_numbers(where, words[:1])
    if held and all(isinstance(v, bool | np.bool_) for v in held):
        held = np.asarray(held, bool)
    elif held and all(isinstance(v, datetime.date) for v in held):
        instants = any(isinstance(v, datetime.datetime) for v in held)
        held = [_in_utc(v) for v in held] if are_aware(held, where) else held
        held = _ticks(held, "M" if instants else "D")
    elif held and all(isinstance(v, datetime.timedelta) for v in held):
        held = _ticks(held, "m")
    elif any(isinstance(v, decimal.Decimal) for v in held):
        held = _of_decimals(held)
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


def is_rounded(values: Sequence[Any], numbers: np.ndarray) -> bool:
    """Whether numbers that became float64, [n], tell fewer of the exact values apart."""
    if numbers.dtype.kind != "f":
        return False
    exact = {v for v in values if isinstance(v, int | np.integer | decimal.Decimal)}
    return len({float(v) for v in exact}) < len(exact)


def _of_decimals(held: Sequence[Any]) -> np.ndarray:
    """Whole numbers beyond 2⁵³ as such where 64 bits hold them; else float64."""
    numbers = np.asarray([float(v) for v in held])
    top = np.abs(numbers).max(initial=0)
    if not _EXACT <= top < 2.0**64 or any(v != int(v) for v in held):
        return numbers
    whole = [int(v) for v in held]
    for kind in (np.int64, np.uint64):
        if np.iinfo(kind).min <= min(whole) <= max(whole) <= np.iinfo(kind).max:
            return np.asarray(whole, kind)
    return numbers


def _ticks(held: Sequence[Any], kind: str) -> np.ndarray:
    """Dates ("D"), instants ("M") or durations ("m"); those of pandas may have nanoseconds."""
    if kind == "D":
        return np.asarray(held, "datetime64[D]")
    ticks = np.asarray(held, f"{kind}8[us]")
    names = ("nanosecond", "nanoseconds")
    if any(getattr(v, name, 0) for v in held for name in names):
        finer = np.asarray([getattr(v, "asm8", v) for v in held], f"{kind}8[ns]")
        if (finer.astype(ticks.dtype) == ticks).all():  # else beyond the years of ns
            return finer
    return ticks


def are_aware(held: Sequence[Any], where: str = "") -> bool:
    """Whether instants have a time zone; all or none of them."""
    aware = {getattr(v, "tzinfo", None) is not None for v in held}
    if len(aware) > 1:
        raise InputError(
            f"{where} must hold times that all have a time zone, or none; got some of both."
            " Convert them with pandas.to_datetime(x, utc=True)."
        )
    return aware == {True}


def words_or_numbers(values: Sequence[Any], missing: np.ndarray, where: str):
    """Columns of Python objects: words stay words."""
    array = np.empty(len(values), object)
    array[:] = values
    words = np.array([isinstance(v, str) for v in array], bool)
    if words.any():
        missing = missing | np.array([is_missing(v) for v in values], bool)
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
    return numbers_of(array, missing, where)


def _in_utc(date: datetime.date) -> datetime.date:
    """An instant with a time zone as NumPy counts it; others as they are."""
    if getattr(date, "tzinfo", None) is None:
        return date
    return date.astimezone(datetime.UTC).replace(tzinfo=None)  # type: ignore[attr-defined]


def is_missing(value: Any) -> bool:
    """Whether an object stands for no value: None, NaN, NaT, NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except decimal.InvalidOperation:  # of a NaN that signals
        return True
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
