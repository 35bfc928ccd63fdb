import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from trainers import FlowDensity

X = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 4.0] + [0.0, 10.0]
SMALL = {
    "num_blocks": 1,
    "num_components": 2,
    "hidden": (4,),
    "num_steps": 2,
    "rotation": "pca",
    "tails": False,
    "marginals": False,
    "radial": False,
    "clusters": 0,
}


@pytest.fixture(scope="module")
def density():
    return FlowDensity(**SMALL, random_state=0).fit(X)


def test_scores_are_log_densities(density):
    fresh = np.random.default_rng(1).normal(size=(2_000, 2)) * [1.0, 4.0] + [0.0, 10.0]
    truth = -1 - np.log(2 * np.pi) - np.log(4.0)  # of a Gaussian, in expectation
    np.testing.assert_allclose(density.score(fresh), truth, atol=0.15)
    np.testing.assert_allclose(
        density.score(fresh), density.score_samples(fresh).mean(), rtol=1e-5
    )


def test_transform_has_an_inverse_and_a_normal_image(density):
    z = density.transform(X)
    np.testing.assert_allclose(density.inverse_transform(z), X, atol=1e-3)
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.2)


def test_samples_follow_the_data(density):
    drawn = density.sample(2_000, random_state=0)
    assert drawn.shape == (2_000, 2)
    np.testing.assert_allclose(drawn.mean(axis=0), [0.0, 10.0], atol=0.6)
    np.testing.assert_array_equal(drawn, density.sample(2_000, random_state=0))
    assert not np.array_equal(drawn, density.sample(2_000, random_state=1))


def test_one_seed_gives_one_fit(density):
    again = clone(density).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), density.score_samples(X))


def test_a_row_scores_the_same_alone(density):
    together = density.score_samples(X)
    np.testing.assert_array_equal(density.score_samples(X[7:8]), together[7:8])


def test_pickling_keeps_the_fit(density):
    copy = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(copy.score_samples(X), density.score_samples(X))


def test_fitting_records_what_happened(density):
    assert density.n_features_in_ == 2
    assert density.flow_.num_features == 2
    assert np.isfinite(density.history_["valid"]).all()
    assert len(density.report_.layers) == len(density.flow_.layers)


# The checks of other array libraries skip themselves, with a warning.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.slow
def test_it_is_a_scikit_learn_estimator():
    check_estimator(FlowDensity(**SMALL, random_state=0))


@pytest.mark.slow
def test_points_of_the_noise_may_be_changed_after_the_fit():
    x = np.c_[np.arange(100) % 4, X[:100, :1]]
    model = FlowDensity(**SMALL).fit(x)
    few, many = model.score_samples(x), model.set_params(num_draws=64).score_samples(x)
    assert 0 < np.abs(few - many).max() < 0.2
    with pytest.raises(ValueError, match="`num_draws` must be a whole number"):
        model.set_params(num_draws=0).score_samples(x)


def test_a_context_that_does_not_vary_is_named():
    x = X[:50]
    with pytest.raises(ValueError, match=r"`context` .* varies; got c0 \(always 1\)"):
        FlowDensity(**SMALL).fit(x, context=pd.DataFrame({"c0": np.ones(50)}))


def test_a_density_in_a_folder_of_the_command_keeps_its_points(density, tmp_path):
    dataclasses.replace(density.table_, num_draws=3).save(tmp_path / "run")
    assert FlowDensity.load(tmp_path / "run").num_draws == 3
