"""Some of many rows, brought to the host: sorting and counting there compiles nothing."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray


def generator(key: PRNGKeyArray) -> np.random.Generator:
    """Random numbers on the host: the same key gives the same bits."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def row_numbers(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Ascending numbers below n, one from each of `size` strata of equal length."""
    starts = np.arange(size) * n // size
    return starts + rng.integers(n // size, size=size)


def everywhere(a: Array) -> NamedSharding | None:
    """A whole copy on every device of an array that lies on several, else None."""
    if not isinstance(a.sharding, NamedSharding):
        return None
    return NamedSharding(a.sharding.mesh, PartitionSpec())


@functools.cache
def row_taker(sharding: NamedSharding | None) -> Any:
    """(a, numbers of rows) to these rows; of rows that are sharded only they move."""
    return jax.jit(lambda a, at: a[at], out_shardings=sharding)


@functools.cache
def _whole(sharding: NamedSharding) -> Any:
    return jax.jit(lambda a: a, out_shardings=sharding)


def on_host(a: Array) -> np.ndarray:
    """The whole array, in every process, wherever it lies."""
    sharding = everywhere(a)
    return np.asarray(a if sharding is None else _whole(sharding)(a))


def sample_rows(
    x: Array, weights: Array | None, key: PRNGKeyArray, limit: int
) -> np.ndarray:
    """At most `limit` rows, one from each stratum of equal length or mass.

    Args:
      x: [n, ...]; may be sharded over rows.
      weights: nonnegative, [n], by which rows are drawn; None for equal ones.
      key: random key.
      limit: number of rows.

    Returns:
      Rows, [limit, ...], or all of x if it has no more and no weights. A row of weight 0 is
      none of them.
    """
    rng = generator(key)
    n, size = len(x), limit if weights is None else 2 * limit
    if n > size:
        at = row_numbers(rng, n, size)
        x, weights = jax.tree.map(
            lambda a: row_taker(everywhere(a))(a, at), (x, weights)
        )
    rows = on_host(x)
    if weights is None:
        return rows
    cumulative = np.cumsum(on_host(weights), dtype=np.float64)
    levels = (np.arange(limit) + rng.random(limit)) / limit
    # Never 0: a leading row without mass must not be chosen.
    levels = np.maximum(levels, 1e-7) * cumulative[-1]
    return rows[np.minimum(np.searchsorted(cumulative, levels), len(rows) - 1)]
