"""Rotations fitted to data: orthogonal q, applied as x @ q.

The fits center the rows and read second moments in full; the non-Gaussian searches work on
a subsample of fixed size, so their cost does not grow with the rows.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from rbig_nnx.fit.sample import sample_rows
from rbig_nnx.math.sums import in_float64

METHODS = ("pca", "random", "ica", "nongaussian")

_HIGHEST = jax.lax.Precision.HIGHEST  # TPUs would round the factors to bfloat16
_ICA_ROWS = 16_384
_ICA_STEPS = 100
_ENTROPY_ROWS = 4096
_MIN_ENTROPY_ROWS = 1024
_ENTROPY_BUDGET = 2**27  # values read in one fit: fewer rows where there are many pairs
_NUM_SWEEPS = 3  # at most: one less beyond _MANY_FEATURES
_MANY_FEATURES = 8
_NUM_ANGLES = 24  # over a quarter turn, after which the axes repeat
_NUM_FINE_ANGLES = 9  # around the best one, twice
# Density estimates: on a circle of this half circumference, in standard deviations.
_HALF_RANGE = 5.0
_BANDWIDTH = 0.15
_NUM_FREQUENCIES = 24
_GRID = 64


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=_HIGHEST)


def _polished(q: Array) -> Array:
    """One Newton step towards the nearest orthogonal matrix."""
    return 1.5 * q - 0.5 * _matmul(q, _matmul(q.T, q))


def _covariance(x: Array, weights: Array | None) -> tuple[Array, Array]:
    """Weighted mean [d] and covariance [d, d]."""
    if weights is None:
        weights = jnp.ones(x.shape[:1], x.dtype)

    def moments(x, weights):
        share = (weights / jnp.sum(weights))[:, None]
        mean = jnp.sum(share * x, axis=0)
        centered = x - mean
        return mean, _matmul((share * centered).T, centered)

    return in_float64(moments, x, weights)


def _principal_axes(covariance: Array) -> tuple[Array, Array]:
    """Eigenvalues, descending, and eigenvectors; each one's largest entry is positive."""
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    rows = jnp.argmax(jnp.abs(vectors), axis=0)
    signs = jnp.sign(vectors[rows, jnp.arange(vectors.shape[1])])
    return values, vectors * signs


def _pca(x, weights, key):
    del key
    return _principal_axes(_covariance(x, weights)[1])[1]


def _random(x, weights, key):
    """Haar measure (Mezzadri, How to generate random matrices, 2007)."""
    del weights
    d = x.shape[1]
    q, r = jnp.linalg.qr(jax.random.normal(key, (d, d)))
    return q * jnp.where(jnp.diagonal(r) < 0, -1, 1)


def _inverse_sqrt(symmetric: Array) -> Array:
    values, vectors = jnp.linalg.eigh(symmetric)
    scale = jax.lax.rsqrt(jnp.maximum(values, 1e-6 * values[-1] + 1e-30))
    return _matmul(vectors * scale, vectors.T)


def _ica(x, weights, key):
    """Symmetric FastICA (Hyvärinen, 1999), tanh, of the ZCA-whitened rows.

    Whitening by ZCA keeps the axes, so the unmixing matrix is the rotation itself.
    """
    row_key, start_key = jax.random.split(key)
    mean, covariance = _covariance(x, weights)
    z = sample_rows(x, weights, row_key, _ICA_ROWS) - mean
    z = _matmul(z, _inverse_sqrt(covariance))

    def step(q, _):
        y = jnp.tanh(_matmul(z, q))
        q = _matmul(z.T, y) / z.shape[0] - q * jnp.mean(1 - y * y, axis=0)
        return _matmul(q, _inverse_sqrt(_matmul(q.T, q))), None

    start = _random(x, None, start_key)
    q, _ = jax.lax.scan(step, start, None, length=_ICA_STEPS)
    return q


def _fourier_tables() -> tuple[np.ndarray, np.ndarray]:
    """Fourier series on the grid, kernel included: [T, G] for cosines and for sines."""
    frequencies = np.arange(1, _NUM_FREQUENCIES + 1) * np.pi / _HALF_RANGE
    kernel = np.exp(-0.5 * (_BANDWIDTH * frequencies) ** 2)[:, None] / _HALF_RANGE
    phase = frequencies[:, None] * np.linspace(
        -_HALF_RANGE, _HALF_RANGE, _GRID, endpoint=False
    )
    return (
        (kernel * np.cos(phase)).astype(np.float32),
        (kernel * np.sin(phase)).astype(np.float32),
    )


def _entropy(y: Array) -> Array:
    """Entropy of a kernel estimate of the density of rows of y, [..., n] -> [...].

    The estimate is summed as a Fourier series of the empirical characteristic function:
    no sort and no scatter, and exact integration on a regular grid.
    """
    phase = jnp.clip(y / _HALF_RANGE, -1, 1) * math.pi
    cos, sin = jnp.cos(phase), jnp.sin(phase)

    def power(carry, _):
        a, b = carry
        out = jnp.mean(a, axis=-1), jnp.mean(b, axis=-1)
        return (a * cos - b * sin, a * sin + b * cos), out

    _, (real, imag) = jax.lax.scan(power, (cos, sin), None, length=_NUM_FREQUENCIES)
    on_cos, on_sin = _fourier_tables()
    density = jnp.tensordot(real, on_cos, (0, 0), precision=_HIGHEST)
    density = density + jnp.tensordot(imag, on_sin, (0, 0), precision=_HIGHEST)
    density = jnp.maximum(density + 0.5 / _HALF_RANGE, 1e-6)
    step = 2 * _HALF_RANGE / _GRID
    return -step * jnp.sum(density * jnp.log(density), axis=-1)


def _rounds(d: int) -> np.ndarray:
    """Tournament: rounds of disjoint pairs, [r, p, 2]; odd d gets a bye that repeats 0."""
    players = list(range(d)) + ([-1] if d % 2 else [])
    half = len(players) // 2
    rounds = []
    for _ in range(len(players) - 1):
        pairs = zip(players[:half], players[: half - 1 : -1], strict=True)
        rounds.append([sorted(p) for p in pairs if -1 not in p])
        players = [players[0], players[-1], *players[1:-1]]
    return np.array(rounds, np.int32)


def _best_angle(pair: Array) -> Array:
    """Angle by which to turn a pair of columns [2, n] for the least sum of entropies."""

    def cost(angle):
        c, s = jnp.cos(angle), jnp.sin(angle)
        turned = c * pair[0] + s * pair[1], c * pair[1] - s * pair[0]
        return jnp.sum(_entropy(jnp.stack(turned)))

    def search(center, half_width, num):
        # Odd: the center is a candidate, so the sum never rises.
        angles = center + jnp.linspace(-half_width, half_width, num)
        return angles[jnp.argmin(jax.vmap(cost)(angles))]

    width = math.pi / 4
    angle = search(0.0, width, _NUM_ANGLES + 1)
    for num in (_NUM_ANGLES, _NUM_FINE_ANGLES - 1):
        width = 2 * width / num
        angle = search(angle, width, _NUM_FINE_ANGLES)
    return angle


def _num_sweeps(d: int) -> int:
    return _NUM_SWEEPS - (d > _MANY_FEATURES)


def _num_entropy_rows(d: int) -> int:
    pairs = d * (d - 1) // 2
    values = 2 * pairs * _num_sweeps(d) * (_NUM_ANGLES + 2 * _NUM_FINE_ANGLES)
    return int(np.clip(_ENTROPY_BUDGET // values, _MIN_ENTROPY_ROWS, _ENTROPY_ROWS))


def _nongaussian(x, weights, key):
    """Least sum of marginal entropies, by Jacobi sweeps over pairs of axes.

    After RADICAL (Learned-Miller and Fisher, 2003), from the best of the current,
    principal and independent axes. A rotation keeps Σ E[y²], so this is
    the largest sum of divergences of the outputs from N(0, 1).
    """
    d = x.shape[1]
    row_key, ica_key = jax.random.split(key)
    mean, covariance = _covariance(x, weights)
    rows = sample_rows(x, weights, row_key, _num_entropy_rows(d)) - mean
    # The bandwidth is in this unit.
    rows = rows / jnp.sqrt(jnp.trace(covariance) / d + 1e-30)
    # Pairwise search alone gets lost where all axes mix many sources: offer it a start.
    principal = _principal_axes(covariance)[1]
    starts = jnp.stack([jnp.eye(d), principal, _ica(x, weights, ica_key)])
    outputs = _matmul(rows, starts)
    totals = jnp.sum(_entropy(jnp.swapaxes(outputs, 1, 2)), axis=-1)
    best = jnp.nanargmin(totals)
    q, y = starts[best], outputs[best].T

    def round_(carry, pairs):
        y, q = carry  # q holds the axes as rows, beside y
        first, second = pairs[:, 0], pairs[:, 1]
        angles = jax.vmap(_best_angle)(jnp.stack([y[first], y[second]], axis=1))
        c, s = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]

        def turn(a):
            u, v = a[first], a[second]
            return a.at[first].set(c * u + s * v).at[second].set(c * v - s * u)

        return (turn(y), turn(q)), None

    rounds = jnp.asarray(np.tile(_rounds(d), (_num_sweeps(d), 1, 1)))
    (_, q), _ = jax.lax.scan(round_, (y, q.T), rounds)
    return q.T


_FITS = {"pca": _pca, "random": _random, "ica": _ica, "nongaussian": _nongaussian}


@functools.partial(jax.jit, static_argnums=0)
def _fit(method, x, weights, key):
    x = x.astype(jnp.float32)
    if weights is not None:
        weights = weights.astype(jnp.float32)
        # A row of weight 0 may hold anything, NaN too.
        x = jnp.where(weights[:, None] > 0, x, 0)
    if x.shape[1] == 1:
        return jnp.ones((1, 1))
    return _polished(_FITS[method](x, weights, key))


def fit_rotation(
    x: ArrayLike,
    *,
    method: str,
    key: PRNGKeyArray,
    weights: ArrayLike | None = None,
) -> Float[Array, "d d"]:
    """Fits a rotation, to be applied as x @ q.

    Args:
      x: data, [n, d]; may be sharded over rows.
      method: "pca" (principal axes, largest variance first), "random" (uniform),
        "ica" (symmetric FastICA) or "nongaussian" (least sum of marginal entropies).
      key: random key; the same key gives the same bits.
      weights: nonnegative weights of the rows, [n]. None: equal. Rows of weight 0 have
        no influence, whatever they hold.

    Returns:
      q, [d, d], float32, orthogonal.

    Example:
      >>> import jax
      >>> x = jax.random.normal(jax.random.key(0), (100, 3))
      >>> fit_rotation(x, method="pca", key=jax.random.key(1)).shape
      (3, 3)
    """
    if method not in METHODS:
        raise ValueError(
            f'`method` must be one of {", ".join(METHODS)}, got {method!r}. Use "pca".'
        )
    x = jnp.asarray(x)
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 1:
        raise ValueError(
            "`x` must be [rows, features] with at least one of each, got shape "
            f"{x.shape}. For one feature pass x[:, None]."
        )
    if weights is not None:
        weights = jnp.asarray(weights)
        if weights.shape != (x.shape[0],):
            raise ValueError(
                f"`weights` must have one value a row, shape ({x.shape[0]},), got "
                f"{weights.shape}. Pass None for equal weights."
            )
    return _fit(method, x, weights, key)
