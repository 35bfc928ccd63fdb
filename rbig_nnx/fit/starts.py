"""Where expectation-maximisation starts: smooth, clustered and spiky mixtures."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rbig_nnx.fit.em import MIN_SCALE, MIN_WEIGHT, Mixture, Points
from rbig_nnx.fit.sketch import at_level


def _plus_plus(data: Points, key, num_components: int) -> Array:
    """Means [K, d] drawn by squared distance (Arthur and Vassilvitskii, 2007)."""
    # Draws by inverse CDF: rows without mass do not change them.
    draws = jax.random.uniform(key, (num_components, data.points.shape[0], 1))

    def draw(nearest, level):
        mean = at_level(data.points, data.masses * nearest, level)
        distance = (data.points - mean) ** 2 + 1e-12
        return jnp.minimum(nearest, distance), mean[:, 0]

    # The first is drawn by mass alone: every distance is capped by the same large one.
    far = jnp.full_like(data.points, 1e20)
    return jax.lax.scan(draw, far, draws)[1]


def _clusters(data: Points, means: Array, num_steps: int = 11) -> Mixture:
    """k-means from `means` [K, d], as a mixture: sharp where EM's start is smooth."""
    num_components = means.shape[0]
    labels = jnp.arange(num_components)[:, None, None]

    def moments(carry, _):
        means = carry[1]
        distance = (data.points - means[..., None]) ** 2
        own = jnp.argmin(distance, axis=0) == labels
        masses = jnp.where(own, data.masses, 0)
        mass = jnp.sum(masses, axis=-1)
        safe = jnp.where(mass > 0, mass, 1)
        shift = jnp.sum(masses * (data.points - means[..., None]), axis=-1) / safe
        square = jnp.sum(masses * (distance + data.variances), axis=-1) / safe
        return (mass, means + shift, jnp.maximum(square - shift**2, 0)), None

    start = jnp.zeros_like(means), means, jnp.zeros_like(means)
    (mass, means, variances), _ = jax.lax.scan(moments, start, length=num_steps)
    weights = jnp.maximum(mass, MIN_WEIGHT)
    weights = weights / jnp.sum(weights, axis=0)
    scales = jnp.maximum(jnp.sqrt(variances), data.min_scale)
    return Mixture(jnp.log(weights), means, jnp.log(scales))


def _spikes(data: Points, num_components: int) -> Mixture:
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
    wide = jnp.log(data.min_scale / MIN_SCALE)
    scales = jnp.broadcast_to(jnp.log(data.min_scale), (num_components, wide.shape[0]))
    return Mixture(
        jnp.log(weights / jnp.sum(weights, axis=-1, keepdims=True)).T,
        means.T,
        scales.at[-1].set(wide),
    )


def starts(data: Points, key, num_components: int, family: str) -> Mixture:
    """Several initial mixtures, each array [S, K, d]."""
    levels = (np.arange(num_components) + 0.5) / num_components
    outer = 0.5 - 0.5 * np.cos(np.pi * levels)  # pushed outwards: heavy tails
    wanted = np.concatenate([levels, outer, [0.005, 0.995]]).astype(np.float32)
    found = at_level(data.points, data.masses, jnp.asarray(wanted)).T
    quantiles, tails = found[:num_components], found[num_components:-2]
    low, high = found[-2], found[-1]
    even = low + jnp.asarray(levels, jnp.float32)[:, None] * (high - low)
    keys = jax.random.split(key, 2)
    random = jax.vmap(lambda k: _plus_plus(data, k, num_components))(keys)
    means = jnp.stack([quantiles, even, tails])

    spread = data.min_scale / MIN_SCALE
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
    smooth = Mixture(log_weights, means, jnp.log(scales))
    sharp = jax.vmap(functools.partial(_clusters, data))(
        jnp.concatenate([quantiles[None], random])
    )
    spikes = jax.tree.map(lambda p: p[None], _spikes(data, num_components))
    every = jax.tree.map(lambda *a: jnp.concatenate(a), smooth, sharp, spikes)
    if family == "logistic":
        log_scales = every.log_scales + math.log(0.55)  # of a logistic of variance 1
        log_scales = jnp.maximum(log_scales, jnp.log(data.min_scale))
        every = every._replace(log_scales=log_scales)
    return every
