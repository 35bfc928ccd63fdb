import numpy as np
import pytest

from trainers.rows.noise import effective_rows, noise_factors
from trainers.rows.weights import rescaled, weighted

X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
COUNTS = [2, 0, 1, 3, 0, 1]


def test_weights_are_scaled_to_mean_one_and_zeros_dropped_on_demand():
    found = weighted(X, COUNTS)
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(found.weights, np.array(COUNTS) * 6 / 7, rtol=1e-6)
    dropped = weighted(X, COUNTS, drop=True)
    np.testing.assert_array_equal(dropped.rows, X[[0, 2, 3, 5]])
    np.testing.assert_allclose(dropped.weights, np.array([2, 1, 3, 1]) * 4 / 7, 1e-6)
    part = rescaled(dropped.replace(rows=X[:1], weights=dropped.weights[:1]))
    np.testing.assert_array_equal(part.weights, 1)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_the_unit_of_the_weights_does_not_matter(scale):
    found = weighted(X, np.arange(1, 7) * scale).weights
    np.testing.assert_allclose(found, np.arange(1, 7) / 3.5, rtol=1e-6)


def test_noise_of_weighted_rows_is_that_of_repeated_ones():
    (factor, none) = noise_factors(weighted(X, COUNTS), 0.1)
    assert none is None
    (repeated,) = noise_factors(np.repeat(X, COUNTS, axis=0), 0.1)
    np.testing.assert_allclose(factor, repeated, rtol=1e-4)
    images = X.reshape(3, 2, 2, 1)
    factor, _ = noise_factors(weighted(images, [1, 0, 2]), 0.1)
    (repeated,) = noise_factors(images[[0, 2, 2]], 0.1)
    np.testing.assert_allclose(factor, repeated, rtol=1e-4)


def test_few_heavy_rows_count_as_few():
    assert effective_rows(X, 6) == 6
    assert effective_rows(weighted(X, np.full(6, 3.0)), 6) == pytest.approx(6)
    assert effective_rows(weighted(X, [1, 1, 1, 0, 0, 0]), 6) == pytest.approx(3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], r"one number for each of the 6 rows, shape \(6,\); got .*\(3,\)"),
        (np.ones((6, 1)), r"got shape \(6, 1\)"),
        ([1, 1, 1, -2, 1, 1], r"at least 0; got -2.0 for row 3"),
        ([1, 1, np.nan, 1, 1, 1], "finite .* row 2"),
        ([1, None, 1, 1, 1, 1], "finite .* row 1"),
        (np.zeros(6), "must not be zero for every row"),
        (list("abcdef"), "must be real numbers"),
        (np.ones(6, complex), "must be real numbers"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=f"`weights` .*{message}|`weights`.*{message}"):
        weighted(X, weights)
