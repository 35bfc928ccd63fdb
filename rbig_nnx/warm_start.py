"""Rewrites a freshly built model from data, before its first gradient step.

The layers are walked in order: one that can be fitted is, its parameters are written, and
the data are pushed on by the layer's *own* forward. Couplings are fitted as the marginal
maps they are when their output kernels are zero: the kernels become exactly 0, the biases
hold the mixtures. So the model starts as a diagonal RBIG flow (Laparra, Camps-Valls and
Malo, Iterative Gaussianization, 2011), and training lifts the kernels.

Greedy fits overfit with depth. Unless `holdout` is 0, a slice of the rows takes no part in
the fits and decides for every feature of every layer how far its mixture is shrunk to the
identity, up to leaving the feature alone.
"""

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array

from rbig_nnx.fit.rotation import METHODS
from rbig_nnx.fit_layers import Mixtures, Options, Rows, fit_layer, fit_standardize
from rbig_nnx.math.blocks import in_blocks
from rbig_nnx.math.probit import LOG_SQRT_2PI
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow, check_context, find_flows
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.stack import as_bijector
from rbig_nnx.nn.standardize import Standardize
from rbig_nnx.report import LayerReport, WarmStartReport

BACKENDS = ("jax", "sklearn")


def warm_start(
    model: nnx.Module,
    x: ArrayLike,
    *,
    key: Array,
    context: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    rotation: str = "pca",
    holdout: float = 0.1,
    smoothing: float = 0.1,
    backend: str = "jax",
) -> tuple[Any, WarmStartReport]:
    """Returns a copy of the model whose flow has been fitted to x, layer by layer.

    The input model is left unchanged. Afterwards every coupling's output kernel is exactly
    zero and its bias holds the fitted mixtures; standardisers hold mean and standard
    deviation, rotations the reflections of the fitted matrix. Layers of other types fit
    themselves if they have a method `warm_start` (see `Fittable`), and are passed through
    otherwise. Fits depend on `key` only: same key, same bits.

    Args:
      model: a `GaussianizationFlow`, or any NNX module that contains exactly one.
      x: the rows that the flow models, [n, d]; host array or `jax.Array`, which may be
        sharded over rows.
      key: JAX key.
      context: the flow's context, [n, c], if it is conditional.
      weights: nonnegative weights of the rows, [n]; None for equal ones.
      rotation: "pca", "random", "ica" or "nongaussian".
      holdout: share of the rows, in [0, 1), that only judge the fits. 0 fits every layer
        plainly to every row: no stop, no shrinkage, no smoothing.
      smoothing: standard deviation of a Gaussian kernel by which each feature is blurred
        before its mixture is fitted, in standard deviations. Sharper fits start higher
        and train to a lower held-out log density (`docs/design.md`).
      backend: "jax", or "sklearn" for scikit-learn's `GaussianMixture` as reference.

    Returns:
      The warm-started model and a report of its layers.

    Raises:
      ValueError: for NaN or infinite rows, a constant column, fewer rows than components,
        a wrong width, a context that is missing or not wanted, unknown options, or a
        model without exactly one flow.

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
    if rotation not in METHODS:
        raise ValueError(f"`rotation` must be one of {METHODS}; got {rotation!r}.")
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {BACKENDS}; got {backend!r}.")
    if not 0 <= holdout < 1:
        raise ValueError(
            f"`holdout` must be a share of the rows in [0, 1); got {holdout}."
        )
    if not smoothing >= 0:
        raise ValueError(f"`smoothing` must be at least 0; got {smoothing}.")
    model = nnx.clone(model)
    flow = _only_flow(model)
    context = check_context(flow, context)
    x = _check_rows(flow, x, context, weights)
    rows = _split(jax.random.fold_in(key, 0), x, weights, holdout)
    if flow.standardize_context is not None:
        fit_standardize(flow.standardize_context, context, rows, "context")
        context = flow.standardize_context.bijector().forward(context)

    options = Options(rotation, smoothing if holdout else 0.0, backend)
    block = 0
    fits: dict[tuple, Mixtures] = {}
    state = _State(x, jnp.zeros(x.shape[0], x.dtype), x)
    log_prob = _log_prob(state, rows)
    reports = []
    for index, layer in enumerate(flow.layers):
        start = time.perf_counter()
        if not isinstance(layer, MixtureCDFCoupling) or not fits:
            # The couplings of a block share one fit, of their common input's features,
            # and one key: what a marginal layer in their place would use.
            fits, block = {}, block + 1
        layer_key = jax.random.fold_in(key, block)
        action = fit_layer(layer, state.narrow, rows, layer_key, options, fits)
        state = _push(layer, state, context, rows)
        before, log_prob = log_prob, _log_prob(state, rows)
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
                action=action,
                seconds=time.perf_counter() - start,
            )
        )
    return model, WarmStartReport(tuple(reports), holdout)


class _State(NamedTuple):
    """The rows between two layers."""

    x: Array  # [n, d], float64 where it can be: see `_push`
    log_det: Array  # [n], likewise
    narrow: Array  # [n, d], x in the data's dtype: what is fitted


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


def _split_weights(key, n, weights, holdout):
    weights = jnp.ones(n) if weights is None else weights.astype(jnp.float32)
    judges = jax.random.uniform(key, (n,)) < holdout
    return jnp.where(judges, 0, weights), jnp.where(judges, weights, 0)


@functools.cache
def _split_over(sharding: NamedSharding | None):
    return jax.jit(_split_weights, static_argnums=(1, 3), out_shardings=sharding)


def _over_rows(x: Array) -> NamedSharding | None:
    """How something with one value a row lies beside x."""
    if not isinstance(x.sharding, NamedSharding) or not x.sharding.spec:
        return None
    return NamedSharding(x.sharding.mesh, PartitionSpec(x.sharding.spec[0]))


def _split(key: Array, x: Array, weights: Array | None, holdout: float) -> Rows:
    # By weights, not by slices: rows that are sharded over devices stay where they are.
    n = x.shape[0]
    fit, judge = _split_over(_over_rows(x))(key, n, weights, holdout)
    if not holdout:
        return Rows(fit, fit, holds_out=False)
    if not bool(jnp.any(judge > 0)):
        raise ValueError(
            f"`holdout`={holdout} leaves no row out of {n} to judge the fits; use more"
            " rows, or holdout=0 to fit every layer plainly."
        )
    return Rows(fit, judge, holds_out=True)


@jax.jit
def _summary(x: Array) -> tuple[Array, Array, Array]:
    finite = jnp.all(jnp.isfinite(x), axis=1)
    first = jnp.argmin(finite)
    return jnp.sum(~finite), first, jnp.max(x, axis=0) == jnp.min(x, axis=0)


def _check_rows(flow, x, context, weights) -> Array:
    x = jnp.asarray(x)
    d = flow.num_features
    if x.ndim != 2 or x.shape[1] != d:
        raise ValueError(
            f"`x` must be [rows, {d}], the flow's number of features; got {x.shape}."
        )
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        x = x.astype(jnp.float32)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"`x` must be real; got dtype {x.dtype}.")
    needed = 1 + max(getattr(la, "num_components", 1) for la in flow.layers)
    if x.shape[0] < needed:
        raise ValueError(
            f"`x` must have more rows than `num_components`; got {x.shape[0]} rows and"
            f" {needed - 1} components. Fit on more data or build the flow with fewer"
            " components."
        )
    for name, rows in (("context", context), ("weights", weights)):
        if rows is not None and len(rows) != x.shape[0]:
            raise ValueError(
                f"`{name}` must have one row per row of `x`, {x.shape[0]}; got"
                f" {len(rows)}."
            )
    if weights is not None and not bool(
        jnp.all(weights >= 0) & jnp.all(jnp.isfinite(weights)) & jnp.any(weights > 0)
    ):
        raise ValueError("`weights` must be finite, nonnegative and not all zero.")
    for name, rows in (("x", x), ("context", context)):
        if rows is None:
            continue
        bad, first, constant = _summary(rows)
        if bad:
            raise ValueError(
                f"`{name}` must be finite; got NaN or infinity in {int(bad)} of"
                f" {rows.shape[0]} rows, the first row {int(first)}. Drop or fill them."
            )
        if jnp.any(constant):
            raise ValueError(
                f"`{name}` must vary in every column; columns"
                f" {np.flatnonzero(constant).tolist()} are constant. Leave them out."
            )
    return x


def _log_prob(state: _State, rows: Rows) -> float:
    """Mean log density of the judging rows if the flow ended here."""
    with jax.enable_x64(state.x.dtype == jnp.float64):
        return float(_mean_log_prob(state.x, state.log_det, rows.judge))


@jax.jit
def _mean_log_prob(x: Array, log_det: Array, weights: Array) -> Array:
    per_row = log_det - 0.5 * jnp.sum(x * x, axis=-1) - x.shape[-1] * LOG_SQRT_2PI
    # Not a product with zero weights: a row that judges nothing may be infinite.
    return jnp.sum(jnp.where(weights > 0, per_row, 0) * weights) / jnp.sum(weights)


def _push(layer: Any, state: _State, context: Array | None, rows: Rows) -> _State:
    """The layer's own forward, for a coupling as the marginal map that it is now.

    In float64 for this package's layers. A coupling and the marginal map it equals are two
    compiled programs that round differently, and EM makes 1e-3 of a last bit; what is
    rounded once from float64 is the same bits for both. TPUs have no float64.
    """
    narrow = state.narrow.dtype
    wide = type(layer) in _WIDE and jax.default_backend() != "tpu"
    with jax.enable_x64(wide or narrow == jnp.float64):
        dtype = jnp.float64 if wide else narrow
        layer, x, log_det, context = jax.tree.map(
            lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a,
            (layer, state.x, state.log_det, context),
        )
        x, log_det = _forward(layer, x, log_det, context, rows.fit.sharding)
        return _State(x, log_det, x.astype(narrow))


@functools.partial(jax.jit, static_argnums=4)
def _forward(layer, x: Array, log_det: Array, context: Array | None, sharding):
    # The layer is an argument: equal layers share one compiled program.
    def forward(layer, x, log_det, context):
        # A coupling's output kernel is zero now: rows need not go through its network.
        fitted = isinstance(layer, MixtureCDFCoupling)
        bijector = layer.marginal_bijector() if fitted else as_bijector(layer, context)
        y, gained = bijector.forward_and_log_det(x)
        return y, log_det + gained

    return in_blocks(forward, layer, x, log_det, context, sharding=sharding)


_WIDE = (Standardize, HouseholderRotation, MixtureCDFMarginal, MixtureCDFCoupling)
