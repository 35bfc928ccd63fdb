import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rbig_nnx.math import clusters
from rbig_nnx.math.clusters import ClusterParams

D, K = 4, 3


def mixture(seed=0):
    """Weights, means and covariances, [K, ...]."""
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.normal(size=(K, D, D))) + 2 * np.eye(D)
    covariances = lower @ np.swapaxes(lower, 1, 2)
    return rng.dirichlet(np.full(K, 5)), 2 * rng.normal(size=(K, D)), covariances


def regressions(weights, means, covariances):
    """Each feature given those before it, by the textbook's formula."""
    slopes, log_scales = np.zeros((K, D, D)), np.zeros((K, D))
    for k, cov in enumerate(covariances):
        for i in range(D):
            slopes[k, i, :i] = np.linalg.solve(cov[:i, :i], cov[:i, i])
            rest = cov[i, i] - slopes[k, i, :i] @ cov[:i, i]
            log_scales[k, i] = 0.5 * np.log(rest)
    offsets = means - np.einsum("kij,kj->ki", slopes, means)
    params = np.log(weights), offsets, slopes, log_scales
    return ClusterParams(*(jnp.float32(p) for p in params))


@pytest.fixture(scope="module")
def rows():
    weights, means, covariances = mixture()
    rng = np.random.default_rng(1)
    which = rng.choice(K, 300, p=weights)
    noise = np.linalg.cholesky(covariances)[which] @ rng.normal(size=(300, D, 1))
    return means[which] + noise[..., 0]


def log_density(rows, weights, means, covariances):
    parts = [
        scipy.stats.multivariate_normal(m, c).logpdf(rows) + np.log(w)
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    return np.logaddexp.reduce(parts, axis=0)


@pytest.mark.parametrize("anchor_weight", [0.0, 0.01])
def test_the_map_makes_the_mixture_standard_normal(rows, anchor_weight):
    truth = mixture()
    z, log_det = clusters.gaussianize(
        jnp.float32(rows), regressions(*truth), anchor_weight=anchor_weight
    )
    found = log_det + scipy.stats.norm.logpdf(z).sum(-1)
    wanted = np.log1p(-anchor_weight) + log_density(rows, *truth)
    if anchor_weight:
        normal = scipy.stats.norm.logpdf(rows).sum(-1) + np.log(anchor_weight)
        wanted = np.logaddexp(wanted, normal)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    # And not by its log det alone.
    assert scipy.stats.kstest(np.ravel(z), "norm").pvalue > 0.01 or anchor_weight


def test_what_is_not_below_the_diagonal_is_not_read(rows):
    params = regressions(*mixture())
    other = params._replace(slopes=params.slopes + 7 * jnp.triu(jnp.ones((D, D))))
    for function in (clusters.gaussianize, clusters.quantiles):
        one, two = (
            function(jnp.float32(rows), p, anchor_weight=0.01) for p in (params, other)
        )
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_the_inverse_finds_rows_that_map_there(rows):
    params = regressions(*mixture())
    z = jax.random.normal(jax.random.key(0), (2, 500, D))
    x = clusters.quantiles(z, params, anchor_weight=0.01)
    again, _ = clusters.gaussianize(x, params, anchor_weight=0.01)
    np.testing.assert_allclose(again, z, atol=1e-4)


def test_the_inverse_has_the_derivatives_of_the_map():
    params = regressions(*mixture())
    z = jnp.array([0.3, -0.8, 1.1, 0.2])

    def there_and_back(params):
        x = clusters.quantiles(z, params, anchor_weight=0.01)
        return clusters.gaussianize(x, params, anchor_weight=0.01)[0]

    for leaf in jax.tree.leaves(jax.jacrev(there_and_back)(params)):
        np.testing.assert_allclose(leaf, 0, atol=2e-5)


def test_far_out_it_stays_finite():
    params = regressions(*mixture())
    x = jnp.float32([[1e15, 0, 0, 0], [0, -1e15, 0, 0], [3e14] * 4])
    for value in clusters.gaussianize(x, params, anchor_weight=0.01):
        assert np.isfinite(value).all()
