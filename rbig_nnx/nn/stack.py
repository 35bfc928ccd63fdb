"""Layers applied in order; runs of equal blocks are scanned.

A flow is written as a plain list of layers. Where a unit of one or more layers repeats
with the same structure and shapes, its parameters are stacked while tracing and the unit
becomes the body of one `jax.lax.scan`, so the size of the compiled program does not grow
with the number of blocks, nor its memory by more than the blocks' inputs. A few blocks on few
rows are written out instead: that compiles and runs faster. On CPUs many rows go through
a block at a time. Within `keep_activations` more rows count as few.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rbig_nnx.math import components
from rbig_nnx.math.blocks import in_blocks

# Up to which repeats are written out, and rows are not split. Beyond, on CPUs, the memory of
# a program is asked of the system again at every call, and clearing its pages costs more than
# is spared.
_FEW_REPEATS = 8
_few_values = contextvars.ContextVar("few_values", default=6_000_000)
_BLOCK_VALUES = 4_000_000


@contextlib.contextmanager
def keep_activations(num_values: int = 100_000_000) -> Iterator[None]:
    """Flows traced within keep more for their backward pass, instead of computing it twice.

    For programs that take many steps: on CPUs they ask the system for memory once, and a
    step of 4,096 rows takes about 0.7 of the time. `trainers.fit` does it. It concerns up to
    eight equal blocks; outside, the limit is 6 million values.

    Args:
      num_values: up to how many values to keep, about; each takes some six bytes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.coupling_flow(2, 4, rngs=nnx.Rngs(0))
      >>> def loss(flow, x):
      ...     with rn.keep_activations():
      ...         return -flow.log_prob(x).mean()
      >>> def step(flow, x):
      ...     value, grads = jax.value_and_grad(loss)(flow, x)
      ...     return jax.tree.map(lambda p, g: p - 1e-3 * g, flow, grads), value
      >>> many = jax.jit(lambda flow, batches: jax.lax.scan(step, flow, batches))
      >>> _, losses = many(flow, jnp.zeros((3, 4_096, 2)))
      >>> losses.shape
      (3,)
    """
    token = _few_values.set(num_values)
    try:
        yield
    finally:
        _few_values.reset(token)


def few_values() -> int:
    """Up to how many values count as few here; a part of every cached trace's key."""
    return _few_values.get()


def as_bijector(layer: Any, context: Array | None) -> distrax.Bijector:
    """The layer as a bijector: its own `bijector(context)`, or itself if it is one.

    Raises:
      TypeError: if it is neither.
    """
    if isinstance(layer, distrax.Bijector):
        return layer
    if callable(getattr(layer, "bijector", None)):
        return layer.bijector(context)
    raise TypeError(
        "a layer must be a distrax.Bijector or have a method `bijector(context)` that"
        f" returns one; got {type(layer).__name__}."
    )


class LayerStack(distrax.Bijector):
    """f_n ∘ … ∘ f_1 for layers f_1, …, f_n given in the order of application.

    Args:
      layers: `distrax.Bijector`s on vectors, or modules with `bijector(context)`.
      context: read by the layers that are conditional, [..., c].
    """

    def __init__(self, layers: Sequence[Any], context: Array | None = None):
        super().__init__(event_ndims_in=1)
        self._layers = tuple(layers)
        self._context = context

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return self._apply("forward_and_log_det", x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return self._apply("inverse_and_log_det", y)

    def _apply(self, direction: str, x: Array) -> tuple[Array, Array]:
        units = repeated_units(self._layers)
        num_blocks = _num_row_blocks(x, self._context, units)
        run = functools.partial(_run, units, direction, keep_all=num_blocks == 1)
        return in_blocks(run, x, self._context, num_blocks=num_blocks)


def _run(
    units: Sequence[tuple],
    direction: str,
    x: Array,
    context: Array | None,
    *,
    keep_all: bool,
) -> tuple[Array, Array]:
    """The units in order, or in the inverse's."""
    inverse = direction == "inverse_and_log_det"
    order = -1 if inverse else 1

    def step(carry, unit):
        value, total = carry
        for layer in unit[::order]:
            value, log_det = getattr(as_bijector(layer, context), direction)(value.T)
            value, total = value.T, total + log_det
        return (value, total), None

    # Features lie first in memory, as couplings take them: see `masks`.
    carry = x.T, jnp.zeros(x.shape[:-1], x.dtype)
    for unit, repeats in units[::order]:
        if len(repeats) == 1:
            carry, _ = step(carry, unit)
        elif keep_all and _are_few(x, repeats):
            # Traced once. XLA compiles a kernel once for all the equal blocks.
            once = jax.jit(step)
            for repeat in repeats[::order]:
                carry, _ = once(carry, repeat)
        else:
            # Of many values, recomputing a block in the backward pass is cheaper than
            # keeping all but a few.
            keep = jax.checkpoint_policies.save_only_these_names(components.KEPT)
            again = jax.checkpoint(step, prevent_cse=False, policy=keep)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *repeats)
            carry, _ = jax.lax.scan(again, carry, stacked, reverse=inverse)
    return carry[0].T, carry[1]


def _columns(unit: Any) -> int:
    """How many values a row has in a unit: one for every parameter's column."""
    return sum(a.shape[-1] for a in jax.tree.leaves(unit) if a.ndim)


def _are_few(x: Array, repeats: Sequence[Any]) -> bool:
    """Whether few repeats keep few values."""
    rows = math.prod(x.shape[:-1])
    return len(repeats) <= _FEW_REPEATS and rows * _columns(repeats) <= few_values()


def _num_row_blocks(x: Array, context: Array | None, units: Sequence[tuple]) -> int:
    """By how much to split the rows, so that a unit's values stay in a CPU's cache.

    A power of two, which divides the usual batches.
    """
    many = [repeats for _, repeats in units if len(repeats) > 1]
    if all(_are_few(x, repeats) for repeats in many):
        return 1
    widest = max(_columns(repeats[0]) for repeats in many)
    splits = x.ndim == 2 and (context is None or context.ndim == 2)
    if jax.default_backend() != "cpu" or not splits:
        return 1
    blocks = len(x) * widest / _BLOCK_VALUES
    return 2 ** math.ceil(math.log2(max(blocks, 1)))


def repeated_units(layers: Sequence[Any]) -> list[tuple[tuple, list[tuple]]]:
    """Splits layers into units and their repeats, the longest run of blocks first found.

    Returns:
      (unit, repeats) in order, where `repeats` holds one tuple of layers per repetition and
      `unit` is the first of them. Layers with other than floating arrays (random streams,
      counters) never repeat.
    """
    kinds = _kinds(layers)
    n, start, units = len(layers), 0, []
    while start < n:
        length, count = 1, 1
        for period in range(1, (n - start) // 2 + 1):
            repeats = 1
            unit = kinds[start : start + period]
            while (
                kinds[start + repeats * period :][:period] == unit and None not in unit
            ):
                repeats += 1
            if repeats > 1 and repeats * period > length * count:
                length, count = period, repeats
        blocks = [
            tuple(layers[start + i * length : start + (i + 1) * length])
            for i in range(count)
        ]
        units.append((blocks[0], blocks))
        start += length * count
    return units


def _kinds(layers: Sequence[Any]) -> list[int | None]:
    """Equal numbers for layers of equal structure and shapes; None for unscannable ones."""
    seen: list[Any] = []
    kinds: list[int | None] = []
    for layer in layers:
        leaves, treedef = jax.tree.flatten(layer)
        floating = all(
            hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
            for a in leaves
        )
        if not floating:
            kinds.append(None)
            continue
        signature = (treedef, tuple((a.shape, a.dtype) for a in leaves))
        if signature not in seen:
            seen.append(signature)
        kinds.append(seen.index(signature))
    return kinds
