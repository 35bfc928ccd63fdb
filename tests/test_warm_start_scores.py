"""How good a start is, on fresh rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow
from tests.test_warm_start import KEY, coupling_flow, data


@pytest.mark.parametrize(
    "rotation", ["pca", slow("random"), slow("ica"), slow("nongaussian"), "auto"]
)
def test_rotations_are_orthogonal_and_the_fit_is_better_than_a_gaussian(rotation):
    x, fresh = data(3), data(3, seed=1)
    warm, report = rn.warm_start(coupling_flow(3), x, key=KEY, rotation=rotation)
    for layer in warm.layers:
        if isinstance(layer, rn.HouseholderRotation):
            q = layer.bijector().forward(jnp.eye(3))
            np.testing.assert_allclose(q @ q.T, np.eye(3), atol=1e-5)
    covariance = np.cov(x.T)
    gaussian = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    assert warm.log_prob(fresh).mean() > gaussian + 0.3
    assert abs(report.log_prob - warm.log_prob(fresh).mean()) < 0.5


@pytest.mark.slow
def test_holdout_stops_where_plain_fits_overfit():
    # 60 rows of pure noise: there is nothing to find.
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    fresh = np.random.default_rng(1).normal(size=(4000, 4)).astype(np.float32)
    flow = rn.diagonal_flow(4, 6, rngs=nnx.Rngs(0))
    plain, _ = rn.warm_start(flow, x, key=KEY, holdout=0.0)
    guarded, _ = rn.warm_start(flow, x, key=KEY, holdout=0.2)
    assert guarded.log_prob(fresh).mean() > plain.log_prob(fresh).mean() + 0.3


@pytest.mark.slow
@pytest.mark.parametrize("rotation", ["pca", "auto"])
def test_a_start_from_fifty_rows_is_not_behind_a_gaussian(rotation):
    d, gains = 8, []
    mix = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(range(d), range(d)))).T
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, fresh = rng.normal(size=(50, d)) @ mix, rng.normal(size=(4_000, d)) @ mix
        flow = rn.diagonal_flow(d, 2, num_components=4, rngs=nnx.Rngs(0))
        warm, _ = rn.warm_start(flow, x, key=jax.random.key(seed), rotation=rotation)
        gaussian = scipy.stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
        gains.append(np.mean(warm.log_prob(fresh)) - gaussian.logpdf(fresh).mean())
    assert np.mean(gains) > -0.02, gains


@pytest.mark.slow
def test_a_whitened_flow_starts_at_the_gaussian_and_keeps_its_axes():
    # Normal rows, to which the mixtures find nothing to add.
    rng = np.random.default_rng(0)
    mix = np.array([[1.0, 0.9, 0.3], [0.0, 0.5, 0.3], [0.0, 0.0, 0.2]])
    x, fresh = (
        (rng.normal(size=(n, 3)) @ mix + 5).astype(np.float32) for n in (2_500, 9_000)
    )
    flow = rn.coupling_flow(3, 1, whiten=True, hidden=(4,), rngs=nnx.Rngs(0))
    warm, report = rn.warm_start(flow, x, key=KEY, rotation="pca")
    assert [layer.action for layer in report.layers][:3] == [
        "mean and scale",
        "white",
        "pca",
    ]
    white = np.asarray(x)
    for layer in warm.layers[:2]:
        white = np.asarray(layer.bijector().forward(white))
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=0.1)
    # White rows have no principal axes: theirs are taken as they are.
    turned = np.abs(warm.layers[2].bijector().forward(np.eye(3, dtype=np.float32)))
    np.testing.assert_allclose(np.sort(turned.ravel()), [0] * 6 + [1] * 3, atol=1e-5)
    gaussian = scipy.stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
    gain = np.mean(warm.log_prob(fresh)) - gaussian.logpdf(fresh).mean()
    assert -0.01 < gain < 0.01


@pytest.mark.slow
def test_a_sample_of_many_rows_gives_nearly_the_fit_of_all():
    x, fresh = data(3, 60_000), data(3, 20_000, seed=1)

    def score(seed, **options):
        key = jax.random.key(seed)
        warm, _ = rn.warm_start(coupling_flow(3), x, key=key, **options)
        # The standardiser knows every row that is not held out.
        np.testing.assert_allclose(warm.layers[0].mean[...], x.mean(0), atol=0.02)
        return float(np.mean(warm.log_prob(fresh)))

    loss = score(0) - np.array([score(seed, max_rows=10_000) for seed in range(5)])
    assert abs(loss.mean()) < 0.05
    assert np.all(np.abs(loss) < 0.1)
