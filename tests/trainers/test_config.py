"""The settings of a run, and the optimiser that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers import TrainConfig
from trainers.run import optimizer as on_device


def test_weight_decay_touches_kernels_only():
    params = {"layers": {0: {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}}
    params["vectors"] = jnp.ones(2)
    assert on_device.is_kernel(params) == {
        "layers": {0: {"kernel": True, "bias": False}},
        "vectors": False,
    }
    config = TrainConfig(weight_decay=0.5, learning_rate=0.1, schedule="constant")
    optimizer = on_device.make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["layers"][0]["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["layers"][0]["bias"], 0.0)
    np.testing.assert_array_equal(updates["vectors"], 0.0)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 1_000])
def test_the_one_cycle_rises_to_the_peak_and_falls(num_steps):
    config = TrainConfig(num_steps=num_steps, learning_rate=2.0)
    rates = np.asarray(
        jax.vmap(on_device.learning_rate(config))(jnp.arange(num_steps + 1))
    )
    assert np.isfinite(rates).all()
    np.testing.assert_allclose(rates[0], 0.08, rtol=1e-5)
    assert rates.max() <= 2.0
    if num_steps > 2:
        np.testing.assert_allclose(rates.max(), 2.0, rtol=1e-5)
        assert np.argmax(rates) == round(0.3 * num_steps)
        assert rates[-1] < 1e-4


def test_settings_of_numpy_are_those_of_python():
    found = TrainConfig(
        num_steps=np.int64(4),
        batch_size=np.array(16),
        jitter=np.float32(0.5),
        learning_rates={"*": np.float16(0.5)},
    )
    same = TrainConfig(
        num_steps=4, batch_size=16, jitter=0.5, learning_rates={"*": 0.5}
    )
    assert repr(found) == repr(same)
    for wrong in (np.array([5]), np.True_, "3", None):
        with pytest.raises(ValueError, match="`num_steps` must be a whole number; got"):
            TrainConfig(num_steps=wrong)
    with pytest.raises(ValueError, match="`jitter` must be a number; got"):
        TrainConfig(jitter=np.complex64(1))


def test_the_form_of_factors_by_pattern_is_told():
    told = (
        r'must be pairs of a pattern and a factor, as in \(\("\*\.vectors", 0\.1\),\)'
    )
    with pytest.raises(ValueError, match=rf"`learning_rates` {told}.*; got \['a'\]"):
        TrainConfig(learning_rates=["a"])
    pairs = {"*.kernel": 0.5}
    for given in (pairs, list(pairs.items()), pairs.items()):
        assert TrainConfig(learning_rates=given).learning_rates == (("*.kernel", 0.5),)


@pytest.mark.parametrize(
    "setting",
    [
        {"num_steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"num_steps": float("inf")},
        {"jitter": float("inf")},
        {"ema_decay": 1.0},
        {"jitter": -1.0},
        {"schedule": "linear"},
        {"num_steps": 2.5},
        {"num_steps": 1e4},
        {"batch_size": None},
        {"eval_every": "2"},
        {"patience": True},
        {"seed": 1.5},
        {"seed": -1},
        {"learning_rate": "3e-3"},
        {"jitter": None},
        {"ema_decay": float("nan")},
        {"learning_rates": {"*.kernel": "x"}},
        {"learning_rates": ["a"]},
        {"learning_rates": "abc"},
        {"learning_rates": "ab"},
        {"learning_rates": 0.1},
        {"learning_rates": [("*.kernel", 0.1, 2)]},
    ],
)
def test_bad_settings_are_named(setting):
    with pytest.raises(ValueError, match=f"`{next(iter(setting))}` must"):
        TrainConfig(**setting)
