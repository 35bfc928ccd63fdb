"""From the moments of rows: noise shaped like them, and what Gaussians give them.

The noise keeps a fit from following single rows.
"""

from typing import Any

import jax
import numpy as np

from trainers.placement import sharding
from trainers.rows import memory
from trainers.rows.weights import Weighted

_MOMENT_ROWS = 65_536  # of about so many, spread over the rows, noise gets its shape


def noise_factors(rows: memory.Rows, jitter: float) -> tuple[np.ndarray | None, ...]:
    """What turns standard normal numbers into noise, for every array of `rows`.

    Noise goes to the features: `rows` itself, or the first of a tuple when that is a
    float array. Contexts, labels and dictionaries stay clean. Its covariance is that of
    the rows, so that it blurs directions in which they hardly vary hardly at all.

    Args:
      rows: as from `as_rows`, or `Weighted`.
      jitter: standard deviation of the noise over that of the rows, in any direction.

    Returns:
      The symmetric factor by which noise is multiplied, [d, d], for rows of vectors; a
      standard deviation for each element of rows of any other shape; None for no noise.
    """
    leaves = jax.tree.leaves(rows)
    x, weights = _features(rows)
    noisy = (
        jitter > 0 and isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating)
    )
    first = (jitter * _square_root(x, weights)).astype(x.dtype) if noisy else None
    return (first, *[None] * (len(leaves) - 1))


def gaussian_log_prob(rows: memory.Rows) -> float:
    """Mean log p in nats of rows [n, d] under Gaussians, one a column, of their moments."""
    x, _ = _features(rows)
    spread = np.std(np.asarray(x, np.float64), axis=0)
    with np.errstate(divide="ignore"):  # a constant has no density
        return float(-np.sum(0.5 * np.log(2 * np.pi * np.e) + np.log(spread)))


def effective_rows(rows: memory.Rows, count: int | None) -> float | None:
    """`count`, or of weighted rows how many equal ones would tell as much of a mean."""
    if not isinstance(rows, Weighted):
        return count
    weights = rows.weights.astype(np.float64)
    sums = sharding.gathered(np.array([weights.sum(), np.square(weights).sum()]))
    total, squares = sums.sum(axis=0)
    return total**2 / squares


def _features(rows: memory.Rows) -> tuple[Any, np.ndarray | None]:
    """The array that a density is of, and the weights of its rows."""
    weights = None
    if isinstance(rows, Weighted):
        rows, weights = rows.rows, rows.weights
    return rows[0] if isinstance(rows, tuple) else rows, weights


def _square_root(x: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Of the covariance of the rows of all processes, [d, d], or of each variance."""
    counts = sharding.gathered(np.float64(len(x) if weights is None else weights.sum()))
    share = counts / counts.sum()
    step = max(1, len(x) // _MOMENT_ROWS)
    x = x[::step].astype(np.float64)
    if weights is None:
        means = x.mean(0)
    else:
        part = weights[::step] / np.mean(weights[::step], dtype=np.float64)
        means = np.tensordot(part, x, 1) / len(x)
    centered = x - np.tensordot(share, sharding.gathered(means), 1)
    if weights is not None:
        centered *= np.sqrt(part).reshape(-1, *[1] * (x.ndim - 1))
    if x.ndim != 2:
        squares = sharding.gathered(np.square(centered).mean(0))
        return np.sqrt(np.tensordot(share, squares, 1))
    products = sharding.gathered(centered.T @ centered / len(x))
    values, vectors = np.linalg.eigh(np.tensordot(share, products, 1))
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
