"""Layers applied in order; runs of equal blocks are scanned.

A flow is written as a plain list of layers. Where a unit of one or more layers repeats
with the same structure and shapes, its parameters are stacked while tracing and the unit
becomes the body of one `jax.lax.scan`, which keeps little but the blocks' inputs in memory.
A few blocks on few rows are written out instead: that compiles and runs faster. The blocks of
`ScannedBlocks` are stored stacked and always scanned, so that neither the compiled program
nor the optimiser's grows with their number. On CPUs many rows go through a block at a time.
On accelerators, and within `keep_activations`, more rows count as few.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.export import is_symbolic_dim
from jaxtyping import Array

from rbig_nnx.math import components
from rbig_nnx.math.arrays import dtype_of, float_array
from rbig_nnx.math.blocks import in_blocks
from rbig_nnx.nn.base.activations import few_values
from rbig_nnx.nn.base.changes import (
    calling,
    has_shared_variables,
    through,
    write,
    writes_nothing,
)
from rbig_nnx.nn.base.layer import Layer, as_bijector
from rbig_nnx.nn.base.meshes import on_any_mesh

# Up to which blocks are written out, and rows are not split. Beyond, on CPUs, the memory of
# a program is asked of the system again at every call, and clearing its pages costs more than
# is spared.
FEW_BLOCKS = 8
_BLOCK_VALUES = 4_000_000


class LayerStack(distrax.Bijector):
    """f_n ∘ … ∘ f_1 for layers f_1, …, f_n given in the order of application.

    One compiled program for each structure, so that a second call outside of `jax.jit` does
    not trace the layers again. What a layer writes to itself comes out of it.

    Args:
      layers: `distrax.Bijector`s on vectors, or modules with `bijector(context)`.
      context: read by the layers that are conditional, [..., c].
      standardize: a layer that the context goes through first, or None.
    """

    def __init__(
        self,
        layers: Sequence[Any],
        context: Array | None = None,
        standardize: Layer | None = None,
    ):
        super().__init__(event_ndims_in=1)
        self._layers = tuple(layers)
        self._context, self._standardize = context, standardize

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return self._apply("forward_and_log_det", x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return self._apply("inverse_and_log_det", y)

    def _apply(self, direction: str, x: Array) -> tuple[Array, Array]:
        args = float_array(x, "x"), self._context, self._standardize
        apply = functools.partial(_through, direction)
        return on_any_mesh(apply, self._layers, *args)


def _through(direction: str, layers: tuple, *args: Any) -> tuple[Array, Array]:
    jitted = functools.partial(_compiled, few_values())
    return through(jitted, _apply_layers, layers, *args, direction)


def _apply_layers(
    layers: tuple,
    x: Array,
    context: Array | None,
    standardize: Layer | None,
    direction: str,
) -> tuple[Array, Array]:
    # One dtype for all layers, as a scan wants it.
    x = x.astype(jnp.promote_types(x.dtype, dtype_of(layers)))
    if context is not None and standardize is not None:
        context = as_bijector(standardize, None).forward(context)
    if context is not None and context.ndim > 1:
        batch = jnp.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        x = jnp.broadcast_to(x, (*batch, x.shape[-1]))
        context = jnp.broadcast_to(context, (*batch, context.shape[-1]))
    runs = runs_of(layers)
    num_blocks = _num_row_blocks(x, context, runs) if writes_nothing(layers) else 1
    run = functools.partial(_run, runs, direction, keep_all=num_blocks == 1)
    return in_blocks(run, x, context, num_blocks=num_blocks)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _compiled(_few_values, layers, x, context, standardize, direction):
    return calling(_apply_layers, layers, x, context, standardize, direction)


class Run(NamedTuple):
    """A unit of layers, applied once or several times in a row.

    Either `repeats` holds one tuple of layers per repetition, or, of blocks that are stored
    stacked, `stacked` holds the unit with arrays [num_blocks, ...].
    """

    num_blocks: int
    repeats: tuple[tuple, ...] = ()
    stacked: tuple = ()

    def write(self, changed: nnx.State) -> None:
        """Writes what a scan over the blocks changed, arrays [num_blocks, ...]."""
        if self.stacked:
            write(self.stacked, changed)
        for i, repeat in enumerate(self.repeats):
            write(repeat, jax.tree.map(lambda a, i=i: a[i], changed))


def _run(
    runs: Sequence[Run],
    direction: str,
    x: Array,
    context: Array | None,
    *,
    keep_all: bool,
) -> tuple[Array, Array]:
    """The runs in order, or in the inverse's."""
    inverse = direction == "inverse_and_log_det"
    order = -1 if inverse else 1

    def apply(unit, carry):
        value, total = carry
        for layer in unit[::order]:
            value, log_det = getattr(as_bijector(layer, context), direction)(value.T)
            value, total = value.T, total + log_det
        return value, total

    def step(carry, unit):
        return calling(apply, unit, carry)

    # Features lie first in memory, as couplings take them: see `masks`.
    carry = x.T, jnp.zeros_like(x[..., 0])  # which varies over a mesh as the rows do
    for run in runs[::order]:
        keeps = keep_all and _are_few(x, run)
        if run.num_blocks == 1 and not run.stacked:
            carry = apply(run.repeats[0], carry)
        elif keeps and not run.stacked:
            # Traced once. XLA compiles a kernel once for all the equal blocks.
            once = jax.jit(step)
            for repeat in run.repeats[::order]:
                carry, changed = once(carry, repeat)
                write(repeat, changed)
        else:
            # Of many values, recomputing a block in the backward pass is cheaper than
            # keeping all but a few.
            keep = jax.checkpoint_policies.save_only_these_names(components.KEPT)
            again = jax.checkpoint(step, prevent_cse=False, policy=keep)
            stacked = run.stacked or jax.tree.map(
                lambda *leaves: jnp.stack(leaves), *run.repeats
            )
            body = step if keeps else again
            carry, changed = jax.lax.scan(body, carry, stacked, reverse=inverse)
            run.write(changed)
    return carry[0].T, carry[1]


def _columns(run: Run) -> int:
    """How many values a row has in one of the blocks: one for every parameter's column."""
    unit = run.stacked or run.repeats[0]
    return sum(a.shape[-1] for a in jax.tree.leaves(unit) if a.ndim)


def _are_few(x: Array, run: Run) -> bool:
    """Whether all blocks keep few values, and are not too many to be written out."""
    values = math.prod(x.shape[:-1]) * run.num_blocks * _columns(run)
    few_blocks = bool(run.stacked) or run.num_blocks <= FEW_BLOCKS
    return few_blocks and (is_symbolic_dim(values) or values <= few_values())


def _num_row_blocks(x: Array, context: Array | None, runs: Sequence[Run]) -> int:
    """By how much to split the rows, so that a block's values stay in a CPU's cache.

    A power of two, which divides the usual batches.
    """
    many = [run for run in runs if run.num_blocks > 1]
    if all(_are_few(x, run) for run in many):
        return 1
    widest = max(map(_columns, many))
    splits = x.ndim == 2 and (context is None or context.ndim == 2)
    rows = x.shape[0]
    if jax.default_backend() != "cpu" or not splits or is_symbolic_dim(rows):
        return 1
    blocks = rows * widest / _BLOCK_VALUES
    return 2 ** math.ceil(math.log2(max(blocks, 1)))


def runs_of(layers: Sequence[Any]) -> list[Run]:
    """Splits layers into runs of equal units, the longest run of blocks first found."""
    # Copies of what is shared would go different ways.
    shared = has_shared_variables(layers)
    kinds = [None] * len(layers) if shared else kinds_of(layers)
    n, start, runs = len(layers), 0, []
    while start < n:
        if isinstance(layers[start], ScannedBlocks):
            blocks = layers[start]
            runs.append(Run(blocks.num_blocks, stacked=tuple(blocks.layers)))
            start += 1
            continue
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
        repeats = tuple(
            tuple(layers[start + i * length : start + (i + 1) * length])
            for i in range(count)
        )
        runs.append(Run(count, repeats))
        start += length * count
    return runs


def kinds_of(layers: Sequence[Any]) -> list[int | None]:
    """Equal numbers for layers of equal structure and shapes; None for unscannable ones.

    Layers with other than floating arrays (random streams, counters) never repeat, nor do
    those that are runs themselves.
    """
    seen: list[Any] = []
    kinds: list[int | None] = []
    for layer in layers:
        leaves, treedef = jax.tree.flatten(layer)
        floating = all(
            hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
            for a in leaves
        )
        if isinstance(layer, ScannedBlocks) or not floating:
            kinds.append(None)
            continue
        signature = (treedef, tuple((a.shape, a.dtype) for a in leaves))
        if signature not in seen:
            seen.append(signature)
        kinds.append(seen.index(signature))
    return kinds


class ScannedBlocks(Layer):
    """Equal blocks of layers, applied in order, whose parameters are stored stacked.

    The same map as the blocks' layers in a list, with as many arrays as one block has, each
    [n, ...]: the program, that of the optimiser too, does not grow with their number.

    Args:
      blocks: n blocks, each the same number of layers of the same structure and shapes.
        Their arrays are copied. Where their metadata say how an axis is sharded, the new
        first axis is not.
      rngs: unused; every module takes it.

    Raises:
      ValueError: if there are no blocks, or they differ in more than their values.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> rngs = nnx.Rngs(0)
      >>> blocks = rn.ScannedBlocks(
      ...     [[rn.HouseholderRotation(2, rngs=rngs), rn.MixtureCDFMarginal(2)]
      ...      for _ in range(5)])
      >>> flow = rn.GaussianizationFlow([rn.Standardize(2), blocks])
      >>> print(blocks.layers[0].vectors.shape, flow.log_prob(jnp.zeros(2)).shape)
      (5, 2, 2) ()
    """

    def __init__(
        self, blocks: Sequence[Sequence[nnx.Module]], *, rngs: nnx.Rngs | None = None
    ):
        del rngs
        blocks = [tuple(block) for block in blocks]
        sizes = [len(block) for block in blocks]
        if not blocks or sizes[0] == 0 or len(set(sizes)) > 1:
            raise ValueError(
                "`blocks` must hold at least one block, each of the same number of layers;"
                f" got blocks of {sizes} layers."
            )
        kinds = kinds_of([layer for block in blocks for layer in block])
        if None in kinds or kinds != kinds[: sizes[0]] * len(blocks):
            raise ValueError(
                "`blocks` must be equal in all but the values of their arrays, which must be"
                " floating (no random streams or counters); got blocks of different"
                f" structure or shapes, or such arrays, among {len(blocks)} of"
                f" {[type(layer).__name__ for layer in blocks[0]]}. Put their layers into the"
                " flow's list."
            )
        self.num_blocks = len(blocks)
        self.layers = nnx.List(_stack_layers(blocks))

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The blocks in order at the current parameters, given the context."""
        return LayerStack([self], context)

    def blocks(self) -> list[list[nnx.Module]]:
        """The layers of each block, with copies of their arrays."""

        def block(i: int) -> list[nnx.Module]:
            layers = jax.tree.map(lambda a: a[i], list(self.layers))
            return nnx.spmd.remove_axis(layers, 0, _UNSHARDED)

        return [block(i) for i in range(self.num_blocks)]

    def set_blocks(self, blocks: Sequence[Sequence[nnx.Module]]) -> None:
        """Writes the variables of all blocks, as `blocks` gives them."""
        nnx.update(self.layers, nnx.state(nnx.List(_stack_layers(blocks))))


_UNSHARDED = {nnx.PARTITION_NAME: None}


def _stack_layers(blocks: Sequence[Sequence[nnx.Module]]) -> list[nnx.Module]:
    layers = jax.tree.map(_stack, *map(list, blocks))
    return nnx.spmd.add_axis(layers, 0, _UNSHARDED)


def _stack(*leaves: Array) -> Array:
    if isinstance(leaves[0], jax.core.Tracer):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack(leaves))  # on the host: nothing to compile


def blocks_of(layer: Any) -> list[list[Any]]:
    """The blocks of `ScannedBlocks`; any other layer is a block by itself."""
    return layer.blocks() if isinstance(layer, ScannedBlocks) else [[layer]]
