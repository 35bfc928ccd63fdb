"""Scale and tail index of the radius of whitened rows, and their shape, by maximum likelihood.

The density is that of a normal y mapped by `rbig_nnx.math.tails.radius`. Two numbers, which a
quasi-Newton method finds from some thousand radii in milliseconds, in NumPy on the host.
"""

import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float, PRNGKeyArray

from rbig_nnx.fit.judges import gain_and_error
from rbig_nnx.fit.rotation import covariances
from rbig_nnx.fit.sample import generator, on_host, row_numbers
from rbig_nnx.math.probit import LOG_SQRT_2PI
from rbig_nnx.math.tails.radius import RadialParams

_ROWS = 4_096  # radii, at most, that are fitted
_LEAST_INDEX, _LARGEST_INDEX = 1e-5, 4.0
_REWEIGHTINGS = 2  # after which the shape no longer changes by what rows tell

_STANDARD_ERRORS = 1.0  # by which rows must gain
_LEAST_GAIN = 0.005  # nats a row
_MOST = 10.0  # nats that a row's gain or loss counts

IDENTITY = RadialParams(np.float64(0), np.float64(0))


def squared_radii(x: Array) -> Float[np.ndarray, " n"]:
    """|x|² of rows [n, d], in double precision."""
    rows = on_host(x).astype(np.float64)
    return np.einsum("nd,nd->n", rows, rows)


def fit_radial(
    squares: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    num_features: int,
    key: PRNGKeyArray,
) -> RadialParams:
    """Log scale and tail index of `math.tails.radius.contract` by weighted maximum likelihood.

    Args:
      squares: |x|² of the rows, [n].
      weights: nonnegative weights, [n].
      num_features: d.
      key: random key, that of many rows draws some thousand.

    Example:
      >>> import jax
      >>> import numpy as np
      >>> from rbig_nnx.fit.tails.radius import fit_radial
      >>> rng = np.random.default_rng(0)
      >>> x = rng.normal(size=(4_000, 3)) / np.sqrt(rng.chisquare(4, (4_000, 1)) / 4)
      >>> squares = np.sum(x * x, axis=1)
      >>> print(fit_radial(squares, np.ones(4_000), 3, jax.random.key(0)).index.round(1))
      0.2
    """
    (rows,) = np.nonzero(weights)
    if len(rows) > _ROWS:
        rows = rows[row_numbers(generator(key), len(rows), _ROWS)]
    # At least so far out that the logarithm below has a value.
    squares = np.maximum(squares[rows], 1e-30)
    shares = weights[rows] / np.sum(weights[rows])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        log_density, gradient = _at(squares, theta, num_features)
        return -shares @ log_density, -gradient @ shares

    width = 0.5 * np.log(shares @ np.minimum(squares, np.median(squares) * 4))
    start = np.array([width - 0.5 * np.log(num_features), -np.log(num_features + 2)])
    bounds = [(None, None), np.log([_LEAST_INDEX, _LARGEST_INDEX])]
    found = scipy.optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds
    )
    return RadialParams(found.x[0], np.exp(found.x[1]))


def log_density(
    squares: Float[np.ndarray, " n"], params: RadialParams, num_features: int
) -> Float[np.ndarray, " n"]:
    """Log density of rows of these |x|², [n]; of normal ones if the params are `IDENTITY`."""
    if params.index == 0:
        t = squares * np.exp(-2 * params.log_scale)
        return -0.5 * t - num_features * (LOG_SQRT_2PI + params.log_scale)
    theta = np.array([params.log_scale, np.log(params.index)])
    return _at(squares, theta, num_features)[0]


def _at(
    squares: np.ndarray, theta: np.ndarray, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities [n]; derivatives in log scale and log index, [2, n]."""
    log_scale, index = theta[0], np.exp(theta[1])
    u, v, steepness = _terms(squares, theta, d)
    found = 0.5 * (d - 2) * np.log(v / u) - v - 0.5 * v / index
    by_log_u = steepness * u / (1 + u)
    by_index = 0.5 * v / index - by_log_u
    by_scale = 2 * by_log_u - d
    return found - d * (log_scale + LOG_SQRT_2PI), np.stack([by_scale, by_index])


def _terms(squares: np.ndarray, theta: np.ndarray, d: int) -> tuple[np.ndarray, ...]:
    """u, v and minus the derivative of the log density in v at this index, [n] each."""
    index = np.exp(theta[1])
    u = np.maximum(squares * index * np.exp(-2 * theta[0]), 1e-12)
    v = np.log1p(u)
    c = np.where(v < 1e-4, 0.5 + v / 12, 1 + 1 / u - 1 / v)
    return u, v, 0.5 * (d - 2) * c + 1 + 0.5 / index


def worth_it(gains: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> bool:
    """Whether rows gain more than a standard error; no single one decides."""
    gain, error = gain_and_error(np.clip(gains, -_MOST, _MOST), weights)
    return bool(gain > max(_STANDARD_ERRORS * error, _LEAST_GAIN))


def elliptical_covariances(
    x: Float[Array, "n d"], weights: Float[Array, " n"], key: PRNGKeyArray
) -> tuple[Array, Array]:
    """The covariance's shape by maximum likelihood behind a fitted radius, and one shrunk.

    Far rows count less, as far as the tail says (Maronna, Robust M-estimators of multivariate
    location and scatter, 1976). Its size is that of the plain covariance: whitened rows have
    d as their mean |y|². Of normal rows it is the plain one.

    Args:
      x: rows, [n, d], centred.
      weights: nonnegative weights, [n].
      key: random key of the radii.

    Returns:
      Covariances [d, d], as `fit.rotation.covariances`.
    """
    plain, _ = found = covariances(x, weights)
    masses, d = on_host(weights).astype(np.float64), x.shape[1]
    rows = np.where(masses[:, None] > 0, on_host(x).astype(np.float64), 0)

    def radii() -> np.ndarray:
        lower = np.linalg.cholesky(_regular(np.asarray(plain, np.float64)))
        return np.sum(np.square(np.linalg.solve(lower, rows.T)), axis=0)

    for _ in range(_REWEIGHTINGS):
        squares = radii()
        log_scale, index = fit_radial(squares, masses, d, key)
        u, _, steepness = _terms(squares, np.array([log_scale, np.log(index)]), d)
        own = masses * steepness / (1 + u)
        own *= np.sum(masses) / np.sum(own)
        plain, _ = found = covariances(x, jnp.asarray(own, x.dtype))
    size = masses @ radii() / (np.sum(masses) * d)
    return found[0] * size, found[1] * size


def _regular(covariance: np.ndarray) -> np.ndarray:
    """With axes as `nn.standardize.principal_axes` has them, none of no width."""
    values, axes = np.linalg.eigh(covariance)
    return axes * np.maximum(values, 1e-6 * values[-1] or 1.0) @ axes.T
