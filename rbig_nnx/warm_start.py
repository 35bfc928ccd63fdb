"""Rewrites a freshly built model from data, before its first gradient step.

The layers are walked in order: one that can be fitted is, its parameters are written, and
the data are pushed on by the layer's *own* forward. Couplings are fitted as the marginal
maps they are when their output kernels are zero: the kernels become exactly 0, the biases
hold the mixtures. So the model starts as a diagonal RBIG flow (Laparra, Camps-Valls and
Malo, Iterative Gaussianization, 2011), and training lifts the kernels.

Of many rows a sample is walked through the layers, so that the time does not grow with
them; rows that are spread over devices or processes are sampled where they lie.

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

from rbig_nnx.fit.checks import check_rows, check_weights
from rbig_nnx.fit.judges import Rows, judged, sample, split
from rbig_nnx.fit.mixtures import Block, Options, Place, kind_of
from rbig_nnx.fit.rotation import METHODS
from rbig_nnx.fit_layers import fit_layer, fit_standardize
from rbig_nnx.math.arrays import Numbers, float_array
from rbig_nnx.math.blocks import in_blocks
from rbig_nnx.math.probit import LOG_SQRT_2PI
from rbig_nnx.nn.base.changes import calling, through, writes_nothing
from rbig_nnx.nn.base.layer import as_bijector
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow, check_context, find_flows
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.stack import ScannedBlocks, blocks_of
from rbig_nnx.nn.standardize import Standardize
from rbig_nnx.nn.tails import RadialTransform
from rbig_nnx.report import LayerReport, WarmStartReport

BACKENDS = ("jax", "sklearn")
_MIXTURES = MixtureCDFCoupling, MixtureCDFMarginal


def warm_start(
    model: nnx.Module,
    x: Numbers,
    *,
    key: Array,
    context: Numbers | None = None,
    weights: Numbers | None = None,
    rotation: str = "pca",
    holdout: float = 0.1,
    smoothing: float = 0.1,
    max_rows: int = 262_144,
    backend: str = "jax",
    callback: Callable[[LayerReport], None] | None = None,
) -> tuple[Any, WarmStartReport]:
    """Returns a copy of the model whose flow has been fitted to x, layer by layer.

    The input model is left unchanged. Afterwards every coupling's output kernel is exactly
    zero and its bias holds the fitted mixtures; standardisers hold mean and standard
    deviation, rotations the reflections of the fitted matrix. Layers of other types fit
    themselves if they have a method `warm_start` (see `Fittable`), and are passed through
    otherwise. What layers and networks write to themselves on the way, such as statistics,
    is kept. Fits depend on `key` only: same key, same bits.

    Args:
      model: a `GaussianizationFlow`, or any NNX module that contains exactly one.
      x: the rows that the flow models, [n, d]; a `jax.Array`, which may be sharded over
        rows, or host numbers of any type, which are taken by value and become float32, or
        keep float64 with 64-bit types on.
      key: JAX key.
      context: the flow's context, [n, c], if it is conditional.
      weights: nonnegative weights of the rows, [n], array or list; None for equal ones.
      rotation: "pca", "random", "ica", "nongaussian" or "auto". "nongaussian" starts
        highest, on tables of measurements by whole nats, and takes the most time, which
        grows with d²: two seconds a layer for 64 features on two cores. "auto" takes "pca"
        where rows that are held out do not clearly prefer it.
      holdout: share of the rows, in [0, 1), that only judge the fits. Where that is fewer
        than 200 rows, all are fitted, and judge further fits that leave them out, in at most
        five parts; the time is that of as many starts. The standardisers know every row. 0
        fits every layer plainly to every row: no stop, no shrinkage, no smoothing.
      smoothing: standard deviation of a Gaussian kernel by which each feature is blurred
        before its mixture is fitted, in standard deviations. Sharper fits start higher
        and train to a lower held-out log density (`docs/design.md`).
      max_rows: of more rows, the layers after the standardiser see a random sample of so
        many. A mixture of K components fitted to n rows loses about 3 K / 2n nats.
      backend: "jax", or "sklearn" for scikit-learn's `GaussianMixture` as reference.
      callback: called with the report of each layer once it is fitted.

    Returns:
      The warm-started model and a report of its layers.

    Raises:
      ValueError: for what is no number, NaN or infinite rows, a constant column, one whose
        spread is less than 800 steps of its dtype at its offset, no more rows (of
        positive weight) than components, a wrong width, a context that is missing or not
        wanted, unknown options, or a model without exactly one flow.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> x = jax.random.normal(jax.random.key(0), (1000, 2)) ** 3
      >>> flow = rn.coupling_flow(2, 2, num_components=4, rngs=nnx.Rngs(0))
      >>> warm, report = rn.warm_start(flow, x, key=jax.random.key(1))
      >>> print(rn.output_kernel_magnitudes(warm))
      (0.0, 0.0, 0.0, 0.0)
      >>> print(bool(warm.log_prob(x).mean() > flow.log_prob(x).mean() + 1))
      True
    """
    if rotation not in (*METHODS, "auto"):
        raise ValueError(
            f"`rotation` must be one of {(*METHODS, 'auto')}; got {rotation!r}."
        )
    if rotation == "auto" and not holdout:
        raise ValueError(
            "`holdout` must be above 0 with rotation='auto', which held-out rows choose;"
            " got 0. Name a rotation."
        )
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {BACKENDS}; got {backend!r}.")
    if not 0 <= holdout < 1:
        raise ValueError(
            f"`holdout` must be a share of the rows in [0, 1); got {holdout}."
        )
    if not 0 <= smoothing < np.inf:
        raise ValueError(
            f"`smoothing` must be at least 0, and finite; got {smoothing}."
        )
    model = nnx.clone(model)
    flow = _only_flow(model)
    opened = [blocks_of(layer) for layer in flow.layers]
    layers = [layer for blocks in opened for block in blocks for layer in block]
    x, context, weights, needed = _check(flow, layers, x, context, weights, max_rows)
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

    options = Options(rotation, smoothing if holdout else 0.0, backend, holdout > 0)
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
    return model, WarmStartReport(tuple(reports), holdout)


class _State(NamedTuple):
    """The rows between two layers."""

    x: Array  # [n, d]
    log_det: Array  # [n]


def _only_flow(model: nnx.Module) -> GaussianizationFlow:
    flows = find_flows(model)
    if len(flows) != 1:
        paths = [".".join(map(str, path)) for path, _ in flows]
        raise ValueError(
            f"`model` must be or contain exactly one GaussianizationFlow; got"
            f" {len(flows)} ({', '.join(paths) or 'none'}). Warm-start a flow of your"
            " choice and assign it back."
        )
    return flows[0][1]


def _check(
    flow: GaussianizationFlow,
    layers: list[Any],
    x: Any,
    context: Any,
    weights: Any,
    max_rows: int,
) -> tuple[Array, Array | None, Array | None, int]:
    """Rows, context and weights as arrays, and how many rows the fits need."""
    x = float_array(x, "x")
    d = flow.num_features
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(
            f"`x` must be [rows, {d}], the flow's number of features; got {x.shape}."
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    context = check_context(flow, context)
    if context is not None and context.shape[:-1] != x.shape[:-1]:
        raise ValueError(
            f"`context` must have one row per row of `x`, {len(x)}; got shape"
            f" {context.shape}."
        )
    weights, positive = check_weights(weights, len(x))
    needed = max(getattr(la, "num_components", 1) for la in layers)
    if positive <= needed:
        kind = "" if weights is None else " of positive weight"
        raise ValueError(
            f"`x` must have more rows than `num_components`; got {positive} rows{kind} and"
            f" {needed} components. Fit on more data or build the flow with fewer"
            " components."
        )
    if not max_rows > needed:
        raise ValueError(
            f"`max_rows` must be more than `num_components`; got {max_rows} rows and"
            f" {needed} components. Leave it out."
        )
    for name, rows in (("x", x), ("context", context)):
        if rows is not None:
            check_rows(name, rows)
    return x, context, weights, needed


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
