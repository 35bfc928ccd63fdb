"""The steps of columns of numbers that lie on a grid."""

import numpy as np

_ON_GRID = 0.98  # share of the rows that a grid holds; the others are put on it
_MUCH_FINER = 20.0  # times: of a grid that few values ask for


def rounded(x: np.ndarray) -> tuple[float, np.ndarray] | None:
    """The step of a column of floats, and its values on the grid; None if there is none.

    A misprint among thousands (9.899999 among hundredths) makes no finer grid.
    """
    levels, counts = np.unique(x, return_counts=True)
    usual = levels[counts > 1]
    found, coarse = step_of(levels), step_of(usual) if len(usual) > 1 else None
    if coarse is not None and (found is None or found < coarse / _MUCH_FINER):
        number = np.rint((np.float64(x) - float(usual[0])) / coarse)
        snapped = float(usual[0]) + number * coarse
        if np.mean(np.abs(snapped - x) < 1e-3 * coarse) >= _ON_GRID:
            return coarse, snapped
    return None if found is None else (found, x)


def step_of(levels: np.ndarray) -> float | None:
    """The step of a grid that holds all levels, or None."""
    if levels.dtype.kind in "iu":
        return float(whole_step(levels))
    eps = float(np.finfo(levels.dtype).eps)
    y = np.float64(levels)
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
