"""Calls outside of `jit` in few shapes: for each shape all that is called is compiled."""

import functools
from collections.abc import Callable
from typing import Any

import distrax
import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.nn.base.changes import writes_nothing
from rbig_nnx.nn.base.layer import as_bijector

_ROUND = 64  # rows


def in_rounds(
    flow: nnx.Module,
    call: Callable[[distrax.Bijector, Array], Any],
    x: Array,
    context: Array | None,
) -> Any:
    """`call(bijector, x)` of a flow; outside of `jit` of a round number of rows.

    There a new number of rows costs seconds of compilation and 17 MiB that stay. So the
    last row is repeated up to a multiple of 64, of more than 1,024 rows by at most an
    eighth of them, where every module is known to take a row by itself.

    Args:
      flow: what is called.
      call: a function of the flow's bijector and of rows, whose results have these rows.
      x: points, [n, d]; of other shapes they are taken as they come.
      context: [n, c], [c] or None; others likewise.
    """
    rows = [x] if context is None else [x, context]
    fill = _fill(flow, rows)
    if not fill:
        return call(as_bijector(flow, context), x)
    n = len(x)
    wide = [
        _replaced(a, lambda a: np.pad(a, ((0, fill), (0, 0)), "edge"))
        if a.ndim == 2
        else a
        for a in rows
    ]
    result = call(as_bijector(flow, *wide[1:] or [None]), wide[0])
    return jax.tree.map(lambda a: _replaced(a, lambda a: a[:n]), result)


def _fill(flow: nnx.Module, rows: list[Array]) -> int:
    """How many rows to add; none where something is traced, or spread over devices."""
    if rows[0].ndim != 2 or any(isinstance(a, jax.core.Tracer) for a in rows):
        return 0
    n = len(rows[0])
    fill = -n % max(_ROUND, 2 ** n.bit_length() // 16)
    if not fill or any(
        a.shape[:-1] not in ((n,), ()) or len(a.sharding.device_set) > 1 for a in rows
    ):
        return 0
    leaves, structure = jax.tree.flatten(flow)
    traced = any(isinstance(a, jax.core.Tracer) for a in leaves)
    return fill if not traced and _by_rows(structure) else 0


def _replaced(a: Array, change: Callable[[np.ndarray], np.ndarray]) -> Array:
    """By NumPy: what JAX cuts or puts together is compiled for each shape too."""
    return jax.device_put(change(np.asarray(a)), a.sharding if a.committed else None)


@functools.lru_cache(maxsize=64)
def _by_rows(structure: Any) -> bool:
    """Whether all modules of a flow take each row by itself."""
    return writes_nothing(jax.tree.unflatten(structure, [0.0] * structure.num_leaves))
