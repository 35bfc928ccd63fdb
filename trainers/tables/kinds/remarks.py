"""What is worth saying of a kind of numbers, beside the reason for it."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from trainers.tables.kinds.base import Kind
from trainers.tables.kinds.found import Found, name_in, option
from trainers.tables.kinds.grids import coarser
from trainers.tables.kinds.levels import Levels, Spike
from trainers.tables.kinds.numbers import Grid, Integer

_LOOSE = 1e-3  # of a step: float noise, not off the grid
_LOOKED_AT = 50_000  # values, of more, for a coarser grid
_MAX_FAR = 3  # values at either end that may stand for missing ones
_FEWEST_OTHERS = 5  # values beside them
_REPEATED = 3  # rows that show that a far value is one
_FILL = 1e12  # ranges of the others, beyond which a value fills a hole
_NINES = re.compile(r"-?9{2,}(\.9+)?|-999\.25").fullmatch
_FEWEST = 20  # rows, of which fewer may well be all different
_FEWEST_GROUPS = 5
_GROUPS = re.compile(
    r"(?:(?:^|[_\W])id|(?<=[a-z])I[dD]|^ID|(?i:subject|patient|participant|person|user"
    r"|customer|household|animal))s?$"
)
_NAMES = re.compile(r"(no|nr|id|ids|number|num|index|key|code)$", re.IGNORECASE)


def remarked(found: Found, x: np.ndarray, where: str) -> Found:
    """With what there is to say of values x [n] in a column of numbers."""
    kind, why = found.kind, found.why
    note = far_note(x, where) or found.note
    if isinstance(kind, Spike):
        kind, x = kind.rest, x[x != kind.value]
    off = _off_grid(kind, x)
    if off:
        rounds = "values off the grid are" if off > 1 else "value off the grid is"
        why += f"; {off:,} {rounds} rounded"
    if isinstance(kind, Levels):
        why += grouped(len(kind.levels), len(x), where)
    if isinstance(kind, Integer) and _is_identifier(x, name_in(where)):
        why += f"; each row its own: an identifier? {option(where, 'drop')}"
    elif isinstance(kind, Grid) and not note:
        note = _heaped(kind, x, where)
    return dataclasses.replace(found, why=why, note=note)


def grouped(num_levels: int, n: int, where: str) -> str:
    """A remark on levels that say of whom a row is, by their name and their repeats."""
    named = _GROUPS.search(name_in(where))
    if not named or num_levels < _FEWEST_GROUPS or n < 2 * num_levels:
        return ""
    each = f"{n / num_levels:.0f} rows each"
    return f"; {each}: groups? their rows fall into train and test alike"


def typed(value: float) -> str:
    """As --na takes it, all digits."""
    return f"{value:.15g}"


def far_values(
    x: np.ndarray,
    text: Callable[[float], str] = typed,
    is_sentinel: Callable[[str], Any] = _NINES,
) -> dict[float, int]:
    """Values that may stand for missing ones, and in how many rows each of them is.

    At most three, beyond a gap of twice the range of nearly all others; each in three rows
    or more, or written like one (-99, -9999, 999), or beyond any scale of the others (1e20).
    """
    if x.dtype == bool or len(np.unique(_some(x))) < _FEWEST_OTHERS:
        return {}
    found: dict[float, int] = {}
    filled: set[float] = set()
    for sign in (1, -1):
        left, seen = sign * np.asarray(x, np.float64), {}
        while len(seen) < _MAX_FAR:
            value = left.min()
            inner = left[left > value]
            if 2 * len(inner) <= len(x):
                break
            seen[sign * value] = len(left) - len(inner)
            width = np.ptp(np.quantile(_some(inner), (0.01, 0.99)))
            if inner.min() - value > 2 * width:
                found |= seen
            if width and inner.min() - value > _FILL * width:
                filled |= set(seen)
            left = inner
    return {
        v: n
        for v, n in found.items()
        if n >= _REPEATED or v in filled or is_sentinel(text(v))
    }


def _some(x: np.ndarray) -> np.ndarray:
    """Enough of x [n] to look at."""
    return x[:: max(1, len(x) // _LOOKED_AT)]


def far_note(
    x: np.ndarray,
    where: str,
    text: Callable[[float], str] = typed,
    is_sentinel: Callable[[str], Any] = _NINES,
) -> str:
    """A note on values that may stand for missing ones, in words that --na takes."""
    found = far_values(x, text, is_sentinel)
    if not found:
        return ""
    told = " and ".join(f"{text(v)} in {n} rows" for v, n in found.items())
    told = told.replace(" in 1 rows", " in 1 row")
    options = " ".join(f"--na {text(v)}" for v in found)
    one = len(found) == 1
    return (
        f"{where}: {told} {'lies' if one else 'lie'} far from all other values; if"
        f" {'it stands for a missing value' if one else 'they stand for missing values'}, say"
        f" so ({options}, or leave those rows out)."
    )


def _off_grid(kind: Kind, x: np.ndarray) -> int:
    """How many values are rounded before they are encoded."""
    step: Any = getattr(kind, "step", 0)
    if not step or not kind.is_mass or (x.dtype.kind in "iub" and step == 1):
        return 0
    low = kind.levels[0] if isinstance(kind, Levels) else kind.low
    places = (np.asarray(x, np.float64) - low) / step
    # Beyond 2⁵² steps, and by what the type resolves, nothing can be told.
    slack = np.maximum(_LOOSE, 4 * np.abs(x) / step * np.finfo(np.float64).eps)
    return int((np.abs(places - np.rint(places)) > slack).sum())


def _is_identifier(x: np.ndarray, name: str) -> bool:
    """Whether whole numbers that never repeat number the rows, or are called so."""
    if len(x) < _FEWEST:
        return False
    counts_rows = x.min() in (0, 1) and x.max() - x.min() + 1 == len(x)
    called_so = bool(_NAMES.search(name))
    return (counts_rows or called_so) and bool(np.diff(np.sort(x)).all())


def _heaped(kind: Grid, x: np.ndarray, where: str) -> str:
    """A note where most values lie on a coarser grid, which samples do not keep."""
    found = coarser(_some(x), kind.step)
    if found is None:
        return ""
    step, share = found
    way_out = option(where, "kinds", f"rounded({step:g})")
    return (
        f"{where}: {share:.0%} of its values lie on steps of {step:g}, the others on steps"
        f" of {kind.step:g}; samples do not keep that share. {way_out} rounds all of them."
    )
