"""Columns that are linear functions of others: of one, or as a Cholesky factor shows."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from trainers.tables.checks import shown
from trainers.tables.kinds.base import Scale
from trainers.tables.kinds.exact import rounded_by
from trainers.tables.kinds.found import option
from trainers.tables.kinds.grids import step_of
from trainers.tables.kinds.levels import Skipped

ROWS = 4_000  # that are looked at, or twice the number of columns if that is more
_SEARCHED = 2_000  # columns; of more nothing is said
_CLOSE = 1e-5  # of a column's spread
_COARSE = 0.02  # of it: what rounding to steps may leave beside that
_RIDGE = 1e-13  # keeps the factor of dependent columns; residuals below 3e-7 look alike
_PART = 1e-3  # least coefficient of standardised columns that counts
_TOLD = 5  # dependences, each with a note of its own
_COMPARED = 200  # columns among which copies are looked for
_ALIKE = 1e-9  # of a column's spread: as near as float64 brings a copy
_DIGITS = (9, 12, 17)  # of a copy's factor and offset; the last are all


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


def without_copies(
    columns: Sequence[Any], frame: Any, asked: Collection[str]
) -> list[Any]:
    """Columns, of which those are skipped that are linear functions of another.

    Args:
      columns: `ColumnSchema`s.
      frame: with their values.
      asked: names of those whose kind a user asked for, which are left alone.
    """
    numeric = [
        c for c in columns if c.kind.width and c.dtype != "O" and c.name not in asked
    ]
    if len(numeric) > _COMPARED or len(frame) < 3:
        return list(columns)
    copies: dict[str, Skipped] = {}
    seen: list[tuple[Any, np.ndarray, float]] = []
    for c in numeric:
        x = c.numbers(frame[c.name])
        spread = x.std()
        z = (x - x.mean()) / spread
        off = rounded_by(np.abs(x).max(), np.dtype(c.dtype)) / spread
        for other, other_z, other_off in seen:
            sign = np.sign(z[0] * other_z[0]) or 1.0
            # Rounded to the types they came in, and no further apart.
            atol = max(_ALIKE, off + other_off)
            # The first rows tell most columns apart.
            alike = np.allclose(z[:20], sign * other_z[:20], rtol=0, atol=atol)
            if alike and np.allclose(z, sign * other_z, rtol=0, atol=atol):
                factor, offset = _line(other.numbers(frame[other.name]), x, sign)
                copies[c.name] = Skipped(
                    reason=_function(other.name, factor, offset, spread),
                    of=other.name,
                    factor=factor,
                    offset=offset,
                )
                break
        else:
            seen.append((c, z, off))
    return [
        dataclasses.replace(c, kind=copies[c.name], why=copies[c.name].reason)
        if c.name in copies
        else c
        for c in columns
    ]


def _line(x: np.ndarray, y: np.ndarray, sign: float) -> tuple[float, float]:
    """The factor and offset that make y of x, in the shortest decimals that leave least."""
    slope = sign * y.std() / x.std()
    place = int(np.ceil(np.log10(np.abs(y).max())))
    lines = []
    for digits in _DIGITS:
        factor = float(f"{slope:.{digits}g}")
        offset = round(float(y.mean() - factor * x.mean()), digits - place)
        lines.append((factor, offset))
    return min(lines, key=lambda line: np.abs(line[0] * x + line[1] - y).max())


def _function(name: str, factor: float, offset: float, spread: float) -> str:
    """What factor · x + offset is, in words."""
    if abs(offset) <= 1e-6 * spread:
        return f"{'a copy' if np.isclose(factor, 1) else 'a multiple'} of {name}"
    if np.isclose(factor, -1):
        return f"{offset:.6g} minus {name}"
    return f"a linear function of {name}"
