import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rbig_nnx.fit.rotation import covariances
from rbig_nnx.fit.tails import radius
from rbig_nnx.math.tails.radius import RadialParams, contract

KEY = jax.random.key(0)
CORRELATED = 0.8 ** np.abs(np.subtract.outer(np.arange(4), np.arange(4)))


def students_t(seed, n, freedom, covariance=CORRELATED):
    rng = np.random.default_rng(seed)
    z = rng.multivariate_normal(np.zeros(len(covariance)), covariance, n)
    return z / np.sqrt(rng.chisquare(freedom, n) / freedom)[:, None]


@pytest.mark.parametrize("params", [(0.3, 0.2), (-0.5, 2.0), (0.3, 0.0)])
def test_the_density_is_that_of_the_map(params):
    x = students_t(0, 200, 3).astype(np.float32)
    params = RadialParams(*np.float64(params))
    y, log_det = contract(jnp.asarray(x), RadialParams(*map(jnp.float32, params)))
    expected = log_det - 0.5 * np.sum(np.square(y), 1) - 2 * np.log(2 * np.pi)
    found = radius.log_density(radius.squared_radii(jnp.asarray(x)), params, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_its_derivatives(d):
    squares = np.random.default_rng(0).chisquare(d, 50) * 3
    theta = np.array([0.2, np.log(0.3)])
    _, found = radius._at(squares, theta, d)
    for i, step in enumerate(1e-5 * np.eye(2)):
        above, below = (radius._at(squares, theta + s, d)[0] for s in (step, -step))
        np.testing.assert_allclose(found[i], (above - below) / 2e-5, rtol=1e-5)


def test_it_is_the_maximum_of_the_weighted_likelihood():
    rng = np.random.default_rng(1)
    squares, weights = rng.chisquare(3, 300) / rng.chisquare(2, 300), rng.random(300)
    weights[:50] = 0
    squares[0] = 1e30  # of no weight

    def loss(theta):
        params = RadialParams(theta[0], np.exp(theta[1]))
        return -weights @ radius.log_density(squares, params, 3) / weights.sum()

    found = radius.fit_radial(squares, weights, 3, KEY)
    best = scipy.optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead")
    assert loss([found.log_scale, np.log(found.index)]) < best.fun + 1e-6


@pytest.mark.parametrize("n", [300, 20_000])
def test_the_index_is_that_of_the_tail(n):
    squares = np.sum(students_t(0, n, 4, np.eye(8)) ** 2, axis=1)
    found = radius.fit_radial(squares, np.ones(n), 8, KEY)
    np.testing.assert_allclose(found.index, 1 / 4, atol=0.1)


def test_normal_rows_gain_nothing():
    rng = np.random.default_rng(0)
    squares, fresh = rng.chisquare(6, (2, 4_000))
    found = radius.fit_radial(squares, np.ones(4_000), 6, KEY)
    gains = radius.log_density(fresh, found, 6) - radius.log_density(
        fresh, radius.IDENTITY, 6
    )
    assert abs(gains.mean()) < 0.002
    assert not radius.worth_it(gains, np.ones(4_000))


def test_no_single_row_decides():
    gains = np.full(300, -0.1)
    gains[0] = 1e6
    assert not radius.worth_it(gains, np.ones(300))
    assert radius.worth_it(-gains, np.ones(300))


def test_the_shape_of_few_heavy_rows_is_better_than_their_covariance_and_of_its_size():
    def far(covariance):
        ratio = np.linalg.solve(CORRELATED, np.asarray(covariance, float))
        return np.std(np.log(np.linalg.eigvals(ratio).real))

    lags = []
    for seed in range(5):
        x = jnp.asarray(students_t(seed, 300, 3), jnp.float32)
        weights = jnp.ones(300)
        plain, own = (
            np.asarray(f[0], float)
            for f in (
                covariances(x, weights),
                radius.elliptical_covariances(x, weights, KEY),
            )
        )
        lags.append(far(plain) - far(own))
        white = np.linalg.solve(own, np.asarray(x, float).T).T * np.asarray(x)
        np.testing.assert_allclose(white.sum(1).mean(), 4, rtol=1e-4)
    assert np.mean(lags) > 0.05


def test_the_shape_of_normal_rows_is_their_covariance():
    rows = np.random.default_rng(0).multivariate_normal(np.zeros(4), CORRELATED, 4_000)
    x, weights = jnp.asarray(rows, jnp.float32), jnp.ones(4_000)
    plain = covariances(x, weights)[0]
    own = radius.elliptical_covariances(x, weights, KEY)[0]
    np.testing.assert_allclose(own, plain, atol=0.02)
