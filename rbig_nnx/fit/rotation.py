"""Rotations fitted to data: orthogonal q, applied as x @ q.

The fits center the rows and read second moments in full; the non-Gaussian searches work on
a subsample of fixed size, so their cost does not grow with the rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from rbig_nnx.fit import entropy
from rbig_nnx.fit.sample import sample_rows
from rbig_nnx.math.arrays import Numbers, float_array
from rbig_nnx.math.sums import in_float64

METHODS = ("pca", "random", "ica", "nongaussian")

_HIGHEST = jax.lax.Precision.HIGHEST  # TPUs would round the factors to bfloat16
_TINY = 1e-30  # a variance above 0
_SEARCH_ROWS = 16_384
_ICA_STEPS = 100
_ENTROPY_ROWS = 4096  # of those
_NUM_SWEEPS = 2
# Turns of a pair, over a quarter turn, after which the axes repeat. They are densest
# around 0, which is one of them: beside a wide axis a narrow one may only turn a little.
_TURNS = np.pi / 4 * np.linspace(-1, 1, 257, dtype=np.float32) ** 3


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


@jax.jit
def covariances(x: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted covariance of rows [n, d], and one that few rows tell better, [d, d] each.

    The second is shrunk to a multiple of 1 by the oracle approximating shrinkage of Chen,
    Wiesel, Eldar and Hero (Shrinkage algorithms for MMSE covariance estimation, 2010, eq.
    23), with Kish's number of rows.
    """
    # A row of weight 0 may hold anything, NaN too.
    found = _covariance(jnp.where(weights[:, None] > 0, x, 0), weights)[1]
    d, trace, square = len(found), jnp.trace(found), jnp.sum(found**2)
    num_rows = jnp.sum(weights) ** 2 / jnp.sum(weights**2)
    excess = (num_rows + 1 - 2 / d) * (square - trace**2 / d)
    share = ((1 - 2 / d) * square + trace**2) / jnp.maximum(excess, 1e-30)
    share = jnp.clip(share, 0, 1)
    return found, (1 - share) * found + share * trace / d * jnp.eye(d)


def _principal_axes(covariance: Array) -> tuple[Array, Array]:
    """Eigenvalues, descending, and eigenvectors; each one's largest entry is positive.

    Correlations of less than 1e-4 count as none: rows that were whitened keep their axes,
    which rounding would turn at random.
    """
    scale = jnp.sqrt(jnp.diagonal(covariance))
    related = jnp.abs(covariance) > 1e-4 * scale[:, None] * scale
    covariance = jnp.where(related, covariance, 0)
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    rows = jnp.argmax(jnp.abs(vectors), axis=0)
    signs = jnp.sign(vectors[rows, jnp.arange(vectors.shape[1])])
    return values, vectors * signs


def _pca(rows, mean, covariance, key):
    del rows, mean, key
    return _principal_axes(covariance)[1]


def _random(key: Array, d: int) -> Array:
    """Haar measure (Mezzadri, How to generate random matrices, 2007)."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (d, d), jnp.float32))
    return q * jnp.where(jnp.diagonal(r) < 0, -1, 1)


def _inverse_sqrt(symmetric: Array) -> Array:
    values, vectors = jnp.linalg.eigh(symmetric)
    scale = jax.lax.rsqrt(jnp.maximum(values, 1e-6 * values[-1] + 1e-30))
    return _matmul(vectors * scale, vectors.T)


def _ica(rows, mean, covariance, key):
    """Symmetric FastICA (Hyvärinen, 1999), tanh, of the ZCA-whitened rows.

    Whitening by ZCA keeps the axes, so the unmixing matrix is the rotation itself.
    """
    z = _matmul(rows - mean, _inverse_sqrt(covariance))

    def step(q, _):
        y = jnp.tanh(_matmul(z, q))
        q = _matmul(z.T, y) / z.shape[0] - q * jnp.mean(1 - y * y, axis=0)
        return _matmul(q, _inverse_sqrt(_matmul(q.T, q))), None

    start = _random(key, len(covariance))
    q, _ = jax.lax.scan(step, start, None, length=_ICA_STEPS)
    return q


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


def _best_turn(pair: Array) -> Array:
    """Angle by which to turn a pair of columns [2, n] for the least sum of entropies.

    A projection of the pair, over its standard deviation, is a projection of the whitened
    pair. So entropies are read off those of the whitened pair, whatever its scales.
    """
    u, v = pair
    a = jnp.sqrt(jnp.mean(u * u) + _TINY)
    b = jnp.mean(u * v) / a
    c = jnp.sqrt(jnp.maximum(jnp.mean(v * v) - b * b, 0) + _TINY)
    white = u / a, (v - b * u / a) / c
    of_projections = entropy.of_projections(*white)

    def of_axis(cos, sin):
        along = cos * a + sin * b, sin * c
        scale = jnp.hypot(*along)
        return jnp.log(scale) + entropy.at_angle(
            of_projections, jnp.arctan2(*along[::-1])
        )

    cos, sin = jnp.cos(_TURNS), jnp.sin(_TURNS)
    return jnp.asarray(_TURNS)[jnp.nanargmin(of_axis(cos, sin) + of_axis(-sin, cos))]


def _nongaussian(rows, mean, covariance, key):
    """Least sum of marginal entropies, by Jacobi sweeps over pairs of axes.

    After RADICAL (Learned-Miller and Fisher, 2003), from the best of the current,
    principal and independent axes. A rotation keeps Σ E[y²], so this is
    the largest sum of divergences of the outputs from N(0, 1).
    """
    d = len(covariance)
    # Pairwise search alone gets lost where all axes mix many sources: offer it a start.
    principal = _principal_axes(covariance)[1]
    independent = _ica(rows, mean, covariance, key)
    starts = jnp.stack([jnp.eye(d), principal, independent])
    few = min(_ENTROPY_ROWS, len(rows))
    centered = rows[np.arange(few) * len(rows) // few] - mean
    outputs = jnp.swapaxes(_matmul(centered, starts), 1, 2)
    scales = jnp.sqrt(jnp.mean(outputs**2, axis=-1, keepdims=True) + _TINY)
    totals = jnp.sum(
        entropy.of_rows(outputs / scales) + jnp.log(scales[..., 0]), axis=-1
    )
    best = jnp.nanargmin(totals)
    q, y = starts[best], outputs[best]

    def round_(carry, pairs):
        y, q = carry  # q holds the axes as rows, beside y
        first, second = pairs[:, 0], pairs[:, 1]
        angles = jax.vmap(_best_turn)(jnp.stack([y[first], y[second]], axis=1))
        c, s = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]

        def turn(a):
            u, v = a[first], a[second]
            return a.at[first].set(c * u + s * v).at[second].set(c * v - s * u)

        return (turn(y), turn(q)), None

    rounds = jnp.asarray(np.tile(_rounds(d), (_NUM_SWEEPS, 1, 1)))
    (_, q), _ = jax.lax.scan(round_, (y, q.T), rounds)
    return q.T


_FITS = {"pca": _pca, "ica": _ica, "nongaussian": _nongaussian}


@functools.partial(jax.jit, static_argnums=0)
def _fit(method, x, weights, rows, key):
    d = x.shape[1]
    if d == 1:
        return jnp.ones((1, 1))
    if method == "random":
        return _polished(_random(key, d))
    x = x.astype(jnp.float32)
    if weights is not None:
        weights = weights.astype(jnp.float32)
        # A row of weight 0 may hold anything, NaN too.
        x = jnp.where(weights[:, None] > 0, x, 0)
    return _polished(_FITS[method](rows, *_covariance(x, weights), key))


def fit_rotation(
    x: Numbers,
    *,
    method: str,
    key: PRNGKeyArray,
    weights: Numbers | None = None,
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
    x = float_array(x, "x")
    if x.ndim != 2 or x.shape[0] < 1 or x.shape[1] < 1:
        raise ValueError(
            "`x` must be [rows, features] with at least one of each, got shape "
            f"{x.shape}. For one feature pass x[:, None]."
        )
    if weights is not None:
        weights = float_array(weights, "weights", entry="row")
        if weights.shape != (x.shape[0],):
            raise ValueError(
                f"`weights` must have one value a row, shape ({x.shape[0]},), got "
                f"{weights.shape}. Pass None for equal weights."
            )
    rows = None
    if method in ("ica", "nongaussian"):
        # A power of 2, so that a few rows more compile nothing new.
        limit = min(max(2 ** (4 * len(x) - 1).bit_length(), 1_024), _SEARCH_ROWS)
        rows = sample_rows(x, weights, key, limit).astype(np.float32)
    return _fit(method, x, weights, rows, key)
