"""Columns that are linear functions of several others, found from a Cholesky factor."""

from collections.abc import Sequence

import numpy as np

from trainers.tables.checks import shown
from trainers.tables.kinds.base import Scale
from trainers.tables.kinds.found import option

ROWS = 4_000  # that are looked at, or twice the number of columns if that is more
_SEARCHED = 2_000  # columns; of more nothing is said
_CLOSE = 1e-5  # of a column's spread
_NEAR = 3 * _CLOSE  # by standard deviations, before a closer look
_RIDGE = 1e-13  # keeps the factor of dependent columns; residuals below 3e-7 look alike
_PART = 1e-3  # least coefficient of standardised columns that counts
_TOLD = 5  # dependences, each with a note of its own


def rows_to_look_at(n: int, num_columns: int) -> np.ndarray:
    """Numbers of rows that show a dependence, in order."""
    size = max(ROWS, 2 * num_columns)
    if n <= size:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).integers(0, n, size))


def dependences(x: np.ndarray) -> list[tuple[int, tuple[int, ...], float]]:
    """Columns of x [n, d] that are linear functions of two or more columns before them.

    With G the columns' correlations and G = L Lᵀ, L_jj is what is left of column j after the
    columns before it, in its standard deviations.

    Returns:
      The column, those it is a function of, and what is left of it by its spread.
    """
    n, width = x.shape
    if n <= width + 1 or not 3 <= width <= _SEARCHED:
        return []
    z = (x - x.mean(0)) / np.where(np.ptp(x, 0) > 0, x.std(0), 1)
    gram = z.T @ z / n + _RIDGE * np.eye(width)
    left = np.diag(np.linalg.cholesky(gram))
    free, found = left > _NEAR, []
    for j in np.flatnonzero(~free):
        base = np.flatnonzero(free[:j])
        by = np.linalg.solve(gram[np.ix_(base, base)], gram[base, j])
        parts = base[np.abs(by) > _PART]
        rest = _left_of(z[:, j], z[:, parts])
        if rest < _CLOSE and len(parts) > 1:
            found.append((int(j), tuple(parts.tolist()), rest))
        if len(found) > _TOLD:
            break
    return found


def _left_of(y: np.ndarray, x: np.ndarray) -> float:
    """What least squares leave of y in nine rows of ten: one row far out proves nothing."""
    by = np.linalg.lstsq(x, y, rcond=None)[0]
    return float(np.quantile(np.abs(y - x @ by), 0.9) / Scale.of(y).spread)


def notes(names: Sequence[str], x: np.ndarray) -> list[str]:
    """What to say of the dependences among columns [n, d] with names."""
    found = dependences(x)
    told = []
    for j, parts, rest in found[:_TOLD]:
        name = names[j]
        others = shown([names[k] for k in parts])
        told.append(
            f"column {name!r} is a linear function of {others}, to {max(rest, 1e-15):.0e} of"
            " its spread: it says nothing new beside them, and a density of all has no"
            " meaning. Leave one of them out"
            f" ({option(f'column {name!r}', 'drop')}, or kinds={{{name!r}: 'skipped'}})."
        )
    if len(found) > _TOLD:
        told.append(
            "More columns are linear functions of others; leave them out as well."
        )
    return told
