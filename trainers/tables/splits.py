"""Rows that fit, rows that choose and rows that judge."""

from collections.abc import Sequence

import numpy as np

from trainers.tables.checks import InputError


def split_rows(
    n: int, *, seed: int, fractions: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """Splits row numbers 0 … n − 1 at random into disjoint parts that cover them.

    Args:
      n: number of rows.
      seed: of the shuffle; the same seed gives the same split.
      fractions: the parts' shares of the rows, which add to one.

    Returns:
      One array of row numbers a part.

    Raises:
      InputError: for shares that do not add to one, or a part without rows.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f"`fractions` must be positive and add to 1, got {tuple(fractions)}."
        )
    ends = np.round(np.cumsum(fractions) * n).astype(int)
    parts = np.split(np.random.default_rng(seed).permutation(n), ends[:-1])
    if any(part.size == 0 for part in parts):
        raise InputError(
            f"`n` must give every part at least one row, got {n} rows in parts of "
            f"{[part.size for part in parts]}. Give more rows or other `fractions`."
        )
    return tuple(parts)
