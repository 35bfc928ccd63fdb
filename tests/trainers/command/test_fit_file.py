import numpy as np
import pytest
import scipy.stats

from trainers.command.fit_file import Mixture


def test_one_component_is_the_gaussian_in_the_units_of_the_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) @ np.diag([1e-3, 1.0, 50.0]) + [0, 100, 0]
    normal = scipy.stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
    mixture = Mixture(x, x, seed=0, sizes=(1,))
    assert mixture.score(x) == pytest.approx(normal.logpdf(x).mean(), abs=1e-4)


def test_collapsed_components_are_left_out_and_validation_chooses():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 2)) + 6 * rng.integers(0, 2, size=(320, 1))
    x = np.concatenate([x, x.sum(1, keepdims=True)], axis=1)  # a plane
    mixture = Mixture(x, x[::3], seed=0)
    assert mixture.num_components >= 2
    assert np.isfinite(mixture.score(x))
    few = rng.normal(size=(9, 12))
    assert Mixture(few, few, seed=0).num_components == 1
