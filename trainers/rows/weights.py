"""Rows that count for more or less than one."""

from typing import Any

import flax.struct
import jax
import numpy as np

from trainers.placement import sharding
from trainers.rows import memory
from trainers.tables.checks import InputError


@flax.struct.dataclass
class Weighted:
    """Rows with their weights, a tree of arrays with one number of rows.

    Attributes:
      rows: as from `as_rows`.
      weights: nonnegative, of mean one over the data set, [n].
    """

    rows: memory.Rows
    weights: Any


def weighted(
    rows: memory.Rows, weights: Any, *, name: str = "weights", drop: bool = False
) -> Weighted:
    """Rows with their weights, scaled to mean one over the rows of all processes.

    Args:
      rows: of this process.
      weights: nonnegative numbers, any sequence, [n]; None for equal ones.
      name: the argument's name, for errors.
      drop: whether rows of weight 0 are left out: no step meets them.

    Raises:
      InputError: weights that are negative, not finite, no numbers, all zero in one of
        the processes, or not one for each row.
    """
    n = memory.num_rows(rows)
    if weights is None:
        return Weighted(rows, _of_mean_one(np.ones(n)))
    weights = _checked(weights, n, name)
    weights /= sharding.gathered(weights.max()).max()  # their sum is a number
    kept = np.flatnonzero(_of_mean_one(weights))
    if drop and len(kept) < n:
        rows, weights = memory.take(rows, kept), weights[kept]
    return Weighted(rows, _of_mean_one(weights))


def rescaled(rows: memory.Rows) -> memory.Rows:
    """A part of weighted rows, with weights of mean one again; others as they are."""
    if not isinstance(rows, Weighted):
        return rows
    return Weighted(rows.rows, _of_mean_one(rows.weights))


def _checked(weights: Any, n: int, name: str) -> np.ndarray:
    try:
        weights = np.asarray(weights)
        real = weights.dtype.kind in "biufO"
        weights = weights.astype(np.float64) if real else None
    except (TypeError, ValueError):
        weights = None
    if weights is None:
        raise InputError(f"`{name}` must be real numbers, one for each row.")
    if weights.shape != (n,):
        raise InputError(
            f"`{name}` must have one number for each of the {n} rows, shape ({n},); got"
            f" shape {weights.shape}."
        )
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise InputError(
            f"`{name}` must be finite and at least 0; got {weights[bad[0]]} for row"
            f" {bad[0]} (from 0). Give 0 to rows that must not count."
        )
    if not weights.any():
        raise InputError(f"`{name}` must not be zero for every row.")
    return weights


def _of_mean_one(weights: np.ndarray) -> np.ndarray:
    """Over the rows of all processes."""
    sums = np.array([np.sum(weights, dtype=np.float64), len(weights)])
    total, count = sharding.gathered(sums).sum(axis=0)
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    return (weights * (count / total)).astype(dtype)
