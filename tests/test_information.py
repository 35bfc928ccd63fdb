"""Closed forms: a Gaussian in four dimensions with corr(x0, y0) = .8 and corr(x1, y1) = .5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests import truth

COVARIANCE = np.array(
    [[1, 0, 0.8, 0], [0, 1, 0, 0.5], [0.8, 0, 1, 0], [0, 0.5, 0, 1]], np.float32
)


class Gaussian:
    def __init__(self, covariance, mean=0.0):
        self.covariance, self.mean = jnp.asarray(covariance), mean

    def log_prob(self, x):
        mean = jnp.broadcast_to(self.mean, x.shape[-1:])
        return jax.scipy.stats.multivariate_normal.logpdf(x, mean, self.covariance)


def rows(seed, n=8_000):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(np.zeros(4), COVARIANCE, n).astype(np.float32)


def measures(seed, x=None):
    x = rows(seed) if x is None else x
    joint, part = Gaussian(COVARIANCE), Gaussian(np.eye(2, dtype=np.float32))
    shifted = Gaussian(np.eye(2, dtype=np.float32), jnp.array([-0.5, 0.0]))
    return {
        "entropy": rn.information.entropy(joint, x),
        "total_correlation": rn.information.total_correlation(
            joint, x, key=jax.random.key(seed)
        ),
        "mutual_information": rn.information.mutual_information(
            joint, part, part, x[:, :2], x[:, 2:]
        ),
        "negentropy": rn.information.negentropy(joint, x),
        "kl_divergence": rn.information.kl_divergence(part, shifted, x[:, :2]),
    }


@pytest.mark.slow
def test_measures_of_exact_densities_meet_the_closed_forms():
    values = [measures(seed) for seed in range(5)]
    expected = {
        "entropy": 5.0211,
        "total_correlation": 0.6547,
        "mutual_information": 0.6547,
        "negentropy": 0.0,
        "kl_divergence": 0.125,
    }
    for name, target in expected.items():
        truth.check_mean_over_seeds([v[name] for v in values], target, tol=0.03)


@pytest.mark.slow
def test_measures_of_fitted_flows():
    train, test = jnp.asarray(rows(10)), jnp.asarray(rows(11))

    def fitted(x):
        flow = rn.diagonal_flow(x.shape[1], 3, rngs=nnx.Rngs(0))
        return rn.warm_start(flow, x, key=jax.random.key(0))[0]

    joint = fitted(train)
    assert rn.information.entropy(joint, test) == pytest.approx(5.0211, abs=0.05)
    mutual = rn.information.mutual_information(
        joint, fitted(train[:, :2]), fitted(train[:, 2:]), test[:, :2], test[:, 2:]
    )
    assert mutual == pytest.approx(0.6547, abs=0.05)


def test_integers_and_ties_are_named():
    density = Gaussian(np.eye(2, dtype=np.float32))
    integers = np.random.default_rng(0).integers(0, 10, (2_000, 2))
    spiked = np.random.default_rng(0).normal(size=(2_000, 2))
    spiked[:500, 1] = 0
    info, key = rn.information, jax.random.key(0)
    for x, columns in (
        (integers, r"\[0, 1\]"),
        (integers * 1.0, ""),
        (spiked, r"\[1\]"),
    ):
        message = f"`x` has discrete columns, {columns}.*such as integers, repeat"
        for measure in (
            lambda x: info.entropy(density, x),
            lambda x: info.negentropy(density, x),
            lambda x: info.total_correlation(density, x, key=key),
            lambda x: info.kl_divergence(density, density, x),
        ):
            with pytest.warns(UserWarning, match=message):
                assert np.isfinite(measure(x))
    part, both = Gaussian(np.eye(1, dtype=np.float32)), density
    with pytest.warns(UserWarning, match="`y` has discrete columns"):
        info.mutual_information(both, part, part, spiked[:, :1], integers[:, 1:])


def test_whole_numbers_that_hardly_repeat_are_as_good_as_others():
    x = np.random.default_rng(0).normal(size=(2_000, 2))
    wide = np.rint(1e9 * x).astype(np.int64)
    density = Gaussian(1e18 * np.eye(2, dtype=np.float32))
    exact = rn.information.entropy(density, (1e9 * x).astype(np.float32))
    for numbers in (wide, wide.tolist(), wide.astype(">i8")):
        found = rn.information.entropy(density, numbers)
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    # Rounded to a hundredth of the deviation, and traced.
    density = Gaussian(np.eye(2, dtype=np.float32))
    entropy = rn.information.entropy(density, x.round(2))
    traced = jax.jit(lambda x: rn.information.entropy(density, x))(x.round(2))
    np.testing.assert_allclose(entropy, traced, rtol=1e-5)


@pytest.mark.slow
def test_errors_are_those_that_other_samples_show():
    """Of forty samples the values scatter as the errors say."""
    joint, part = Gaussian(COVARIANCE), Gaussian(np.eye(2, dtype=np.float32))
    other = Gaussian(1.3 * np.eye(4, dtype=np.float32))
    info = rn.information
    measures = {
        "entropy": lambda x, **k: info.entropy(joint, x, **k),
        "negentropy": lambda x, **k: info.negentropy(other, x, **k),
        "mutual": lambda x, **k: info.mutual_information(
            joint, part, part, x[:, :2], x[:, 2:], **k
        ),
        "kl": lambda x, **k: info.kl_divergence(joint, other, x, **k),
    }
    samples = [rows(seed, 500) for seed in range(40)]
    for name, measure in measures.items():
        found = [measure(x, standard_error=True) for x in samples]
        means = np.array([f.mean for f in found])
        scatter = means.std(ddof=1)
        error = np.mean([f.standard_error for f in found])
        assert 0.7 < scatter / error < 1.4, (name, scatter, error)
        plain = measure(samples[0])
        assert plain.shape == ()
        np.testing.assert_allclose(plain, means[0], rtol=1e-6)
    key = jax.random.key(0)
    estimate = info.total_correlation(joint, samples[0], key=key, standard_error=True)
    assert 0 < estimate.standard_error < 0.2


def test_conditional_mutual_information_meets_the_closed_form():
    """x and y hang on z alone, and then on each other also."""
    for r, wanted in ((0.0, 0.0), (0.6, -0.5 * np.log(1 - 0.6**2))):
        mix = np.array([[1, 0, 1], [r, np.sqrt(1 - r * r), 1], [0, 0, 1]], np.float32)
        covariance = mix @ mix.T
        x = np.random.default_rng(0).normal(size=(4_000, 3)).astype(np.float32) @ mix.T

        def of(*columns, covariance=covariance):
            return Gaussian(covariance[np.ix_(columns, columns)])

        found = rn.information.conditional_mutual_information(
            *(of(0, 1, 2), of(0, 2), of(1, 2), of(2)),
            *(x[:, [j]] for j in range(3)),
            standard_error=True,
        )
        assert abs(found.mean - wanted) < 4 * found.standard_error + 1e-5
