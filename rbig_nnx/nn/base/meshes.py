"""Rows that lie on a mesh with explicit axes, as `jax.make_mesh` gives them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array

from rbig_nnx.nn.base.changes import calling, write


def on_any_mesh(
    function: Callable[..., tuple[Array, Array]], module: Any, *rows: Array | None
) -> tuple[Array, Array]:
    """`function(module, *rows)`, where rows may be spread over axes that are explicit.

    There the types of all values say where they lie, and an operation whose result could lie
    in two ways is an error. The function's own are left to the compiler, and its results lie
    as the rows do.

    Args:
      function: of the module and rows [..., k] that broadcast; gives [..., d] and [...].
      module: gets what the function writes to it.
      *rows: arrays, or None.
    """
    specs = [_spec(a) for a in rows if a is not None]
    if not any(axis for spec in specs for axis in spec):
        return function(module, *rows)
    shapes = [a.shape[:-1] for a in rows if a is not None]
    size = np.broadcast_shapes(*shapes)
    batch: list[Any] = [None] * len(size)
    for shape, spec in zip(shapes, specs, strict=True):
        for back in range(1, len(shape) + 1):
            if shape[-back] == size[-back]:
                batch[-back] = batch[-back] or spec[len(shape) - back]
    places = (PartitionSpec(*batch, None), PartitionSpec(*batch)), PartitionSpec()
    automatic = jax.sharding.auto_axes(
        functools.partial(calling, function), out_sharding=places
    )
    result, changed = automatic(module, *rows)
    write(module, changed)
    return result


def _spec(a: Array) -> tuple[Any, ...]:
    """The mesh axes of each axis of an array, as far as its type tells them."""
    sharding = jax.typeof(a).sharding
    return (*sharding.spec, *[None] * (a.ndim - len(sharding.spec)))
