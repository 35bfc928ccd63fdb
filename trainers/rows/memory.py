"""Rows in memory, and the order in which training visits them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from trainers.rows.arrays import as_floats, as_leaf

Rows = Any  # an array [n, ...], or a tuple or dict of such arrays with one n


class EpochOrder:
    """Row numbers of every batch, a function of (seed, step) alone.

    One permutation of each stratum an epoch, of which every batch takes equally many rows,
    stratum after stratum; rows that do not fill a last batch wait for the next epoch's
    permutation. A run resumes from its step number, with no other state.

    Args:
      num_rows: rows of the data set.
      batch_size: rows a step; at most `num_rows`.
      seed: chooses the permutations.
      starts: first row of each stratum, ascending from 0.
      own: the strata whose part of every batch is wanted; others are not drawn.

    Raises:
      ValueError: more rows than there are, or not equally many of every stratum.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int,
        starts: Sequence[int] | np.ndarray = (0,),
        own: slice = slice(None),
    ):
        if not 1 <= batch_size <= num_rows:
            raise ValueError(
                f"`batch_size` must be from 1 to the {num_rows} rows; got {batch_size}."
            )
        self.batch_size, self._seed = batch_size, seed
        sizes = np.diff([*starts, num_rows])
        self._each, rest = divmod(batch_size, len(starts))
        if rest or self._each > min(sizes):
            raise ValueError(
                f"`strata` must divide the {batch_size} rows of a step, and each of them"
                f" hold its part of those; got {len(starts)} of {min(sizes)} rows or"
                " one more. Use fewer."
            )
        self._steps = min(sizes) // self._each
        self._own = list(enumerate(zip(starts, sizes, strict=True)))[own]
        self._epoch, self._order = -1, np.empty((0, 0), np.int32)

    def indices(self, step: int, count: int) -> np.ndarray:
        """Row numbers of `count` batches from `step` on, or of their own part, [count, n]."""
        return np.stack([self._batch(s) for s in range(step, step + count)])

    def _batch(self, step: int) -> np.ndarray:
        epoch, number = divmod(step, self._steps)
        if epoch != self._epoch:
            self._order = np.stack([self._drawn(epoch, *own) for own in self._own])
            self._epoch = epoch
        return self._order[:, number * self._each :][:, : self._each].ravel()

    def _drawn(self, epoch: int, stratum: int, rows: tuple[int, int]) -> np.ndarray:
        start, size = rows
        # Each from a seed of its own, so that nobody needs to draw them all.
        random = np.random.default_rng([self._seed, epoch, stratum])
        chosen = random.permutation(size)[: self._steps * self._each]
        return (start + chosen).astype(np.int32)


def as_rows(
    rows: Rows,
    *,
    name: str = "x_train",
    like: Rows | None = None,
    floats: bool = False,
    fine: bool = False,
) -> Rows:
    """Host arrays with one number of rows, numeric and finite.

    Args:
      rows: [n, d] (integers become floats, by value), or a tuple or dict of arrays
        [n, ...] (which keep their types; integers must fit JAX's).
      name: the argument's name, for errors.
      like: rows of the same structure; what is a float there becomes one here.
      floats: whether integers of a tuple or dict become floats too.
      fine: whether columns of floats that their type holds only coarsely are refused.

    Returns:
      The same structure with NumPy arrays of JAX's types.
    """
    if not isinstance(rows, (tuple, dict)):
        return as_floats(rows, name, fine=fine)
    found, structure = jax.tree_util.tree_flatten_with_path(rows, is_leaf=_is_array)
    if not found:
        raise ValueError(f"`{name}` must hold at least one array; got {rows!r}.")
    same = like is not None and jax.tree.structure(like) == structure
    model = jax.tree.leaves(like) if same else [None] * len(found)
    leaves = [
        as_leaf(
            leaf,
            name + jax.tree_util.keystr(path),
            floats=floats or (same and np.issubdtype(other.dtype, np.floating)),
            fine=fine,
        )
        for (path, leaf), other in zip(found, model, strict=True)
    ]
    lengths = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(lengths) > 1 or None in lengths:
        raise ValueError(
            f"every array of `{name}` must have the same number of rows; got shapes"
            f" {[leaf.shape for leaf in leaves]}."
        )
    return jax.tree.unflatten(structure, leaves)


def with_context(
    x: Rows, context: Any, *, name: str = "context", fine: bool = False
) -> Rows:
    """The pair (x, context), or x alone where there is no context."""
    if context is None:
        return x
    context = as_floats(context, name, fine=fine)
    if len(context) != num_rows(x):
        raise ValueError(
            f"`{name}` must have one row for each row of `x`; got {len(context)} and"
            f" {num_rows(x)} rows."
        )
    return (x, context)


def num_rows(rows: Rows) -> int:
    """How many rows every array has."""
    return jax.tree.leaves(rows)[0].shape[0]


def take(rows: Rows, index: Any) -> Rows:
    """Rows number `index` of every array."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


def batches(rows: Rows, batch_size: int, *, pad: bool) -> list[tuple[Rows, np.ndarray]]:
    """Batches in order with a mask of the rows that count.

    Args:
      rows: of one data set.
      batch_size: rows a batch.
      pad: True repeats a row to give the last batch the size of the others.
    """
    n = num_rows(rows)
    result = []
    for start in range(0, n, batch_size):
        index = np.arange(
            start, start + batch_size if pad else min(start + batch_size, n)
        )
        mask = index < n
        result.append((take(rows, np.where(mask, index, start)), mask))
    return result


def _is_array(part: Any) -> bool:
    """A list is an array here, and no structure."""
    return isinstance(part, list)
