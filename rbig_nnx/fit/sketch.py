"""A column of any length as some thousand bins: what mixtures are fitted to.

The rows are read once, into bins that keep mass, mean and variance; a fit then costs the
same for ten thousand rows and for ten million.
"""

import functools
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, PRNGKeyArray

from rbig_nnx.fit.sample import everywhere, on_host, sample_rows
from rbig_nnx.math.arrays import Numbers, float_array
from rbig_nnx.math.sums import in_float64

_NUM_BINS = 1_280  # bins of a sketch
_NUM_TAIL_EDGES = 24  # of them on each side, for the rows beyond the subsample's range
_EDGE_ROWS = 16_384  # rows that place the edges
_NUM_PRIOR_POINTS = 128


class Sketch(NamedTuple):
    """Binned columns, each array [d, M]: bins in ascending order, empty ones of mass 0."""

    points: Float[np.ndarray, "d m"]
    masses: Float[np.ndarray, "d m"]
    variances: Float[np.ndarray, "d m"]


def check_columns(x: Array | np.ndarray, weights: Array | None) -> None:
    """Raises ValueError unless x is [n, d] and the weights are [n] or None."""
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


def _edges(sample: np.ndarray) -> np.ndarray:
    """Ascending bin edges [d, M - 1] from some of the rows."""
    values = np.sort(sample.T.astype(np.float32), axis=-1)
    at = np.clip(np.ceil(_edge_levels() * values.shape[-1]) - 1, 0, None)
    inner = values[:, at.astype(np.int32)]
    # A value that fills more than one level gets a bin of its own.
    repeated = np.pad(inner[:, 1:] == inner[:, :-1], ((0, 0), (1, 0)))
    inner = np.where(repeated, np.nextafter(inner, np.float32(np.inf)), inner)
    low, high = inner[:, :1], inner[:, -1:]
    step = (1e-2 * 2.0 ** np.arange(_NUM_TAIL_EDGES)).astype(np.float32)
    step = step * (high - low)
    return np.concatenate([low - step[:, ::-1], inner, high + step], axis=-1)


def _unbinned(x: np.ndarray, weights: np.ndarray | None) -> Sketch:
    """Few rows, each a bin."""
    mass = np.ones(len(x)) if weights is None else weights
    # A row of weight 0 may hold anything, NaN too.
    points = np.where(mass[:, None] > 0, x, 0).T
    order = np.argsort(points, axis=-1, kind="stable")
    points = np.take_along_axis(points, order, axis=-1)
    return Sketch(points, mass[order], np.zeros_like(points))


def _bin(x: Array, weights: Array | None, edges: Array) -> Sketch:
    n, d = x.shape
    x = x.astype(jnp.float32)
    mass = jnp.ones((n,), jnp.float32)
    if weights is not None:
        mass = weights.astype(jnp.float32)
        x = jnp.where(mass[:, None] > 0, x, 0)  # see `_unbinned`
    bins = jax.vmap(
        functools.partial(jnp.searchsorted, side="right"), in_axes=(0, 1), out_axes=1
    )(edges, x)
    # Moments about a point of the bin, or the square would cancel in float32.
    references = jnp.concatenate([edges[:, :1], edges], axis=-1)
    flat = bins + jnp.arange(d) * _NUM_BINS
    offsets = x - references.ravel()[flat]
    mass = jnp.broadcast_to(mass[:, None], x.shape)

    def binned(*updates):
        empty = jnp.zeros((d * _NUM_BINS,), updates[0].dtype)
        return tuple(empty.at[flat].add(u).reshape(d, _NUM_BINS) for u in updates)

    masses, first, second = in_float64(binned, mass, mass * offsets, mass * offsets**2)
    safe = jnp.where(masses > 0, masses, 1)
    shift = first / safe
    variances = jnp.maximum(second / safe - shift**2, 0)
    return Sketch(references + shift, masses, variances)


@functools.cache
def _binner(sharding: NamedSharding | None) -> Any:
    """`_bin`, compiled: whole bins on every device of rows that are sharded."""
    return jax.jit(_bin, out_shardings=sharding)


def sketch(x: Numbers, weights: Numbers | None, key: PRNGKeyArray) -> Sketch:
    """Bins every column of x once, for any number of fits.

    Up to 1,280 rows are kept as they are. Beyond, the edges come from the quantiles of a
    subsample that `key` draws, and one pass over all rows sums mass, mean and variance; on
    rows sharded over devices the sums become an all-reduce and no row moves.

    Args:
      x: data, [n, d].
      weights: nonnegative weights of the rows, [n]; None for equal ones. Rows of weight 0
        have no influence, whatever they hold.
      key: random key.

    Returns:
      The sketch on the host, arrays [d, M] in float64.
    """
    x = float_array(x, "x")
    if weights is not None:
        weights = float_array(weights, "weights", entry="row")
    check_columns(x, weights)
    if len(x) <= _NUM_BINS:
        bins = _unbinned(on_host(x), None if weights is None else on_host(weights))
    else:
        edges = _edges(sample_rows(x, weights, key, _EDGE_ROWS))
        bins = _binner(everywhere(x))(x, weights, edges)
    return Sketch(*(np.asarray(a, np.float64) for a in bins))


def _normal_cells(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of N(0, 1) in cells of equal mass: moments 1 and 2 are exact."""
    inner = [NormalDist().inv_cdf(i / num) for i in range(1, num)]
    density = np.array([0.0, *(NormalDist().pdf(e) for e in inner), 0.0])
    weighted = np.array([0.0, *inner, 0.0]) * density
    means = (density[:-1] - density[1:]) * num
    variances = 1 + (weighted[:-1] - weighted[1:]) * num - means**2
    return means, variances


def gaussian(data: Sketch, num_rows: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of the Gaussian of each column, [d] each.

    0 and 1 where all rows together gain no more than a nat by others, which is what two
    parameters gain on rows of N(0, 1) by chance.
    """
    total = np.sum(data.masses, axis=-1)
    share = data.masses / total[:, None]
    mean = np.sum(share * data.points, axis=-1)
    square = np.sum(share * ((data.points - mean[:, None]) ** 2 + data.variances), -1)
    scale = np.where(square > 1e-12 * (1 + mean**2), np.sqrt(square), 1.0)
    gain = 0.5 * (scale**2 + mean**2 - 1) - np.log(scale)
    pays = num_rows * gain > 1
    return np.where(pays, mean, 0.0), np.where(pays, scale, 1.0)


def with_prior(
    data: Sketch,
    prior_weight: float,
    base: tuple[np.ndarray, np.ndarray] | None = None,
) -> Sketch:
    """Adds pseudo-observations, in order; at weight inf, nothing else counts.

    Of N(0, 1), or of each column's Gaussian of this mean and scale.
    """
    share = 1 - 1 / (1 + prior_weight)  # 1 at infinity
    total = np.sum(data.masses, axis=-1, keepdims=True)
    means, variances = _normal_cells(_NUM_PRIOR_POINTS)
    shape = (data.points.shape[0], _NUM_PRIOR_POINTS)
    mean, scale = (0.0, 1.0) if base is None else (b[:, None] for b in base)
    means, variances = mean + scale * means, scale**2 * variances
    own = data.masses * ((1 - share) / np.where(total > 0, total, 1))
    points = np.concatenate([data.points, np.broadcast_to(means, shape)], axis=-1)
    masses = np.concatenate([own, np.full(shape, share / _NUM_PRIOR_POINTS)], axis=-1)
    variances = np.concatenate(
        [data.variances, np.broadcast_to(variances, shape)], axis=-1
    )
    order = np.argsort(points, axis=-1, kind="stable")
    joined = points, masses, variances
    return Sketch(*(np.take_along_axis(a, order, axis=-1) for a in joined))


def search(columns: np.ndarray, values: np.ndarray, side: str) -> np.ndarray:
    """`np.searchsorted` for each of d sorted columns [d, M], values [d, L]."""
    return np.stack(
        [np.searchsorted(c, v, side) for c, v in zip(columns, values, strict=True)]
    )


def at_level(values: np.ndarray, masses: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Weighted quantiles: values, masses [d, M] sorted, levels [d, L] or [1, L]."""
    cumulative = np.cumsum(masses, axis=-1)
    # Never 0: a leading entry without mass must not be chosen.
    levels = np.maximum(levels, 1e-7) * cumulative[:, -1:]
    rows = np.minimum(search(cumulative, levels, "left"), values.shape[-1] - 1)
    return np.take_along_axis(values, rows, axis=-1)


def spread(data: Sketch) -> np.ndarray:
    """Standard deviation [d], without the outermost 0.1 % that outliers rule."""
    points, masses, variances = data
    bounds = at_level(points, masses, np.array([[1e-3, 1 - 1e-3]]))
    inside = (points >= bounds[:, :1]) & (points <= bounds[:, 1:])
    masses = np.where(inside, masses, 0)
    total = np.sum(masses, axis=-1, keepdims=True)
    mean = np.sum(masses * points, axis=-1, keepdims=True) / total
    square = np.where(inside, (points - mean) ** 2 + variances, 0)
    value = np.sqrt(np.sum(masses * square, axis=-1) / total[:, 0])
    # A constant column: any finite scale is a fit.
    return np.where(value > 1e-6 * np.abs(mean[:, 0]), value, 1.0)
