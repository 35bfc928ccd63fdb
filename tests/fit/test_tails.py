import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from rbig_nnx.fit.tails import columns
from rbig_nnx.fit.tails.columns import fit_tails
from rbig_nnx.math.tails.columns import TailParams, lighten

KEY = jax.random.key(0)


def standardised(x):
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def log_density(x, params):
    z, log_slope = lighten(
        jnp.asarray(x, jnp.float32), TailParams(*map(jnp.float32, params))
    )
    return np.asarray(log_slope - 0.5 * z * z, float) - 0.5 * np.log(2 * np.pi)


def test_scores_are_the_derivatives_of_the_density_that_the_map_implies():
    points = np.random.default_rng(0).standard_t(3, size=(2, 500))
    theta = np.array([[0.1, -0.1, np.log(0.1), np.log(0.6)], [0.0, 0.3, -2.0, 0.5]])
    found, scores = columns._at(points, theta)
    expected = log_density(points.T, columns._params(theta)).T
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for i in range(4):
        step = np.where(np.arange(4) == i, 1e-5, 0)
        above, below = (columns._at(points, theta + s)[0] for s in (step, -step))
        unit = np.exp(-theta[:, 1:2]) if i == 0 else 1  # location is in scales there
        np.testing.assert_allclose(
            scores[:, i], (above - below) / 2e-5 / unit, rtol=1e-4, atol=1e-6
        )


def test_it_is_the_maximum_of_the_likelihood():
    x = np.random.default_rng(1).standard_t(2, size=(800, 1))
    x[x > 0] *= 2  # skewed
    points = np.sort(x.T)

    def loss(theta):
        return -columns._at(points, theta[None])[0].mean()

    params, _ = fit_tails(jnp.asarray(x), jnp.ones(800), KEY, judged=False)
    starts = [[0, 0, -1, -1], [1, 0, -1, 0], [-1, 1, 0, 0]]
    found = [scipy.optimize.minimize(loss, np.array(s, float)) for s in starts]
    assert -log_density(x, params).mean() < min(f.fun for f in found) + 1e-4


@pytest.mark.parametrize("n", [1_000, 30_000])
def test_students_t_is_fitted_as_by_its_own_family(n):
    x, test = (
        standardised(np.random.default_rng(s).standard_t([5, 2], size=(n, 2)))
        for s in (0, 1)
    )
    params, kept = fit_tails(jnp.asarray(x), jnp.ones(n), KEY)
    assert kept.all()
    np.testing.assert_allclose(params.left, [0.2, 0.55], atol=0.12)
    own = [scipy.stats.t.fit(c) for c in x.T]
    expected = [scipy.stats.t.logpdf(c, *o) for c, o in zip(test.T, own, strict=True)]
    behind = np.mean(expected, axis=1) - log_density(test, params).mean(0)
    assert behind.max() < 0.01


def test_light_tails_are_left_as_they_are_exactly():
    rng = np.random.default_rng(0)
    n = 2_000
    columns = [
        rng.normal(size=n),
        rng.uniform(size=n),
        np.where(rng.random(n) < 0.5, -2, 2) + rng.normal(size=n),
    ]
    x = jnp.asarray(standardised(np.stack(columns, 1)))
    params, kept = fit_tails(x, jnp.ones(n), KEY)
    assert not kept.any()
    z, log_slope = lighten(x, TailParams(*map(jnp.float32, params)))
    np.testing.assert_array_equal(z, x)
    assert not np.any(log_slope)


def test_of_few_rows_columns_are_fitted_as_one_kind_and_kept_together():
    x = standardised(np.random.default_rng(2).standard_t(4, size=(150, 8)))
    alone, _ = fit_tails(jnp.asarray(x), jnp.ones(150), KEY, judged=False)
    params, kept = fit_tails(jnp.asarray(x), jnp.ones(150), KEY)
    assert kept.sum() >= 6
    assert np.std(params.left[kept]) < 0.5 * np.std(alone.left)


def students_t(rng, n):
    """Eight columns that share their tails, ν = 5, with correlations .8^|i − j|."""
    covariance = 0.8 ** np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    z = rng.multivariate_normal(np.zeros(8), covariance, n)
    return z / np.sqrt(rng.chisquare(5, n) / 5)[:, None]


def log_gaussian(rows, test):
    """Of the maximum-likelihood Gaussian of the rows."""
    lower = np.linalg.cholesky(np.cov(rows.T, bias=True))
    y = np.linalg.solve(lower, (test - rows.mean(0)).T)
    scale = np.sum(np.log(np.diag(lower)))
    return -0.5 * np.sum(y * y, axis=0) - scale - 4 * np.log(2 * np.pi)


def test_a_gaussian_behind_the_tails_of_few_rows_beats_a_plain_one():
    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, test = students_t(rng, 300), students_t(rng, 5_000)
        plain = log_gaussian(x, test).mean()
        test = (test - x.mean(0)) / x.std(0)
        plain_scale, x = np.log(x.std(0)).sum(), standardised(x)
        params, _ = fit_tails(jnp.asarray(x), jnp.ones(300), KEY)
        both = jnp.asarray(np.concatenate([x, test]), jnp.float32)
        params = TailParams(*map(jnp.float32, params))
        z, log_slope = map(np.asarray, lighten(both, params))
        behind = log_gaussian(z[:300], z[300:]) + log_slope[300:].sum(1) - plain_scale
        gains.append(behind.mean() - plain)
    assert min(gains) > -0.01
    assert np.mean(gains) > 0.2


@pytest.mark.parametrize("n", [300, 3_000])
def test_one_row_a_million_out_does_not_rule(n):
    clean = np.random.default_rng(0).normal(size=(n, 1))
    x = clean.copy()
    x[n // 3] = 1e6
    params, kept = fit_tails(jnp.asarray(standardised(x)), jnp.ones(n), KEY)
    assert kept.all()
    at = (clean - x.mean(0)) / x.std(0)
    cost = (
        -0.5 * (1 + np.log(2 * np.pi))
        - (log_density(at, params) - np.log(x.std(0))).mean()
    )
    assert cost < 0.1


@pytest.mark.parametrize("name", ["cauchy", "log-normal", "heap", "integers"])
def test_hard_columns_have_finite_fits(name):
    rng = np.random.default_rng(0)
    x = {
        "cauchy": rng.standard_cauchy(400),
        "log-normal": np.exp(3 * rng.normal(size=400)),
        "heap": np.where(rng.random(400) < 0.7, 0, np.exp(3 * rng.normal(size=400))),
        "integers": rng.poisson(0.3, 400),
    }[name][:, None].astype(float)
    x = standardised(x)
    params, _ = fit_tails(jnp.asarray(x), jnp.ones(400), KEY)
    assert np.isfinite(np.stack(params)).all()
    found = log_density(x, params)
    assert np.isfinite(found).all()
    # What a heap gains has a bound: it is no density there.
    assert found.mean() + 0.5 * (1 + np.log(2 * np.pi)) < 12


def test_rows_of_weight_zero_do_not_count_and_double_weight_counts_twice():
    x = standardised(np.random.default_rng(3).standard_t(3, size=(400, 1)))
    doubled, _ = fit_tails(
        jnp.asarray(np.concatenate([x, x[:100]])), jnp.ones(500), KEY, judged=False
    )
    weights = np.concatenate([np.full(100, 2.0), np.ones(300), [0.0]])
    far = np.concatenate([x, [[1e9]]])
    weighted, _ = fit_tails(
        jnp.asarray(far), jnp.asarray(weights, jnp.float32), KEY, judged=False
    )
    for a, b in zip(doubled, weighted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_same_key_gives_the_same_bits():
    x = jnp.asarray(np.random.default_rng(0).standard_t(3, size=(3_000, 2)))
    first, again = (fit_tails(x, jnp.ones(3_000), KEY)[0] for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
