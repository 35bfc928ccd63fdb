"""Where expectation-maximisation starts: smooth, clustered and spiky mixtures.

In NumPy on the host: some thousand bins are read once, which compiling would take far
longer for. Columns are sorted, so that clusters are intervals and sums differences.
"""

import math

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from rbig_nnx.fit.em import MIN_SCALE, MIN_WEIGHT, Mixture, Points
from rbig_nnx.fit.sample import generator
from rbig_nnx.fit.sketch import at_level, search
from rbig_nnx.math.params import MixtureParams

_NUM_RANDOM = 2  # starts whose means are drawn
_NUM_STEPS = 11  # of k-means
_NUM_STARTS = 5 + _NUM_RANDOM


def _plus_plus(data: Points, draws: Float[np.ndarray, "K d"]) -> np.ndarray:
    """Means [K, d] drawn by squared distance (Arthur and Vassilvitskii, 2007)."""
    # Draws by inverse CDF: rows without mass do not change them. The first is drawn by mass
    # alone: every distance is capped by the same large one.
    nearest, means = np.full_like(data.points, 1e20), []
    for level in draws:
        mean = at_level(data.points, data.masses * nearest, level[:, None])
        nearest = np.minimum(nearest, (data.points - mean) ** 2 + 1e-12)
        means.append(mean[:, 0])
    return np.stack(means)


def _clusters(data: Points, means: Float[np.ndarray, "K d"]) -> Mixture:
    """k-means from `means`, as a mixture: sharp where EM's start is smooth."""
    values = np.stack(
        [
            data.masses,
            data.masses * data.points,
            data.masses * (data.points**2 + data.variances),
        ]
    )
    sums = np.pad(np.cumsum(values, axis=-1), ((0, 0), (0, 0), (1, 0)))
    means = np.sort(means.T)
    for _ in range(_NUM_STEPS):
        between = search(data.points, 0.5 * (means[:, 1:] + means[:, :-1]), "right")
        ends = np.pad(between, ((0, 0), (1, 1)))
        ends[:, -1] = data.points.shape[-1]
        within = np.diff(np.take_along_axis(sums, ends[None], axis=-1), axis=-1)
        mass, first, second = within
        safe = np.where(mass > 0, mass, 1)
        means = np.where(mass > 0, first / safe, means)
    variances = np.where(mass > 0, np.maximum(second / safe - means**2, 0), 0)
    weights = np.maximum(mass, MIN_WEIGHT)
    weights = weights / np.sum(weights, axis=-1, keepdims=True)
    scales = np.maximum(np.sqrt(variances), data.min_scale[:, None])
    return Mixture(np.log(weights).T, means.T, np.log(scales).T)


def _spikes(data: Points, num_components: int) -> Mixture:
    """The heaviest values, sharp, beside one wide component: for columns of repeats."""
    points, masses = data.points, data.masses
    d, num = points.shape
    first = search(points, points, "left") + num * np.arange(d)[:, None]
    heavy = np.bincount(first.ravel(), masses.ravel(), d * num).reshape(d, num)
    rows = np.argsort(-heavy, axis=-1, kind="stable")[:, : num_components - 1]
    heavy = np.take_along_axis(heavy, rows, axis=-1)
    total = np.sum(masses, axis=-1, keepdims=True)
    center = np.sum(masses * points, axis=-1, keepdims=True) / total
    means = np.concatenate([np.take_along_axis(points, rows, -1), center], axis=-1)
    rest = total - np.sum(heavy, axis=-1, keepdims=True)
    weights = np.concatenate([heavy, rest], axis=-1) / total
    weights = np.maximum(weights, 1e-2 / num_components)
    weights = weights / np.sum(weights, axis=-1, keepdims=True)
    scales = np.repeat(data.min_scale[None], num_components, axis=0)
    scales[-1] = data.min_scale / MIN_SCALE
    return Mixture(np.log(weights).T, means.T, np.log(scales))


def starts(
    data: Points, key: PRNGKeyArray, num_components: int, family: str
) -> Mixture:
    """Several initial mixtures, each array [S, K, d] in float32.

    Args:
      data: on the host.
      key: of the starts that are drawn.
      num_components: K.
      family: "gaussian" or "logistic".
    """
    levels = (np.arange(num_components) + 0.5) / num_components
    outer = 0.5 - 0.5 * np.cos(np.pi * levels)  # pushed outwards: heavy tails
    wanted = np.concatenate([levels, outer, [0.005, 0.995]])[None]
    found = at_level(data.points, data.masses, wanted).T
    quantiles, tails = found[:num_components], found[num_components:-2]
    low, high = found[-2], found[-1]
    even = low + levels[:, None] * (high - low)
    draws = generator(key).random((_NUM_RANDOM, num_components, len(data.points)))
    random = [_plus_plus(data, levels) for levels in draws]
    means = np.stack([quantiles, even, tails])

    spread = data.min_scale / MIN_SCALE
    if num_components > 1:
        gaps = np.diff(means, axis=1)
        gaps = np.pad(gaps, ((0, 0), (1, 1), (0, 0)), mode="edge")
        scales = 0.5 * (gaps[:, 1:] + gaps[:, :-1])
    else:
        scales = np.broadcast_to(spread, means.shape)
    scales = np.clip(scales, 1e-2 * spread, spread)
    # Means that coincide would stay together.
    jitter = np.linspace(-1e-2, 1e-2, num_components)
    means = means + jitter[:, None] * spread
    log_weights = np.full(means.shape, -math.log(num_components))
    every = [Mixture(*s) for s in zip(log_weights, means, np.log(scales), strict=True)]
    every += [_clusters(data, m) for m in (quantiles, *random)]
    every.append(_spikes(data, num_components))
    stacked = Mixture(*(np.stack(p) for p in zip(*every, strict=True)))
    if family == "logistic":
        log_scales = stacked.log_scales + math.log(0.55)  # of a logistic of variance 1
        log_scales = np.maximum(log_scales, np.log(data.min_scale))
        stacked = stacked._replace(log_scales=log_scales)
    return Mixture(*(p.astype(np.float32) for p in stacked))


def as_starts(params: MixtureParams) -> Mixture:
    """A fit, [d, K] each, in the form of `starts`, all of them alike."""
    every = (
        np.broadcast_to(np.asarray(p).T, (_NUM_STARTS, *p.T.shape)) for p in params
    )
    return Mixture(*every)
