"""Some of many rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def row_numbers(key: PRNGKeyArray, n: int, size: int) -> Array:
    """Ascending numbers below n, one from each of `size` strata of equal length."""
    starts = np.arange(size, dtype=np.int64) * n // size
    return starts.astype(np.int32) + jax.random.randint(key, (size,), 0, n // size)


def sample_rows(
    x: Array, weights: Array | None, key: PRNGKeyArray, limit: int
) -> Array:
    """At most `limit` rows, one from each stratum of equal length or mass.

    Rows by number: on rows that are sharded over devices only the chosen ones move.

    Args:
      x: [n, ...].
      weights: nonnegative, [n], by which rows are drawn; None for equal ones.
      key: random key.
      limit: number of rows.

    Returns:
      Rows, [limit, ...], or all of x if it has no more and no weights. A row of weight 0 is
      none of them.
    """
    row_key, level_key = jax.random.split(key)
    n, size = x.shape[0], limit if weights is None else 2 * limit
    if n > size:
        index = row_numbers(row_key, n, size)
        x, weights = x[index], None if weights is None else weights[index]
    if weights is None:
        return x
    cumulative = jnp.cumsum(weights)
    levels = (jnp.arange(limit) + jax.random.uniform(level_key, (limit,))) / limit
    # Never 0: a leading row without mass must not be chosen.
    levels = jnp.maximum(levels, 1e-7) * cumulative[-1]
    return x[jnp.minimum(jnp.searchsorted(cumulative, levels), len(x) - 1)]
