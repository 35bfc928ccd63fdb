"""Coupling masks: tuples of booleans, True = the feature passes unchanged."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Mask = tuple[bool, ...]


def check(mask: Sequence[bool]) -> Mask:
    """The mask as a tuple of booleans.

    Raises:
      ValueError: if it is not one row of booleans or lets every feature pass.
    """
    array = np.asarray(mask)
    if array.ndim != 1 or array.dtype != bool:
        raise ValueError(
            "`mask` must be a sequence of booleans, True where a feature passes unchanged;"
            f" got shape {array.shape} and dtype {array.dtype}."
        )
    if array.all():
        raise ValueError(
            "`mask` must be False for at least one feature, the one that moves; got"
            f" {tuple(mask)}. Leave the layer out to change nothing."
        )
    return tuple(bool(m) for m in array)


def half(num_features: int) -> Mask:
    """The first ⌊d/2⌋ features pass; d = 1 gives (False,)."""
    return tuple(i < num_features // 2 for i in range(num_features))


def complement(mask: Mask) -> Mask:
    """The mask that moves what this one passes."""
    return tuple(not m for m in mask)


def split(features: Array, mask: Mask) -> tuple[Array, Array]:
    """The passive and the moved features of [d, ...]: [p, ...] and [d − p, ...].

    Features lead, here and in `join`: each is then one run of rows in memory, as the
    mixtures read them, and nothing is transposed between layers.
    """
    passive, moved = _indices(mask)
    return _take(features, passive), _take(features, moved)


def join(passive: Array, moved: Array, mask: Mask) -> Array:
    """Inverse of `split`."""
    parts = sorted(
        zip(_indices(mask), (passive, moved), strict=True), key=lambda p: list(p[0][:1])
    )
    order = np.concatenate([indices for indices, _ in parts])
    together = jnp.concatenate([features for _, features in parts])
    return _take(together, np.argsort(order))


def _indices(mask: Mask) -> tuple[np.ndarray, np.ndarray]:
    passes = np.asarray(mask)
    return np.flatnonzero(passes), np.flatnonzero(~passes)


def _take(features: Array, indices: np.ndarray) -> Array:
    """features[indices], as a slice where it is one: slices fuse, gathers do not."""
    if len(indices) == 0:
        return features[:0]
    start, stop = int(indices[0]), int(indices[-1]) + 1
    if stop - start == len(indices) and np.all(np.diff(indices) == 1):
        return features[start:stop]
    return features[indices]
