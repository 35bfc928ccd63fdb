"""Functions of rows, applied to a block of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_BLOCK = 65_536  # rows


def in_blocks(function: Callable, shared: Any, *rows: Any) -> Any:
    """`function(shared, *rows)` with the intermediate values of one block of rows.

    Args:
      function: treats every row by itself; (shared, *rows) to arrays [n, ...]. Traced.
      shared: pytree of what every row needs.
      *rows: pytrees of arrays [n, ...].

    Returns:
      What `function` returns for all rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.blocks import in_blocks
      >>> print(in_blocks(lambda s, x: s * x, 2.0, jnp.arange(3.0)))
      [0. 2. 4.]
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    if n <= _BLOCK:
        return function(shared, *rows)

    def run(start):
        block = jax.tree.map(
            lambda a: jax.lax.dynamic_slice_in_dim(a, start, _BLOCK), rows
        )
        return function(shared, *block)

    def body(i, out):
        start = jnp.minimum(i * _BLOCK, n - _BLOCK)  # the last block overlaps
        return jax.tree.map(
            lambda o, b: jax.lax.dynamic_update_slice_in_dim(o, b, start, 0),
            out,
            run(start),
        )

    out = jax.tree.map(
        lambda a: jnp.zeros((n, *a.shape[1:]), a.dtype), jax.eval_shape(run, 0)
    )
    return jax.lax.fori_loop(0, -(-n // _BLOCK), body, out)
