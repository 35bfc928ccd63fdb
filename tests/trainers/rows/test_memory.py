import jax
import numpy as np
import pytest

from trainers.placement import sharding
from trainers.rows import memory
from trainers.rows.noise import noise_factors


def test_an_epoch_visits_every_row_once():
    order = memory.EpochOrder(12, 4, seed=0)
    rows = order.indices(0, 3)
    assert rows.shape == (3, 4)
    assert sorted(rows.ravel()) == list(range(12))
    assert not np.array_equal(rows, order.indices(3, 3))


def test_batches_depend_on_seed_and_step_alone():
    whole = memory.EpochOrder(10, 3, seed=1).indices(0, 20)
    pieces = memory.EpochOrder(10, 3, seed=1)
    parts = [pieces.indices(step, 4) for step in (16, 0, 8, 12, 4)]
    np.testing.assert_array_equal(parts[0], whole[16:])
    np.testing.assert_array_equal(parts[4], whole[4:8])
    assert not np.array_equal(memory.EpochOrder(10, 3, seed=2).indices(0, 20), whole)


def test_a_batch_has_equally_many_rows_of_every_stratum_in_order():
    starts = [0, 4, 9]
    rows = memory.EpochOrder(13, 6, seed=0, starts=starts).indices(0, 4)
    strata = np.searchsorted(starts, rows, side="right") - 1
    assert (strata == [0, 0, 1, 1, 2, 2]).all()
    assert all(len(set(epoch.ravel())) == 12 for epoch in np.split(rows, 2))
    assert set(memory.EpochOrder(13, 6, seed=0, starts=starts).indices(0, 40).flat) == (
        set(range(13))
    )


def test_a_process_draws_its_own_strata_alone():
    options = {"seed": 0, "starts": [0, 4, 9]}
    whole = memory.EpochOrder(13, 6, **options).indices(0, 9)
    own = memory.EpochOrder(13, 6, **options, own=slice(1, 3))
    np.testing.assert_array_equal(own.indices(0, 9), whole[:, 2:])
    assert own._order.shape == (2, 4)


@pytest.mark.parametrize("starts", [range(5), range(0, 12, 2)])
def test_strata_must_fill_a_batch(starts):
    with pytest.raises(ValueError, match="`strata` must divide the 18 rows of a step"):
        memory.EpochOrder(24, 18, seed=0, starts=starts)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="`batch_size` must be from 1 to the 3 rows"):
        memory.EpochOrder(3, 4, seed=0)


def test_integers_become_floats():
    assert memory.as_rows([[1, 2], [3, 4]]).dtype == np.float32


def test_a_pair_keeps_its_types():
    x, labels = memory.as_rows((np.ones((3, 2)), np.arange(3)))
    assert x.dtype == np.float32
    assert labels.dtype == np.int32


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(3), r"got shape \(3,\). Use x\[:, None\]"),
        (np.ones((0, 2)), "at least one of each"),
        (np.array([["a", "b"]]), "column 0 of `x_train` must hold real numbers"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "1 of 2 rows, the first is row 1 "),
        (np.ones((2, 2), complex), "real numbers"),
        ((np.ones((3, 2)), np.ones((4, 2))), "same number of rows"),
        ((), "at least one array"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        memory.as_rows(rows)


def test_context_needs_as_many_rows():
    with pytest.raises(ValueError, match="`context` must have one row for each row"):
        memory.with_context(np.ones((3, 2)), np.ones((2, 1)))


def test_noise_goes_to_the_features_only():
    x = np.random.default_rng(0).normal(size=(1_000, 2)).astype(np.float32)
    factor, none = noise_factors((x, x), 0.1)
    assert factor is not None
    assert none is None
    assert noise_factors({"a": x, "b": x}, 0.1) == (None, None)
    assert noise_factors(x, 0.0) == (None,)


def test_noise_has_the_shape_of_the_rows():
    mix = np.array([[1.0, 4.99], [0.0, 0.1]])
    x = (np.random.default_rng(0).normal(size=(1_000, 2)) @ mix).astype(np.float32)
    (factor,) = noise_factors(x, 0.1)
    np.testing.assert_allclose(
        factor.T @ factor, 0.01 * np.cov(x.T, bias=True), rtol=1e-3, atol=1e-5
    )
    images = x.reshape(-1, 4, 5, 1)
    (scale,) = noise_factors(images, 0.1)
    np.testing.assert_allclose(scale, 0.1 * images.std(axis=0), rtol=1e-4)


def test_padded_batches_have_one_size_and_mask_the_rest():
    rows = np.arange(10.0)[:, None]
    batches = memory.batches(rows, 4, pad=True)
    assert [len(mask) for _, mask in batches] == [4, 4, 4]
    kept = np.concatenate([batch[mask] for batch, mask in batches])
    np.testing.assert_array_equal(kept, rows)
    assert [len(m) for _, m in memory.batches(rows, 4, pad=False)] == [4, 4, 2]


def test_a_batch_must_divide_over_the_mesh():
    n = jax.device_count()
    mesh = jax.make_mesh((n,), ("data",))
    mesh, axes = sharding.prepare_mesh(mesh)
    assert mesh.shape == {"data": n}
    sharding.check_batch(mesh, axes, 4 * n, accumulate=4)
    if n > 1:
        with pytest.raises(
            ValueError, match=f"divide over the {n} devices.* Use {4 * n}"
        ):
            sharding.check_batch(mesh, axes, 4 * n + 1)
    with pytest.raises(ValueError, match=r"and `accumulate`=3 parts.*; got 8 rows"):
        sharding.check_batch(mesh, axes, 8, accumulate=3)


def test_a_mesh_needs_a_data_axis():
    mesh = jax.make_mesh((1,), ("model",), devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="axis named 'data'"):
        sharding.prepare_mesh(mesh)
