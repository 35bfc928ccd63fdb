"""Rows that are there several times, as one row with a weight."""

from typing import Any

import numpy as np

from trainers.tables.checks import InputError, printable
from trainers.tables.frame import Frame


def checked_weights(weights: Any, num_rows: int) -> np.ndarray | None:
    """Weights as float64, [n], or None for equal ones.

    Raises:
      InputError: for another number of them, or weights that are negative, not finite or
        all zero.
    """
    if weights is None:
        return None
    try:
        if (came := np.asarray(weights)).dtype.kind in "cmM":
            raise TypeError("complex numbers, dates, durations")
        weights = np.asarray(came, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"`sample_weight` must be numbers, one for each row; got {printable(weights)}."
        ) from None
    if weights.shape != (num_rows,):
        raise InputError(
            f"`sample_weight` must have one weight for each of {num_rows} rows; got shape"
            f" {weights.shape}."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise InputError(
            "`sample_weight` must be finite, nonnegative and not all zero; got"
            f" {weights.min():g} to {weights.max():g}."
        )
    return None if (weights == weights[0]).all() else weights


def merged(
    frame: Frame, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which rows to fit, and their weights.

    Rows without weight are left out. Rows that repeat as a whole, where single values
    otherwise never repeat (a bootstrap sample, say), are one row with the sum of their
    weights: so none of them judges a fit to its copies. A table with weights is taken in
    the order of its values; so weights and copies mean the same, to the last bit.

    Returns:
      Row numbers, and a weight for each, or None for equal ones.
    """
    index = np.arange(len(frame))
    if weights is not None:
        index = index[weights > 0]
    numbers = [c.values for c in frame.columns if c.values.dtype != object]
    if len(numbers) < len(frame.columns) or not numbers:
        return index, None if weights is None else weights[index]
    columns = [np.unique(x[index], return_inverse=True) for x in numbers]
    most = max(len(values) for values, _ in columns)
    if weights is None and most == len(index):  # some column has no value twice
        return index, None
    codes = np.stack([codes.ravel() for _, codes in columns], axis=1)
    _, first, number = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    if any(1 < len(values) < len(first) for values, _ in columns):
        return index, None if weights is None else weights[index]
    total = np.bincount(number.ravel(), None if weights is None else weights[index])
    equal = (total == total[0]).all()
    return index[first], None if equal else total
