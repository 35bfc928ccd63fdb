import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rbig_nnx.fit import judges

KEY = jax.random.key(1)


def split(key, n, holdout, needed, weights=None):
    weights = None if weights is None else jnp.asarray(weights, jnp.float32)
    return judges.split(key, jnp.zeros((n, 2)), weights, holdout, needed)


@pytest.mark.parametrize(
    ("n", "holdout", "chains"),
    [(4, 0.1, 5), (5, 0.99, 4), (20, 0.1, 6), (9, 0.5, 3), (1_999, 0.1, 6)],
)
def test_of_few_rows_each_judges_one_chain_and_the_first_is_fitted_to_all(
    n, holdout, chains
):
    for seed in range(5):
        first, *judged = split(jax.random.key(seed), n, holdout, 3)
        np.testing.assert_array_equal(first.fit, np.ones(n))
        assert not np.any(first.judge)
        assert len(judged) == chains - 1 >= 2
        np.testing.assert_array_equal(sum(r.judge for r in judged), np.ones(n))
        for rows in judged:
            np.testing.assert_array_equal(rows.fit + rows.judge, np.ones(n))
            assert float(rows.fit.sum()) >= 3
            assert float(rows.judge.sum()) >= 1


def test_of_many_rows_a_slice_judges():
    (rows,) = split(KEY, 4_000, 0.1, 3)
    assert 330 < float(rows.judge.sum()) < 470
    np.testing.assert_array_equal(rows.every, np.ones(4_000))


def test_rows_without_weight_are_no_judges():
    weights = np.zeros(1_000)
    weights[[3, 500, 700, 999]] = 2.0
    for seed in range(5):
        first, *judged = split(jax.random.key(seed), 1_000, 0.1, 3, weights)
        np.testing.assert_array_equal(first.fit, weights)
        for rows in judged:
            assert (np.sum(rows.judge > 0), np.sum(rows.fit > 0)) == (1, 3)
            np.testing.assert_array_equal(rows.every, weights)


def test_few_rows_stay_where_they_are():
    mesh = jax.make_mesh((8,), ("data",))
    x = jax.device_put(np.zeros((8, 2)), NamedSharding(mesh, PartitionSpec("data")))
    for one, many in zip(
        split(KEY, 8, 0.01, 7), judges.split(KEY, x, None, 0.01, 7), strict=True
    ):
        np.testing.assert_array_equal(one.judge, many.judge)
        assert many.judge.sharding.spec == PartitionSpec("data")


@pytest.mark.parametrize(("n", "holdout"), [(1_000, 0.999), (2_010, 0.995)])
def test_no_slice_leaves_fewer_rows_than_are_needed(n, holdout):
    for rows in split(KEY, n, holdout, 8):
        assert float(rows.fit.sum()) >= 8


def test_without_a_holdout_the_fitted_rows_judge():
    (rows,) = split(KEY, 50, 0.0, 3)
    np.testing.assert_array_equal(rows.fit, np.ones(50))
    np.testing.assert_array_equal(rows.judge, rows.fit)
