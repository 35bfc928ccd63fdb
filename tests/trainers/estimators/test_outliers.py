"""FlowOutlierDetector: what it finds, where its bound lies."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from tests.trainers.estimators.small import SMALL
from trainers import FlowOutlierDetector
from trainers.estimators import outliers
from trainers.tables.checks import InputError

RNG = np.random.default_rng(0)


def test_outliers_are_found(tmp_path):
    x = RNG.normal(size=(600, 2))
    x[:6] = 8 + RNG.normal(size=(6, 2))
    detector = FlowOutlierDetector(**SMALL, contamination=0.02).fit(x)
    found = detector.predict(x) == -1
    assert found[:6].all()
    assert found.sum() == 12
    np.testing.assert_allclose(
        detector.decision_function(x), detector.score_samples(x) - detector.offset_
    )
    detector.save(tmp_path / "o")
    copy = FlowOutlierDetector.load(tmp_path / "o")
    np.testing.assert_array_equal(copy.predict(x), detector.predict(x))
    for share in (0.7, 0, None, "auto", [0.1]):
        with pytest.raises(
            InputError, match=r"`contamination` must be a number in \(0,"
        ):
            FlowOutlierDetector(contamination=share).fit(x)


def test_the_bound_counts_a_weight_as_copies():
    log_prob = np.random.default_rng(0).normal(size=300)
    weights = np.random.default_rng(1).integers(0, 4, 300)
    copies = outliers._bound(np.repeat(log_prob, weights), 0.1, None)
    assert outliers._bound(log_prob, 0.1, weights) == copies
    assert (log_prob < outliers._bound(log_prob, 0.1, None)).sum() == 30
    # What has no density at all is an outlier, not the bound.
    assert outliers._bound(np.array([-np.inf, 0.0, 1.0, 2.0]), 0.25, None) == 0


# The checks of other array libraries skip themselves, with a warning.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.slow
def test_the_detector_is_a_scikit_learn_estimator():
    small = {"num_blocks": 1, "num_components": 2, "hidden": (4,), "num_steps": 2}
    check_estimator(FlowOutlierDetector(**small, clusters=0, random_state=0))
