"""Location, scale and tail indices of every column by maximum likelihood.

The density of a column is that of a normal z mapped by `rbig_nnx.math.tails.columns`. In
NumPy on the host, on a sketch: four numbers a column are found by Levenberg's steps on the
scores' outer products (Berndt, Hall, Hall and Hausman, Estimation and inference in nonlinear
structural models, 1974), which are positive whatever the start is.

Tail indices of few rows are noise: their law over the columns and sides is estimated with
them, and they shrink to its mean as far as their errors explain that they differ.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from rbig_nnx.fit.sample import generator, on_host, row_numbers
from rbig_nnx.fit.sketch import at_level, sketch
from rbig_nnx.math.probit import LOG_SQRT_2PI
from rbig_nnx.math.tails.columns import TailParams

_LEAST_INDEX, _LARGEST_INDEX = 1e-3, 4.0
_MIN_SCALE = 0.02  # of the interquartile range
_MIN_SCALE_OF_HEAPS = 0.2  # where many rows have one value: the likelihood has no bound
_NUM_TRIAL_STEPS, _NUM_STEPS = 12, 60
_NUM_FOLD_STEPS = 5  # from the fit to all rows
_LEAST_SPREAD = 0.01  # of tail indices
_ENOUGH = 1e-7  # nats by which no column gains any more

_NUM_FOLDS = 5
_JUDGES = 2_048  # rows, at most, that judge in turn
_STANDARD_ERRORS = 1.0  # by which a column must gain
_LEAST_GAIN = 0.005  # nats a row
_MOST = 10.0  # nats that a row's gain or loss counts


class _Prior(NamedTuple):
    """A normal law of the tail indices: mean, and precision for a row."""

    mean: float = 0.0
    precision: float = 0.0


_NO_PRIOR = _Prior()


class _Columns(NamedTuple):
    """Points and their shares of the mass, [p, M], and the least log scales, [p]."""

    points: np.ndarray
    shares: np.ndarray
    log_floor: np.ndarray

    @classmethod
    def of(cls, points, masses, log_floor) -> "_Columns":
        return cls(points, masses / np.sum(masses, axis=-1, keepdims=True), log_floor)

    def at(self, places) -> "_Columns":
        return _Columns(*(a[places] for a in self))


def fit_tails(
    x: Float[Array, "n d"],
    weights: Float[Array, " n"],
    key: PRNGKeyArray,
    *,
    judged: bool = True,
) -> tuple[TailParams, Bool[np.ndarray, " d"]]:
    """Parameters of `math.tails.columns.lighten` for every column, and where they are worth it.

    A column is worth it where its rows gain on a normal density by 0.005 nats and by more
    than a standard error of the paired difference, by itself or, where columns gain alike,
    together. Each row judges fits to other rows (five folds of up to 2,048 rows). All else is
    the identity.

    Args:
      x: rows, [n, d], standardised or not.
      weights: nonnegative weights, [n].
      key: random key of the sketch and the folds.
      judged: False to keep every fit, as it maximises the likelihood.

    Returns:
      Parameters, [d] each, and which columns have other than the identity's, [d].

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.fit.tails.columns import fit_tails
      >>> key = jax.random.key(0)
      >>> columns = [jax.random.cauchy(key, (2_000,)), jax.random.normal(key, (2_000,))]
      >>> x = jnp.stack(columns, axis=1)
      >>> params, kept = fit_tails(x, jnp.ones(2_000), key)
      >>> print(kept, params.right.round(1))
      [ True False] [1.2 0. ]
    """
    points, masses, _ = sketch(x, weights, key)
    starts, log_floor = _starts(points, masses)
    columns = _Columns.of(points, masses, log_floor)
    trials = [_maximise(columns, start, _NUM_TRIAL_STEPS) for start in starts]
    best = np.argmax([value for _, value in trials], axis=0)
    start = np.stack([theta for theta, _ in trials])[best, np.arange(len(best))]
    fitted, _ = _maximise(columns, start, _NUM_STEPS)
    kept = np.ones(x.shape[1], bool)
    if judged:
        counts = on_host(weights).astype(np.float64)
        prior = _alike(columns, fitted, np.sum(counts) ** 2 / np.sum(counts**2))
        fitted, _ = _maximise(columns, fitted, _NUM_STEPS, prior)
        kept = _worth_it(x, counts, key, fitted, log_floor, prior)
    return _params(np.where(kept[:, None], fitted, _IDENTITY)), kept


_IDENTITY = np.array([0.0, 0.0, -np.inf, -np.inf])


def _params(theta: np.ndarray) -> TailParams:
    indices = np.exp(theta[:, 2:])
    # At the bound it stands for none.
    left, right = np.where(indices > 1.01 * _LEAST_INDEX, indices, 0).T
    location, log_scale = theta[:, :2].T
    return TailParams(location, log_scale, left, right)


def _starts(points: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts, [4, d, 4], and the logarithm of the least scale of each column."""
    levels = np.linspace(0.05, 0.95, 19)[None]
    quantiles = at_level(points, masses, levels).T
    q05, q10, q25, q50, q75, q90, q95 = quantiles[[0, 1, 4, 9, 14, 17, 18]]
    width = q75 - q25
    for wider in (q90 - q10, q95 - q05, points[:, -1] - points[:, 0], 1.0):
        width = np.where(width > 0, width, wider)
    heaps = np.any(quantiles[1:] == quantiles[:-1], axis=0)
    floor = np.where(heaps, _MIN_SCALE_OF_HEAPS, _MIN_SCALE) * width

    def start(location, scale, left, right):
        scale = np.maximum(scale, floor)
        every = location, np.log(scale), np.log(left), np.log(right)
        return np.stack(np.broadcast_arrays(*every), axis=-1)

    starts = [
        start(q50, width / 1.35, 0.05, 0.05),
        start(q50, width / 2, 1.0, 1.0),
        start(q10, q25 - q10, 0.1, 2.0),
        start(q90, q90 - q75, 2.0, 0.1),
    ]
    return np.stack(starts), np.log(floor)


def _at(points: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log densities [p, M]; scores in location / scale, log scale and log indices [p, 4, M]."""
    location, log_scale, log_left, log_right = theta.T[..., None]
    t = (points - location) * np.exp(-log_scale)
    left = t < 0
    index = np.where(left, np.exp(log_left), np.exp(log_right))
    u = np.maximum(index * t * t, 1e-12)
    v = np.log1p(u)
    share = u / (1 + u)  # 1 − exp(−v)
    c = np.where(v < 1e-4, 0.5 + v / 12, 1 / share - 1 / v)
    square = v / index
    root = np.sqrt(v / u)
    slope = 1 / (root * (1 + u))
    log_density = np.log(slope) - 0.5 * square - log_scale - LOG_SQRT_2PI
    by_t = -t * root * slope * (1 + index * (2 - c))
    by_log_index = (0.5 * c * (1 + square) - 1) * share
    of_left = np.where(left, by_log_index, 0)
    scores = -by_t, -t * by_t - 1, of_left, by_log_index - of_left
    return log_density, np.stack(scores, axis=1)


def _climbable(
    columns: _Columns, theta: np.ndarray, prior: _Prior
) -> tuple[np.ndarray, ...]:
    """Mean log density [p], its gradient [p, 4] and an estimate of minus its Hessian [p, 4, 4].

    Of the posterior, up to a constant.
    """
    log_density, scores = _at(columns.points, theta)
    weighted = columns.shares[:, None] * scores
    outer = weighted @ np.swapaxes(scores, 1, 2)
    value = np.sum(columns.shares * log_density, axis=-1)
    gradient = np.sum(weighted, axis=-1)
    indices = np.exp(theta[:, 2:])
    lag = prior.mean - indices
    gradient[:, 2:] += prior.precision * lag * indices
    np.einsum("pii->pi", outer)[:, 2:] += prior.precision * indices**2
    return value - 0.5 * prior.precision * np.sum(lag**2, axis=-1), gradient, outer


def _maximise(
    columns: _Columns, theta: np.ndarray, num_steps: int, prior: _Prior = _NO_PRIOR
) -> tuple[np.ndarray, np.ndarray]:
    """Climbs from theta [p, 4]; returns where to, and the mean log densities [p]."""
    theta = theta.copy()
    value, gradient, outer = _climbable(columns, theta, prior)
    damping = np.full(len(theta), 1e-2)
    moving = np.arange(len(theta))
    for _ in range(num_steps):
        part = columns.at(moving)
        trial = _step(theta[moving], gradient[moving], outer[moving], damping[moving])
        trial[:, 1] = np.maximum(trial[:, 1], part.log_floor)
        found = _climbable(part, trial, prior)
        gain = found[0] - value[moving]
        better = moving[gain > 0]
        for old, new in zip(
            (theta, value, gradient, outer), (trial, *found), strict=True
        ):
            old[better] = new[gain > 0]
        damping[moving] *= np.where(gain > 0, 0.25, 8)
        rests = (np.abs(gain) < _ENOUGH) | (damping[moving] > 1e6)
        moving = moving[~rests]
        if not len(moving):
            break
    return theta, value


def _step(theta, gradient, outer, damping) -> np.ndarray:
    scaled = outer.copy()
    np.einsum("pii->pi", scaled)[:] *= 1 + damping[:, None]
    np.einsum("pii->pi", scaled)[:] += 1e-12
    step = np.clip(np.linalg.solve(scaled, gradient[..., None])[..., 0], -1, 1)
    step[:, 0] *= np.exp(theta[:, 1])
    trial = theta + step
    trial[:, 2:] = np.clip(trial[:, 2:], *np.log([_LEAST_INDEX, _LARGEST_INDEX]))
    return trial


def _pooled(estimates: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of the estimates in their common mean, and the variance between them.

    DerSimonian and Laird, Meta-analysis in clinical trials, 1986: what the estimates differ
    by, beyond what their errors explain.
    """
    weights = 1 / variances
    total = np.sum(weights)
    spread = np.sum(weights * (estimates - np.sum(weights * estimates) / total) ** 2)
    least = total - np.sum(weights**2) / total
    between = max(0.0, (spread - (estimates.size - 1)) / least) if least > 0 else 0.0
    weights = 1 / (variances + between)
    return weights / np.sum(weights), between


def _alike(columns: _Columns, fitted: np.ndarray, num_rows: float) -> _Prior:
    """The law of the tail indices of all columns and sides, as far as rows tell them apart."""
    _, _, information = _climbable(columns, fitted, _NO_PRIOR)
    errors = np.linalg.inv(information + 1e-12 * np.eye(4)) / num_rows
    indices = np.exp(fitted[:, 2:])
    variances = np.einsum("pii->pi", errors)[:, 2:] * indices**2
    weights, between = _pooled(indices, variances)
    variance = max(between, _LEAST_SPREAD**2)
    return _Prior(float(np.sum(weights * indices)), 1 / (variance * num_rows))


def _moments(points: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shares = masses / np.sum(masses)
    mean = (points @ shares)[:, None]
    return mean, np.sqrt(np.square(points - mean) @ shares)[:, None]


def _worth_it(x, weights, key, fitted, log_floor, prior) -> np.ndarray:
    """Where rows gain on N(0, 1) under fits to other rows, [d]."""
    rng = generator(key)
    (rows,) = np.nonzero(weights > 0)
    if len(rows) > _JUDGES:
        rows = rows[row_numbers(rng, len(rows), _JUDGES)]
    if len(rows) < 2 * _NUM_FOLDS:
        return np.zeros(x.shape[1], bool)
    points, masses = on_host(x)[rows].T.astype(np.float64), weights[rows]
    folds = rng.permutation(len(rows)) % _NUM_FOLDS
    gains = np.empty_like(points)
    mean, scale = _moments(points, masses)
    for fold in range(_NUM_FOLDS):
        others = np.where(folds == fold, 0, masses)
        columns = _Columns.of(points, np.tile(others, (len(points), 1)), log_floor)
        theta, _ = _maximise(columns, fitted, _NUM_FOLD_STEPS, prior)
        judging = points[:, folds == fold]
        # Its mean and scale, too, are not of the rows that judge.
        known, known_scale = _moments(points, others)
        plain = (judging - known + mean) * (scale / known_scale)
        log_normal = np.log(scale / known_scale) - 0.5 * plain**2 - LOG_SQRT_2PI
        gains[:, folds == fold] = _at(judging, theta)[0] - log_normal
    # No single row decides: one that nobody foresaw costs any number of nats.
    gains = np.clip(gains, -_MOST, _MOST)
    shares = masses / np.sum(masses)
    mean = np.sum(shares * gains, axis=-1)
    noise = np.square(shares * (gains - mean[:, None]))
    variance = np.maximum(np.sum(noise, axis=-1), 1e-12)
    # Each by itself; or, where columns gain alike, by what they gain together.
    pool, between = _pooled(mean, variance)
    common = np.sum(pool * mean)
    own = between / (between + variance)
    likely = common + own * (mean - common)
    together = np.sum(np.square(shares * (pool @ gains - common)))
    likely_error = np.sqrt(own * variance + (1 - own) ** 2 * together)
    error = np.sqrt(variance)
    alone = mean > np.maximum(_STANDARD_ERRORS * error, _LEAST_GAIN)
    alike = likely > np.maximum(_STANDARD_ERRORS * likely_error, _LEAST_GAIN)
    return alone | (alike & (mean > -_STANDARD_ERRORS * error))
