"""Functions of rows, applied to a block of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_ROWS = 65_536  # of a block, unless told otherwise


def in_blocks(function: Callable, *rows: Any, num_blocks: int | None = None) -> Any:
    """`function(*rows)` with the intermediate values of one block of rows.

    Row i is in block i mod `num_blocks`, so rows that are spread over devices stay where
    they are. A block that is not full repeats the last rows.

    Args:
      function: treats every row by itself; (*rows) to arrays [n, ...]. Traced.
      *rows: pytrees of arrays [n, ...].
      num_blocks: None for blocks of 65,536 rows.

    Returns:
      What `function` returns for all rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.blocks import in_blocks
      >>> print(in_blocks(lambda x: 2 * x, jnp.arange(3.0), num_blocks=2))
      [0. 2. 4.]
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    num_blocks = num_blocks or -(-n // _ROWS)
    if num_blocks == 1:
        return function(*rows)

    def split(a):
        padded = jnp.pad(a, [(0, -n % num_blocks)] + [(0, 0)] * (a.ndim - 1), "edge")
        return jnp.swapaxes(padded.reshape(-1, num_blocks, *a.shape[1:]), 0, 1)

    def join(a):
        return jnp.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:])[:n]

    def block(_, rows):
        return None, function(*rows)

    return jax.tree.map(join, jax.lax.scan(block, None, jax.tree.map(split, rows))[1])
