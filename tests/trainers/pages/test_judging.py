import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainers.pages import judging


def test_deviations_by_hand():
    u = np.array([[0.1], [0.2], [0.6], [0.9]])
    found = judging.uniform_deviations(u, np.array([0.25, 0.75]))
    np.testing.assert_allclose(found, [[0.25], [0.0]])


def test_area_is_scikit_learns_with_delongs_error():
    random = np.random.default_rng(0)
    areas, errors = [], []
    for _ in range(400):
        high, low = random.normal(1, 1, 60), np.round(random.normal(0, 1, 90), 1)
        found = judging.area(high, low)
        scores = np.concatenate([high, low])
        truth = roc_auc_score(np.repeat([1, 0], (60, 90)), scores)
        assert found.value == pytest.approx(truth)
        areas.append(found.value)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.1)


def test_classifier_finds_what_is_there():
    random = np.random.default_rng(1)
    same = judging.two_sample_auc(
        random.normal(size=(300, 3)), random.normal(size=(300, 3))
    )
    other = judging.two_sample_auc(
        random.normal(size=(300, 3)), random.normal(size=(300, 3)) + 1
    )
    assert abs(same.value - 0.5) < 3 * same.error
    assert other.value > 0.75
    assert 0 < other.error < 0.05


def test_coverage_of_a_right_and_of_a_narrow_model():
    random = np.random.default_rng(2)
    levels = np.array([0.1, 0.5, 0.9])
    x, wide, narrow = random.normal(size=(3, 20_000)) * np.array([[1], [1], [0.5]])
    right = judging.coverage(-(x**2), -(wide**2), levels)
    np.testing.assert_allclose(right, levels, atol=0.02)
    # Half as wide: |x| < z/2 holds 2 Phi(z/2) - 1.
    sure = judging.coverage(-(x**2), -(narrow**2), levels)
    np.testing.assert_allclose(sure, [0.0501, 0.2641, 0.5892], atol=0.02)


def test_band_holds_in_nineteen_of_twenty():
    u = np.random.default_rng(3).random((500, 400))
    assert judging.outside_band(u).mean() == pytest.approx(0.05, abs=0.03)
    at = np.linspace(0, 1, 1_001)[1:-1]
    furthest = np.abs(judging.uniform_deviations(u, at)).max(0)
    assert np.mean(furthest > judging.BAND / np.sqrt(500)) < 0.08
