"""The steps of columns of numbers that lie on a grid."""

import numpy as np

from trainers.tables.kinds.base import on_grid
from trainers.tables.kinds.levels import Levels

MAX_CELLS = 128  # of a grid whose cells each get their frequency
_ON_GRID = 0.98  # share of the rows that a grid holds; the others are put on it
_FINER, _MUCH_FINER = 1.5, 20.0  # times: of a grid that few values ask for
_ON_COARSE_GRID = 0.999  # likewise, where the others' grid is finer but not much
_HEAPED = 0.5  # share of the values on a coarser grid that is worth a note
_ROWS_A_HEAP = 10  # or else four significant digits look like heaps
_COARSER = (1000, 500, 100, 50, 10, 5)  # times
_MAX_SPARSE = 1_000  # levels that leave most cells of their grid empty
_ROWS_A_LEVEL = 20  # that such levels have


def rounded(x: np.ndarray) -> tuple[float, np.ndarray] | None:
    """The step of a column of floats, and its values on the grid; None if there is none.

    A misprint among thousands (9.899999 among hundredths, one half among whole numbers)
    makes no finer grid.
    """
    levels, counts = np.unique(x, return_counts=True)
    usual = levels[counts > 1]
    found, coarse = step_of(levels), step_of(usual) if len(usual) > 1 else None
    if coarse is not None and (found is None or found < coarse / _FINER):
        number = np.rint((np.asarray(x, np.float64) - float(usual[0])) / coarse)
        snapped = float(usual[0]) + number * coarse
        much = found is None or found < coarse / _MUCH_FINER
        enough = _ON_GRID if much else _ON_COARSE_GRID
        if np.mean(np.abs(snapped - x) < 1e-3 * coarse) >= enough:
            return coarse, snapped
    return None if found is None else (found, x)


def step_of(levels: np.ndarray) -> float | None:
    """The step of a grid that holds all levels, or None."""
    if levels.dtype.kind in "iu":
        return float(whole_step(levels))
    eps = float(np.finfo(levels.dtype).eps)
    y = np.asarray(levels, np.float64)
    unit = 10.0 ** np.floor(np.log10(np.ptp(y)))
    for digits in range(0, 10):
        scaled = y / unit * 10.0**digits
        slack = 8 * eps * np.abs(scaled) + 1e-12
        if slack.max() > 0.01:
            break
        whole = np.rint(scaled)
        if (np.abs(scaled - whole) <= slack).all():
            gcd = np.gcd.reduce(np.diff(whole).astype(np.int64))
            return float(gcd * unit / 10.0**digits)
    least = np.diff(y).min()
    places = (y - y[0]) / least
    near = np.abs(places - np.rint(places)) <= 1e-4
    return float(least) if near.all() and places[-1] < 1e6 else None


def whole_step(levels: np.ndarray) -> int:
    """The greatest whole number of which all differences are multiples."""
    levels = levels.astype(np.int64) if levels.dtype.kind == "f" else levels
    words = levels.astype(np.uint64)  # differences of which are right for every int64
    return int(np.gcd.reduce(words[1:] - words[:-1])) or 1


def are_whole(x: np.ndarray) -> bool:
    """Whether all values are whole numbers that float64 tells apart."""
    return bool((x == np.rint(x)).all()) and float(np.abs(x).max()) < 2**53


def on_steps(x: np.ndarray, step: float, *, whole: bool) -> np.ndarray:
    """x at the nearest places of a grid on which its most common value lies, [n]."""
    if x.dtype.kind in "iub" and step == 1:
        return x
    values, counts = np.unique(np.asarray(x, np.float64), return_counts=True)
    anchor = float(values[counts.argmax()])
    anchor = round(anchor) if whole else anchor
    return anchor + step * np.rint((np.asarray(x, np.float64) - anchor) / step)


def coarser(x: np.ndarray, step: float) -> tuple[float, float] | None:
    """A coarser grid through 0 that holds most of x but not all, and its share."""
    places = np.rint(np.asarray(x[x != 0], np.float64) / step)  # 0 lies on every grid
    for times in _COARSER:
        held = places % times == 0
        share = float(held.mean()) if len(held) else 0.0
        heaps = len(np.unique(places[held])) if _HEAPED <= share < 1 else 0
        if heaps >= 10 and held.sum() >= _ROWS_A_HEAP * heaps:
            return times * step, share
    return None


def is_sparse(x: np.ndarray, levels: np.ndarray, step: float) -> bool:
    """Whether few levels repeat much and leave most of their grid empty.

    The middle nine tenths of the rows decide: a skewed count fills its grid there.
    """
    if len(levels) > _MAX_SPARSE or len(x) < _ROWS_A_LEVEL * len(levels):
        return False
    low, high = np.quantile(np.asarray(x, np.float64), (0.05, 0.95), method="nearest")
    inner = ((levels >= low) & (levels <= high)).sum()
    return bool(inner < 0.5 * ((high - low) / step + 1))


def cells_of(x: np.ndarray, low: float, step: float, cells: int, name: str) -> Levels:
    """Every cell of a grid with its share of x, those of few or those of many."""
    places = np.rint((np.asarray(x, np.float64) - low) / step).astype(int)
    counts = np.bincount(places, minlength=cells) + 0.0
    empty = counts == 0
    # A cell that nobody has seen is not impossible. Where most are, all of them together
    # have as much as the cells seen once (Good and Turing's estimate).
    unseen = 0.5
    if cells > MAX_CELLS:
        unseen = max(0.5, (counts == 1).sum()) / max(empty.sum(), 1)
    grid = on_grid(low, step, np.arange(cells))
    return Levels(
        kind_name=name,
        levels=tuple((grid.astype(int) if name == "integer" else grid).tolist()),
        shares=tuple(((counts + unseen * empty) / len(x)).tolist()),
        step=step,
        tail=0.5 / (len(x) + 1),
        between=between(step, len(x)) if name == "integer" else 0.0,
    )


def between(step: float, num_rows: int) -> float:
    """The mass of whole numbers between the steps, of which no row has one."""
    return 0.5 / (num_rows + 1) if step > 1 else 0.0
