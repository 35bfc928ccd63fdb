"""Mixture fits of all columns at once: EM on a sketch, beside the identity anchor.

The rows are read once, into bins that keep mass, mean and variance; EM then runs on the
bins, so an iteration costs the same for ten thousand rows and for ten million. Within a
bin the responsibilities are shared (Verbeek, Nunnink and Vlassis, Accelerated EM-based
clustering of large data sets, 2006), which is EM on a lower bound of the likelihood.

Components lead inside, [K, d, M]: compilers vectorise a long last axis, not one of eight.
"""

import functools
import math
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from rbig_nnx.math.mixture import ANCHOR_WEIGHT, MixtureParams, check_options

# Smallest scale of a component, in standard deviations of the feature.
_MIN_SCALE = 1e-3
_MIN_WEIGHT = 1e-6  # smallest weight of a component: keeps the logits finite
_NUM_BINS = 2048  # bins of a sketch
_NUM_TAIL_EDGES = 24  # of them on each side, for the rows beyond the subsample's range
_EDGE_ROWS = 16_384  # rows that place the edges
_NUM_PRIOR_POINTS = 128
_COARSE_BINS = 512  # the first, short runs
_SHORT_CYCLES = 10
_NUM_CYCLES = 60
_SMALLEST_STEP = 1e-3  # of all parameters together: EM goes on without extrapolation
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Sketch(NamedTuple):
    """Binned columns, each array [d, M]: bins in ascending order, empty ones of mass 0."""

    points: Float[Array, "d m"]
    masses: Float[Array, "d m"]
    variances: Float[Array, "d m"]


def _check(x: Array | np.ndarray, weights: Array | None) -> None:
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 1:
        raise ValueError(
            "`x` must be [rows, features] with at least one of each, got shape "
            f"{x.shape}. For one feature pass x[:, None]."
        )
    if weights is not None and weights.shape != (x.shape[0],):
        raise ValueError(
            f"`weights` must have one value a row, shape ({x.shape[0]},), got "
            f"{weights.shape}. Pass None for equal weights."
        )


def _edge_levels() -> np.ndarray:
    """Quantile levels of the inner edges: equal mass, and geometric towards both ends."""
    num = _NUM_BINS - 1 - 2 * _NUM_TAIL_EDGES
    num_fine = num // 16
    fine = np.geomspace(1 / _EDGE_ROWS, 4 / num, num_fine)
    equal = np.linspace(0, 1, num - 2 * num_fine)
    return np.sort(np.concatenate([fine, equal, 1 - fine])).astype(np.float32)


def _sorted_subsample(x, weights, key):
    """Rows that place the edges, sorted per column, [d, s], and their weights or None."""
    n = x.shape[0]
    if n > _EDGE_ROWS:
        starts = np.arange(_EDGE_ROWS, dtype=np.int64) * n // _EDGE_ROWS
        within = jax.random.randint(key, (_EDGE_ROWS,), 0, n // _EDGE_ROWS)
        rows = jnp.asarray(starts, jnp.int32) + within
        x = x[rows]
        weights = None if weights is None else weights[rows]
    columns = x.T
    if weights is None:
        return jnp.sort(columns, axis=-1), None
    weights = jnp.broadcast_to(weights, columns.shape)
    return jax.lax.sort((columns, weights), dimension=-1, num_keys=1)


def _edges(x, weights, key) -> Array:
    """Ascending bin edges [d, M - 1]."""
    values, masses = _sorted_subsample(x, weights, key)
    levels = _edge_levels()
    if masses is None:
        rows = np.clip(np.ceil(levels * values.shape[-1]) - 1, 0, None)
        inner = values[:, rows.astype(np.int32)]
    else:
        inner = _at_level(values, masses, jnp.asarray(levels))
    # A value that fills more than one level gets a bin of its own.
    repeated = jnp.pad(inner[:, 1:] == inner[:, :-1], ((0, 0), (1, 0)))
    inner = jnp.where(repeated, jnp.nextafter(inner, jnp.inf), inner)
    low, high = inner[:, :1], inner[:, -1:]
    step = jnp.asarray(1e-2 * 2.0 ** np.arange(_NUM_TAIL_EDGES), jnp.float32)
    step = step * (high - low)
    return jnp.concatenate([low - step[:, ::-1], inner, high + step], axis=-1)


def _cumulative(masses: Array) -> Array:
    """Sums up to each entry along the last axis, as two triangular products.

    `jnp.cumsum` unrolls to a logarithmic tree, which took most of the compile time.
    """
    num, block = masses.shape[-1], 64
    pad = [(0, 0)] * (masses.ndim - 1) + [(0, -num % block)]
    blocks = jnp.pad(masses, pad).reshape(*masses.shape[:-1], -1, block)
    matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    within = matmul(blocks, np.triu(np.ones((block, block), np.float32)))
    before = np.triu(np.ones((blocks.shape[-2],) * 2, np.float32), 1)
    within = within + matmul(within[..., -1], before)[..., None]
    return within.reshape(*masses.shape[:-1], -1)[..., :num]


def _at_level(values: Array, masses: Array, levels: Array) -> Array:
    """Weighted quantiles: values, masses [d, M] sorted, levels [L] or [d, L]."""
    cumulative = _cumulative(masses)
    # Never 0: a leading entry without mass must not be chosen.
    levels = jnp.maximum(levels, 1e-7) * cumulative[:, -1:]
    method = "compare_all" if levels.shape[-1] <= 64 else "scan"
    search = functools.partial(jnp.searchsorted, method=method)
    rows = jnp.minimum(jax.vmap(search)(cumulative, levels), values.shape[-1] - 1)
    return jnp.take_along_axis(values, rows, axis=-1)


@jax.jit
def _sketch(x, weights, key) -> Sketch:
    n, d = x.shape
    x = x.astype(jnp.float32)
    if weights is not None:
        weights = weights.astype(jnp.float32)
        # A row of weight 0 may hold anything, NaN too.
        x = jnp.where(weights[:, None] > 0, x, 0)
    mass = jnp.ones((n,), jnp.float32) if weights is None else weights
    if n <= _NUM_BINS:
        points, masses = jax.lax.sort(
            (x.T, jnp.broadcast_to(mass, (d, n))), dimension=-1, num_keys=1
        )
        return Sketch(points, masses, jnp.zeros_like(points))
    edges = _edges(x, weights, key)
    bins = jax.vmap(
        functools.partial(jnp.searchsorted, side="right"), in_axes=(0, 1), out_axes=1
    )(edges, x)
    # Moments about a point of the bin, or the square would cancel in float32.
    references = jnp.concatenate([edges[:, :1], edges], axis=-1)
    flat = bins + jnp.arange(d) * _NUM_BINS
    offsets = x - references.ravel()[flat]
    mass = jnp.broadcast_to(mass[:, None], x.shape)
    updates = (mass, mass * offsets, mass * offsets**2)
    masses, first, second = (
        jnp.zeros((d * _NUM_BINS,)).at[flat].add(u).reshape(d, _NUM_BINS)
        for u in updates
    )
    safe = jnp.where(masses > 0, masses, 1)
    shift = first / safe
    variances = jnp.maximum(second / safe - shift**2, 0)
    return Sketch(references + shift, masses, variances)


def sketch(x: ArrayLike, weights: ArrayLike | None, key: PRNGKeyArray) -> Sketch:
    """Bins every column of x once, for any number of fits.

    Up to 2,048 rows are kept as they are. Beyond, the edges come from the quantiles of a
    subsample that `key` draws, and one pass over all rows sums mass, mean and variance; on
    rows sharded over devices the sums become an all-reduce and no row moves.

    Args:
      x: data, [n, d].
      weights: nonnegative weights of the rows, [n]; None for equal ones. Rows of weight 0
        have no influence, whatever they hold.
      key: random key.

    Returns:
      The sketch, arrays [d, M].
    """
    x = jnp.asarray(x)
    weights = None if weights is None else jnp.asarray(weights)
    _check(x, weights)
    return _sketch(x, weights, key)


class _Points(NamedTuple):
    """What EM reads: masses that sum to 1 per feature, and the smallest scale [d]."""

    points: Array
    masses: Array
    variances: Array
    min_scale: Array


class _Mixture(NamedTuple):
    """EM's parameters, each [K, d]."""

    log_weights: Array
    means: Array
    log_scales: Array


def _normal_cells(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of N(0, 1) in cells of equal mass: moments 1 and 2 are exact."""
    inner = [NormalDist().inv_cdf(i / num) for i in range(1, num)]
    density = np.array([0.0, *(NormalDist().pdf(e) for e in inner), 0.0])
    weighted = np.array([0.0, *inner, 0.0]) * density
    means = (density[:-1] - density[1:]) * num
    variances = 1 + (weighted[:-1] - weighted[1:]) * num - means**2
    return means.astype(np.float32), variances.astype(np.float32)


def _with_prior(data: Sketch, prior_weight: Array) -> Sketch:
    """Adds pseudo-observations of N(0, 1), in order; at weight inf, nothing else counts."""
    share = 1 - 1 / (1 + prior_weight)  # 1 at infinity
    total = jnp.sum(data.masses, axis=-1, keepdims=True)
    means, variances = _normal_cells(_NUM_PRIOR_POINTS)
    shape = (data.points.shape[0], _NUM_PRIOR_POINTS)
    joined = (
        jnp.concatenate([data.points, jnp.broadcast_to(means, shape)], axis=-1),
        jnp.concatenate(
            [
                data.masses * ((1 - share) / jnp.where(total > 0, total, 1)),
                jnp.broadcast_to(share / _NUM_PRIOR_POINTS, shape),
            ],
            axis=-1,
        ),
        jnp.concatenate([data.variances, jnp.broadcast_to(variances, shape)], axis=-1),
    )
    return Sketch(*jax.lax.sort(joined, dimension=-1, num_keys=1))


def _spread(data: Sketch) -> Array:
    """Standard deviation [d], without the outermost 0.1 % that outliers rule."""
    points, masses, variances = data
    bounds = _at_level(points, masses, jnp.array([1e-3, 1 - 1e-3]))
    inside = (points >= bounds[:, :1]) & (points <= bounds[:, 1:])
    masses = jnp.where(inside, masses, 0)
    total = jnp.sum(masses, axis=-1, keepdims=True)
    mean = jnp.sum(masses * points, axis=-1, keepdims=True) / total
    square = jnp.where(inside, (points - mean) ** 2 + variances, 0)
    spread = jnp.sqrt(jnp.sum(masses * square, axis=-1) / total[:, 0])
    # A constant column: any finite scale is a fit.
    return jnp.where(spread > 1e-6 * jnp.abs(mean[:, 0]), spread, 1.0)


def _coarsen(data: _Points) -> _Points:
    """Merges neighbouring bins; mass, mean and variance stay exact."""
    group = -(-data.points.shape[-1] // _COARSE_BINS)
    if group == 1:
        return data
    pad = -data.points.shape[-1] % group

    def grouped(a):
        return jnp.pad(a, ((0, 0), (0, pad))).reshape(a.shape[0], -1, group)

    points, masses, variances = (grouped(a) for a in data[:3])
    total = jnp.sum(masses, axis=-1, keepdims=True)
    share = masses / jnp.where(total > 0, total, 1)
    means = jnp.sum(share * points, axis=-1, keepdims=True)
    spread = jnp.sum(share * ((points - means) ** 2 + variances), axis=-1)
    return _Points(means[..., 0], total[..., 0], spread, data.min_scale)


def _em_step(
    mixture: _Mixture, data: _Points, family: str, anchor_weight: float
) -> tuple[_Mixture, Array]:
    """One EM step, and the mean log-likelihood [d] of the mixture that came in.

    Logistic components: the M-step minorises log sech² by a parabola in u, which weighs
    the rows by tanh(u/2)/u, so the likelihood still never falls.
    """
    scales = jnp.exp(mixture.log_scales)[..., None]
    u = (data.points - mixture.means[..., None]) / scales
    square = u * u + data.variances / (scales * scales)
    log_joint = (mixture.log_weights - mixture.log_scales)[..., None]
    if family == "gaussian":
        log_joint = log_joint - 0.5 * square - _LOG_SQRT_2PI
    else:
        a = jnp.sqrt(square)
        log_joint = log_joint - a - 2 * jnp.log1p(jnp.exp(-a))
    if anchor_weight > 0:
        log_joint = log_joint + math.log1p(-anchor_weight)
        anchor = math.log(anchor_weight) - _LOG_SQRT_2PI
        anchor = anchor - 0.5 * (data.points**2 + data.variances)
        top = jnp.maximum(jnp.max(log_joint, axis=0), anchor)
        joint = jnp.exp(log_joint - top)
        total = jnp.sum(joint, axis=0) + jnp.exp(anchor - top)
    else:
        top = jnp.max(log_joint, axis=0)
        joint = jnp.exp(log_joint - top)
        total = jnp.sum(joint, axis=0)
    log_likelihood = jnp.sum(data.masses * (top + jnp.log(total)), axis=-1)

    r = joint * (data.masses / total)
    mass = jnp.sum(r, axis=-1)
    if family == "gaussian":
        pull, pulled = r, mass
    else:
        pull = r * jnp.where(a > 1e-3, jnp.tanh(0.5 * a) / jnp.maximum(a, 1e-3), 0.5)
        pulled = jnp.sum(pull, axis=-1)
    # Moments about the old mean, in old scales: nothing large cancels.
    alive = mass > 1e-12
    shift = jnp.sum(pull * u, axis=-1) / jnp.where(alive, pulled, 1)
    second = jnp.sum(pull * square, axis=-1) - pulled * shift**2
    ratio = jnp.maximum(second, 0) / jnp.where(alive, mass, 1)
    scales = scales[..., 0]
    means = jnp.where(alive, mixture.means + scales * shift, mixture.means)
    new_scales = jnp.where(alive, scales * jnp.sqrt(ratio), scales)
    new_scales = jnp.maximum(new_scales, data.min_scale)
    weights = jnp.maximum(mass / jnp.sum(mass, axis=0), _MIN_WEIGHT)
    weights = weights / jnp.sum(weights, axis=0)
    return _Mixture(jnp.log(weights), means, jnp.log(new_scales)), log_likelihood


def _extrapolate(start, first, second, data: _Points) -> _Mixture:
    """The step of SQUAREM (Varadhan and Roland, 2008), one length per feature."""
    # Means in units of the feature, so that the three kinds of parameters compare.
    unit = jnp.log(data.min_scale / _MIN_SCALE)
    by = jnp.exp(-unit)

    def norm(tree):
        square = tree.log_weights**2 + (tree.means * by) ** 2 + tree.log_scales**2
        return jnp.sqrt(jnp.sum(square, axis=0))

    r = jax.tree.map(jnp.subtract, first, start)
    v = jax.tree.map(lambda c, b, dr: c - b - dr, second, first, r)
    length = jnp.clip(norm(r) / jnp.maximum(norm(v), 1e-12), 1.0, 256.0)
    # Steps as small as rounding would be extrapolated to noise.
    length = jnp.where(norm(r) > _SMALLEST_STEP, length, 1.0)
    out = jax.tree.map(
        lambda p, dr, dv: p + 2 * length * dr + length**2 * dv, start, r, v
    )
    log_weights = jnp.clip(jax.nn.log_softmax(out.log_weights, axis=0), -14.0)
    log_scales = jnp.clip(out.log_scales, jnp.log(data.min_scale), unit + 20)
    return _Mixture(jax.nn.log_softmax(log_weights, axis=0), out.means, log_scales)


def _run(mixture, data, num_cycles, family, anchor_weight):
    """`num_cycles` of three EM steps each, extrapolated where that raises the likelihood.

    Returns the mixture and the mean log-likelihood [d] one step before it.
    """
    step = functools.partial(
        _em_step, data=data, family=family, anchor_weight=anchor_weight
    )

    def where(condition, a, b):
        return jax.tree.map(functools.partial(jnp.where, condition), a, b)

    def phase_of_cycle(carry, phase):
        # One copy of the step to compile. `before` is the likelihood of the first step.
        current, start, previous, before = carry
        stepped, value = step(current)
        far = _extrapolate(start, previous, stepped, data)
        good = value >= before  # false for NaN too
        kept = where(good, stepped, previous)
        last = phase == 2
        current = where(phase == 0, stepped, where(last, kept, far))
        start = where(last, kept, start)
        before = jnp.where((phase == 1) | (last & good), value, before)
        return (current, start, where(last, kept, stepped), before), None

    before = jnp.full(mixture.means.shape[1:], -jnp.inf)
    phases = jnp.tile(jnp.arange(3), num_cycles)
    carry, _ = jax.lax.scan(phase_of_cycle, (mixture, mixture, mixture, before), phases)
    return carry[0], carry[3]


def _plus_plus(data: _Points, key, num_components: int) -> Array:
    """Means [K, d] drawn by squared distance (Arthur and Vassilvitskii, 2007)."""
    # Draws by inverse CDF: rows without mass do not change them.
    draws = jax.random.uniform(key, (num_components, data.points.shape[0], 1))

    def draw(nearest, level):
        mean = _at_level(data.points, data.masses * nearest, level)
        distance = (data.points - mean) ** 2 + 1e-12
        return jnp.minimum(nearest, distance), mean[:, 0]

    # The first is drawn by mass alone: every distance is capped by the same large one.
    far = jnp.full_like(data.points, 1e20)
    return jax.lax.scan(draw, far, draws)[1]


def _clusters(data: _Points, means: Array, num_steps: int = 10) -> _Mixture:
    """k-means from `means` [K, d], as a mixture: sharp where EM's start is smooth."""
    num_components = means.shape[0]
    labels = jnp.arange(num_components)[:, None, None]

    def moments(means):
        distance = (data.points - means[..., None]) ** 2
        own = jnp.argmin(distance, axis=0) == labels
        masses = jnp.where(own, data.masses, 0)
        mass = jnp.sum(masses, axis=-1)
        safe = jnp.where(mass > 0, mass, 1)
        shift = jnp.sum(masses * (data.points - means[..., None]), axis=-1) / safe
        square = jnp.sum(masses * (distance + data.variances), axis=-1) / safe
        return mass, means + shift, jnp.maximum(square - shift**2, 0)

    means, _ = jax.lax.scan(
        lambda m, _: (moments(m)[1], None), means, None, length=num_steps
    )
    mass, means, variances = moments(means)
    weights = jnp.maximum(mass, _MIN_WEIGHT)
    weights = weights / jnp.sum(weights, axis=0)
    scales = jnp.maximum(jnp.sqrt(variances), data.min_scale)
    return _Mixture(jnp.log(weights), means, jnp.log(scales))


def _spikes(data: _Points, num_components: int) -> _Mixture:
    """The heaviest values, sharp, beside one wide component: for columns of repeats."""
    points, masses = data.points, data.masses
    first = jax.vmap(jnp.searchsorted)(points, points)
    heavy = jax.vmap(lambda f, m: jnp.zeros_like(m).at[f].add(m))(first, masses)
    heavy, rows = jax.lax.top_k(heavy, num_components - 1)
    total = jnp.sum(masses, axis=-1, keepdims=True)
    center = jnp.sum(masses * points, axis=-1, keepdims=True) / total
    means = jnp.concatenate([jnp.take_along_axis(points, rows, -1), center], axis=-1)
    weights = jnp.concatenate([heavy, total - jnp.sum(heavy, -1, keepdims=True)], -1)
    weights = jnp.maximum(weights / total, 1e-2 / num_components)
    wide = jnp.log(data.min_scale / _MIN_SCALE)
    scales = jnp.broadcast_to(jnp.log(data.min_scale), (num_components, wide.shape[0]))
    return _Mixture(
        jnp.log(weights / jnp.sum(weights, axis=-1, keepdims=True)).T,
        means.T,
        scales.at[-1].set(wide),
    )


def _starts(data: _Points, key, num_components: int, family: str) -> _Mixture:
    """Several initial mixtures, each array [S, K, d]."""
    levels = (np.arange(num_components) + 0.5) / num_components
    outer = 0.5 - 0.5 * np.cos(np.pi * levels)  # pushed outwards: heavy tails
    wanted = np.concatenate([levels, outer, [0.005, 0.995]]).astype(np.float32)
    found = _at_level(data.points, data.masses, jnp.asarray(wanted)).T
    quantiles, tails = found[:num_components], found[num_components:-2]
    low, high = found[-2], found[-1]
    even = low + jnp.asarray(levels, jnp.float32)[:, None] * (high - low)
    keys = jax.random.split(key, 2)
    random = jax.vmap(lambda k: _plus_plus(data, k, num_components))(keys)
    means = jnp.stack([quantiles, even, tails])

    spread = data.min_scale / _MIN_SCALE
    if num_components > 1:
        gaps = jnp.diff(means, axis=1)
        gaps = jnp.pad(gaps, ((0, 0), (1, 1), (0, 0)), mode="edge")
        scales = 0.5 * (gaps[:, 1:] + gaps[:, :-1])
    else:
        scales = jnp.broadcast_to(spread, means.shape)
    scales = jnp.clip(scales, 1e-2 * spread, spread)
    # Means that coincide would stay together.
    jitter = np.linspace(-1e-2, 1e-2, num_components, dtype=np.float32)
    means = means + jitter[:, None] * spread
    log_weights = jnp.full(means.shape, -math.log(num_components), jnp.float32)
    smooth = _Mixture(log_weights, means, jnp.log(scales))
    sharp = jax.vmap(functools.partial(_clusters, data))(
        jnp.concatenate([quantiles[None], random])
    )
    spikes = jax.tree.map(lambda p: p[None], _spikes(data, num_components))
    starts = jax.tree.map(lambda *a: jnp.concatenate(a), smooth, sharp, spikes)
    if family == "logistic":
        log_scales = starts.log_scales + math.log(0.55)  # of a logistic of variance 1
        log_scales = jnp.maximum(log_scales, jnp.log(data.min_scale))
        starts = starts._replace(log_scales=log_scales)
    return starts


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _fit(data, prior_weight, key, num_components, family, anchor_weight, num_cycles):
    data = _with_prior(data, jnp.asarray(prior_weight, jnp.float32))
    data = _Points(*data, min_scale=_MIN_SCALE * _spread(data))
    starts = _starts(data, key, num_components, family)
    coarse = _coarsen(data)
    runs, values = jax.vmap(
        lambda start: _run(start, coarse, _SHORT_CYCLES, family, anchor_weight)
    )(starts)
    best = jnp.argmax(jnp.where(jnp.isnan(values), -jnp.inf, values), axis=0)
    mixture = jax.tree.map(
        lambda p: jnp.take_along_axis(p, best[None, None], axis=0)[0], runs
    )
    mixture, _ = _run(mixture, data, num_cycles, family, anchor_weight)
    return MixtureParams(*(p.T for p in mixture))


def fit_sketch(
    data: Sketch,
    *,
    num_components: int,
    key: PRNGKeyArray,
    family: str = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
    prior_weight: ArrayLike = 0.0,
    num_iterations: int = _NUM_CYCLES,
) -> MixtureParams:
    """`fit_mixtures` from a sketch; `prior_weight` may be traced or vmapped over."""
    check_options(num_components, family, anchor_weight)
    return _fit(
        data,
        prior_weight,
        key,
        int(num_components),
        family,
        float(anchor_weight),
        int(num_iterations),
    )


def fit_mixtures(
    x: ArrayLike,
    *,
    num_components: int,
    key: PRNGKeyArray,
    weights: ArrayLike | None = None,
    family: str = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
    prior_weight: ArrayLike = 0.0,
    num_iterations: int = _NUM_CYCLES,
) -> MixtureParams:
    """Fits one mixture to every column by EM, all columns at once.

    Maximises the weighted likelihood of ε N(0, 1) + (1 − ε) Σ_k w_k f_k over the K free
    components. Several starts run briefly, the best of each column to the end, by
    accelerated EM of a fixed length, so equal shapes reuse one compiled program.

    Args:
      x: data, [n, d]; may be sharded over rows.
      num_components: K.
      key: random key; the same key gives the same bits.
      weights: nonnegative weights of the rows, [n]. None: equal.
      family: "gaussian" or "logistic" components.
      anchor_weight: ε in [0, 1), the weight of the fixed N(0, 1) component.
      prior_weight: shrinkage to the identity, as pseudo-observations from N(0, 1) of this
        many times the data's mass. inf: nothing else.
      num_iterations: accelerated EM cycles, three steps each, of the last run.

    Returns:
      MixtureParams, each [d, K].

    Example:
      >>> import jax
      >>> x = jax.random.normal(jax.random.key(0), (1000, 2))
      >>> fit_mixtures(x, num_components=3, key=jax.random.key(1)).means.shape
      (2, 3)
    """
    check_options(num_components, family, anchor_weight)
    edge_key, start_key = jax.random.split(key)
    return fit_sketch(
        sketch(x, weights, edge_key),
        num_components=num_components,
        key=start_key,
        family=family,
        anchor_weight=anchor_weight,
        prior_weight=prior_weight,
        num_iterations=num_iterations,
    )


def fit_mixtures_sklearn(
    x: ArrayLike,
    *,
    num_components: int,
    key: PRNGKeyArray,
    weights: ArrayLike | None = None,
    family: str = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> MixtureParams:
    """The reference for `fit_mixtures`: scikit-learn's GaussianMixture, column by column.

    The anchor is ignored in the fit; arguments and result as `fit_mixtures`.
    """
    check_options(num_components, family, anchor_weight)
    if weights is not None:
        raise ValueError(
            "`weights` must be None with scikit-learn, whose GaussianMixture takes no "
            'weights, got an array. Use backend="jax".'
        )
    if family != "gaussian":
        raise ValueError(
            '`family` must be "gaussian" with scikit-learn, which fits no other, got '
            f'{family!r}. Use backend="jax".'
        )
    from sklearn.mixture import GaussianMixture  # the only user of scikit-learn

    columns = np.asarray(x, np.float64)
    _check(columns, None)
    seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
    fits = [
        GaussianMixture(
            num_components,
            tol=1e-6,
            max_iter=500,
            reg_covar=_MIN_SCALE**2,
            random_state=seed,
        ).fit(columns[:, [j]])
        for j in range(columns.shape[1])
    ]

    def stacked(values):
        return jnp.asarray(np.stack(values), jnp.float32)

    return MixtureParams(
        stacked([np.log(np.maximum(f.weights_, _MIN_WEIGHT)) for f in fits]),
        stacked([f.means_[:, 0] for f in fits]),
        stacked([0.5 * np.log(f.covariances_[:, 0, 0]) for f in fits]),
    )
