"""Rows that fit, rows that choose and rows that judge."""

from collections.abc import Sequence

import numpy as np

from trainers.tables.checks import InputError


def split_rows(
    n: int,
    *,
    seed: int,
    fractions: Sequence[float],
    least: Sequence[int] | None = None,
    levels: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, ...]:
    """Splits row numbers 0 … n − 1 at random into disjoint parts that cover them.

    Args:
      n: number of rows.
      seed: of the shuffle; the same seed gives the same split.
      fractions: the parts' shares of the rows, which add to one.
      least: rows that each part gets at least, at the cost of the first; None for one.
      levels: columns, [n] each, of which every value that there is comes into the first
        part, if its rows suffice.

    Returns:
      One array of row numbers a part.

    Raises:
      InputError: for shares that do not add to one, or too few rows for the parts.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f"`fractions` must be positive and add to 1, got {tuple(fractions)}."
        )
    least = [1] * len(fractions) if least is None else least
    sizes = np.diff(np.round(np.cumsum((0, *fractions)) * n)).astype(int)
    sizes[1:] = np.maximum(sizes[1:], least[1:])
    sizes[0] = n - sizes[1:].sum()
    if sizes[0] < least[0]:
        raise InputError(
            f"`n` must give every part its rows, at least {sum(least)}; got {n} rows in"
            f" parts of {sizes.tolist()}. Give more rows or other `fractions`."
        )
    order = np.random.default_rng(seed).permutation(n)
    firsts = [np.unique(level[order], return_index=True)[1] for level in levels]
    if firsts:
        first = np.unique(np.concatenate(firsts))
        order = np.concatenate([order[first], np.delete(order, first)])
    return tuple(np.split(order, np.cumsum(sizes)[:-1]))
