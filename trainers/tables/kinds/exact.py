"""Numbers in types that tell more than float64 does, or fewer digits."""

import numpy as np

from trainers.tables.frame import Column
from trainers.tables.kinds.found import Found, option

_NEARLY_ALL = 0.98  # of the values, that have so few digits
_COARSE = 2  # times what their type resolves, for digits to be theirs
_ROUNDED = 0.75  # steps of a type: a half, and what that does to a mean and a spread


def digits_of(x: np.ndarray) -> int | None:
    """After the point, of nearly all values of a type that holds few; None if of any number."""
    top = np.abs(x).max(initial=0)
    for digits in range(10):
        if not 10.0**-digits > _COARSE * np.spacing(top):
            break
        decimal = np.round(np.asarray(x, np.float64), digits).astype(x.dtype)
        if np.mean(decimal == x) >= _NEARLY_ALL:
            return digits
    return None


def is_told(x: np.ndarray) -> bool:
    """Whether float64 tells whole numbers from their neighbours."""
    return not len(x) or max(-int(x.min()), int(x.max())) < 2**53


def needs_origin(x: np.ndarray) -> bool:
    """Whether float64 tells the differences of whole numbers, but not the numbers."""
    low, high = int(x.min()), int(x.max())
    return max(-low, high) >= 2**53 > high - low


def rounding(found: Found, column: Column, where: str) -> str:
    """A note on numbers that float64 tells no more apart, or ""; of masses, that may be."""
    x, way_out = column.values[~column.gone], option(where, "drop")
    if column.rounded:
        return f"{where}: numbers of more than 15 digits are rounded ({way_out})"
    whole = found.kind.is_mass and x.dtype.kind in "iu" and len(x)
    if not whole or is_told(x) or needs_origin(x):
        return ""
    return f"{where}: integers 2^53 or more apart are rounded ({way_out})"


def rounded_by(top: float, dtype: np.dtype) -> float:
    """How far a type of floats may put numbers up to `top` off a line; 0 of other types."""
    return _ROUNDED * float(np.spacing(dtype.type(top))) if dtype.kind == "f" else 0.0


def from_origin(origin: int, x: np.ndarray, step: int = 1) -> np.ndarray:
    """(x − origin) / step, float64, exact where that is a whole number that it tells."""
    ends = (int(x.min()), int(x.max())) if x.dtype.kind in "iu" and len(x) else ()
    if not ends or max(abs(end - origin) for end in ends) >= 2**64:
        return (np.asarray(x, np.float64) - origin) / step
    # Modulo 2⁶⁴, which |x − origin| is less than.
    apart, below = x.astype(np.uint64) - np.uint64(origin % 2**64), x < origin
    count, rest = np.divmod(np.where(below, -apart, apart), np.uint64(step))
    return np.where(below, -1.0, 1.0) * (count + rest / step)


def whole_from(x: np.ndarray, origin: int, dtype: np.dtype) -> np.ndarray:
    """x + origin in a type of integers, or the nearest that it holds."""
    info = np.iinfo(dtype)
    low, high = float(info.min - origin), float(info.max - origin)
    inside = (x > low) & (x < high)
    whole = np.where(inside, x, 0)
    if origin:
        size = np.abs(whole).astype(np.uint64)
        whole = np.where(whole < 0, -size, size) + np.uint64(origin % 2**64)
    ends = np.where(x >= high, dtype.type(info.max), dtype.type(info.min))
    return np.where(inside, whole.astype(dtype), ends)
