"""One flow, walked layer by layer: each is fitted to the rows that reach it.

The rows are pushed on by the layer's *own* forward. Couplings are fitted as the marginal maps
they are when their output kernels are zero: the kernels become exactly 0, the biases hold the
mixtures.

Greedy fits overfit with depth. Unless `holdout` is 0, rows that a fit does not know decide for
every feature of every layer how far its mixture is shrunk to a Gaussian, up to leaving the
feature alone: of many rows a slice, of few every row in turn (see `rbig_nnx.fit.judges`).
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.fit.judges import Rows, judged, sample, split
from rbig_nnx.fit.mixtures import Block, Options, Place, kind_of
from rbig_nnx.fit_layers import fit_layer, fit_standardize
from rbig_nnx.math.blocks import in_blocks
from rbig_nnx.math.probit import LOG_SQRT_2PI
from rbig_nnx.nn.base.changes import calling, through, writes_nothing
from rbig_nnx.nn.base.layer import as_bijector
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.stack import ScannedBlocks, blocks_of
from rbig_nnx.nn.standardize import Standardize
from rbig_nnx.nn.transforms import ClusterTransform, RadialTransform
from rbig_nnx.report import LayerReport
from rbig_nnx.targets.rows import FlowRows

_MIXTURES = MixtureCDFCoupling, MixtureCDFMarginal


def fit_flow(
    flow: GaussianizationFlow,
    rows: FlowRows,
    *,
    name: str,
    key: Array,
    options: Options,
    holdout: float,
    max_rows: int,
    callback: Callable[[LayerReport], None] | None,
) -> list[LayerReport]:
    """Fits every layer in place, in order; returns what was done.

    Args:
      flow: one flow, no ensemble.
      rows: what it is fitted to.
      name: of the flow, for the reports.
      key: JAX key.
      options: of the fits of layers.
      holdout: as of `warm_start`, and so are the others.
      max_rows: likewise.
      callback: likewise.

    Raises:
      ValueError: for what the layers cannot be fitted to.
    """
    opened = [blocks_of(layer) for layer in flow.layers]
    layers = [layer for blocks in opened for block in blocks for layer in block]
    x, context, weights, needed = rows
    parts = split(jax.random.fold_in(key, 0), x, weights, holdout, needed)
    # The standardisers of the input know every row.
    every = parts[0].every
    if context is not None and flow.standardize_context is not None:
        fit_standardize(flow.standardize_context, context, every, "context")
    if isinstance(first := layers[0], Standardize):
        fit_standardize(first, x, every, "x")
    x, context, parts = sample(key, x, context, parts, max_rows)
    if context is not None and flow.standardize_context is not None:
        context = flow.standardize_context.bijector().forward(context)

    previous, place, num_places = None, None, 0
    chains = [_State(x, jnp.zeros(x.shape[0], x.dtype)) for _ in parts]
    log_prob = _log_prob(chains, parts)
    reports = []
    for index, layer in enumerate(layers):
        start = time.perf_counter()
        if not all(isinstance(la, MixtureCDFCoupling) for la in (previous, layer)):
            # One key for all couplings of a block: what a marginal layer in their place
            # would use.
            num_places += 1
            following = layers[index + 1] if index + 1 < len(layers) else None
            place = Place(
                jax.random.fold_in(key, num_places),
                options,
                [state.x for state in chains],
                parts,
                kind_of(following) if isinstance(following, _MIXTURES) else None,
                place and place.foreseen,
                elliptical=isinstance(following, RadialTransform),
                normal=any(isinstance(la, ClusterTransform) for la in layers[:index]),
            )
        previous = layer
        done = layer is first and isinstance(layer, Standardize)
        # The first chain fits the layer; those that are judged, copies.
        copies = [layer, *(nnx.clone(layer) for _ in chains[1:])]
        actions = [
            "mean and scale" if done else fit_layer(copy, block)
            for copy, block in zip(copies, place.blocks, strict=True)
        ]
        chains = [
            _push(copy, state, block, context)
            for copy, state, block in zip(copies, chains, place.blocks, strict=True)
        ]
        before, log_prob = log_prob, _log_prob(chains, parts)
        if not np.isfinite(log_prob):
            raise ValueError(
                f"layer {index} ({type(layer).__name__}) maps `x` to values that are not"
                " finite. Look for extreme outliers in `x`, or for the layer's own"
                " parameters if it was passed through."
            )
        reports.append(
            LayerReport(
                index=index,
                flow=name,
                name=type(layer).__name__,
                log_prob=log_prob,
                negentropy=log_prob - before,
                action=actions[0],
                seconds=time.perf_counter() - start,
            )
        )
        if callback is not None:
            callback(reports[-1])
    for layer, blocks in zip(flow.layers, opened, strict=True):
        if isinstance(layer, ScannedBlocks):
            layer.set_blocks(blocks)
    return reports


class _State(NamedTuple):
    """The rows between two layers."""

    x: Array  # [n, d]
    log_det: Array  # [n]


def _log_prob(chains: list[_State], parts: list[Rows]) -> float:
    """Mean log density of the rows that judge if the flow ended here."""
    pairs = zip(judged(chains), judged(parts), strict=True)
    sums = [_sum_of_log_prob(state, rows.judge) for state, rows in pairs]
    total, count = np.sum(sums, axis=0)
    return float(total / count)


@jax.jit
def _sum_of_log_prob(state: _State, weights: Array) -> tuple[Array, Array]:
    x, log_det = state
    per_row = log_det - 0.5 * jnp.sum(x * x, axis=-1) - x.shape[-1] * LOG_SQRT_2PI
    # Not a product with zero weights: a row that judges nothing may be infinite.
    return jnp.sum(jnp.where(weights > 0, per_row, 0) * weights), jnp.sum(weights)


def _push(layer: Any, state: _State, block: Block, context: Array | None) -> _State:
    """The layer's own forward; of a coupling, its part of the block's marginal map."""
    if isinstance(layer, _MIXTURES) and writes_nothing(layer):
        moved = ~np.asarray(getattr(layer, "mask", [False] * state.x.shape[1]))
        return _take(state, block.mapped(layer), moved)
    return _State(*through(_pushed, _forward, layer, *state, context))


@jax.jit
def _take(state: _State, mapped: tuple[Array, Array], moved: Array) -> _State:
    z, log_slopes = mapped
    gained = jnp.sum(jnp.where(moved, log_slopes, 0), axis=-1)
    return _State(jnp.where(moved, z, state.x), state.log_det + gained)


def _forward(layer, x: Array, log_det: Array, context: Array | None):
    def forward(x, log_det, context):
        y, gained = as_bijector(layer, context).forward_and_log_det(x)
        return y, log_det + gained

    if not writes_nothing(layer):  # statistics are of all rows
        return forward(x, log_det, context)
    return in_blocks(forward, x, log_det, context)


@jax.jit
def _pushed(layer, *rows):
    # The layer is an argument: equal layers share one compiled program.
    return calling(_forward, layer, *rows)
