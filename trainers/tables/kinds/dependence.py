"""Columns that are linear functions of others, found from a Cholesky factor."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from trainers.tables.checks import shown
from trainers.tables.kinds.base import Scale
from trainers.tables.kinds.found import option
from trainers.tables.kinds.grids import step_of

ROWS = 4_000  # that are looked at, or twice the number of columns if that is more
_SEARCHED = 2_000  # columns; of more nothing is said
_CLOSE = 1e-5  # of a column's spread
_COARSE = 0.02  # of it: what rounding to steps may leave beside that
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
    """Columns of x [n, d] that are linear functions of columns before them.

    With G the columns' correlations and G = L Lᵀ, L_jj is what is left of column j after the
    columns before it, in its standard deviations.

    Returns:
      The column, those it is a function of, and what is left of it by its spread.
    """
    n, width = x.shape
    if n <= width + 1 or not 2 <= width <= _SEARCHED:
        return []
    scales = np.where(np.ptp(x, 0) > 0, x.std(0), 1)
    z = (x - x.mean(0)) / scales
    gram = z.T @ z / n + _RIDGE * np.eye(width)
    left = np.diag(np.linalg.cholesky(gram))
    free, found = np.ones(width, bool), []
    for j in np.flatnonzero(left < _COARSE):
        base = np.flatnonzero(free[:j])
        by = np.linalg.solve(gram[np.ix_(base, base)], gram[base, j])
        counts = np.abs(by) > _PART
        parts = base[counts]
        rest, spread = _left_of(z[:, j], z[:, parts])
        steps = [step_of(np.unique(x[:, k])) or 0.0 for k in (j, *parts)]
        # The rounding of all, at worst.
        rounding = np.abs([1.0, *by[counts]]) @ (steps / scales[[j, *parts]]) / 2
        if rest < max(_CLOSE, min(rounding / spread, _COARSE)):
            free[j] = False
            found.append((int(j), tuple(parts.tolist()), rest))
        if len(found) > _TOLD:
            break
    return found


def _left_of(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """What least squares leave of y by its spread, and that.

    In nine rows of ten: one row far out proves nothing.
    """
    by = np.linalg.lstsq(x, y, rcond=None)[0]
    spread = Scale.of(y).spread
    return float(np.quantile(np.abs(y - x @ by), 0.9) / spread), spread


def _told(names: Sequence[str], columns: Sequence[np.ndarray]) -> list[str]:
    """What to say of the dependences among columns, [n] each, with names."""
    found = dependences(np.stack(columns, axis=1)) if len(columns) > 1 else []
    told = []
    for j, parts, rest in found[:_TOLD]:
        name = names[j]
        others = shown([names[k] for k in parts])
        told.append(
            f"column {name!r} is a linear function of {others}, to {max(rest, 1e-15):.0e} of"
            " its spread: it says nothing new beside them, and log p is that of their"
            f" rounding. Leave one of them out ({option(f'column {name!r}', 'drop')}; in"
            f" Python kinds={{{name!r}: 'skipped'}})."
        )
    if len(found) > _TOLD:
        told.append(
            "More columns are linear functions of others; leave them out as well."
        )
    return told


def notes(columns: Iterable[Any], frame: Any) -> list[str]:
    """The notes on the columns of a frame that are modelled as numbers.

    Args:
      columns: `ColumnSchema`s.
      frame: with their values.
    """
    numeric = [c for c in columns if c.kind.width and c.dtype != "O"]
    part = frame.take(rows_to_look_at(len(frame), len(numeric)))
    values = [np.asarray(c.numbers(part[c.name]), np.float64) for c in numeric]
    return _told([c.name for c in numeric], values)
