"""What one step does: parts of a batch, rates by name, filters of what trains."""

import dataclasses
import fnmatch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.trainers.tiny import Tiny
from trainers import TrainConfig, fit
from trainers.run.optimizer import make_optimizer

X = (np.random.default_rng(0).normal(size=(96, 2)) ** 3).astype(np.float32)
QUICK = TrainConfig(
    num_steps=4, batch_size=48, eval_every=2, steps_per_dispatch=2, learning_rate=0.03
)


def flow():
    return rn.coupling_flow(2, 1, num_components=2, hidden=(8,), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def plain():
    return fit(Tiny(), X, config=QUICK)


def by_name(model):
    flat = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): np.asarray(v[...]) for path, v in flat}


def moved(before, after):
    """Names of the variables that training changed."""
    before, after = by_name(before), by_name(after)
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.mark.parametrize("accumulate", [2, 3, 48])
def test_parts_of_a_batch_add_up_to_its_gradient(accumulate, plain):
    config = dataclasses.replace(QUICK, accumulate=accumulate)
    parts = fit(Tiny(), X, config=config)
    for name in ("loss", "grad_norm", "train"):
        np.testing.assert_allclose(
            parts.history[name], plain.history[name], rtol=2e-5, err_msg=name
        )


def test_parts_of_a_batch_see_different_keys_and_carry_the_models_state():
    class Noisy(nnx.Module):
        def __init__(self):
            self.shift = nnx.Param(jnp.zeros(()))
            self.calls = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def loss(model, x, key):
        model.calls[...] = model.calls[...] + 1
        # The gradient is the mean of one normal number for each part.
        return model.shift[...] * jax.random.normal(key) + 0 * x[:, 0]

    config = dataclasses.replace(
        QUICK, num_steps=1, accumulate=12, clip_norm=float("inf")
    )
    result = fit(Noisy(), X, loss_fn=loss, config=config)
    assert result.model.calls[...] == 12
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[1]
    draws = jax.vmap(jax.random.normal)(jax.random.split(key, 12))
    np.testing.assert_allclose(
        result.history["grad_norm"][-1], abs(draws.mean()), rtol=1e-5
    )


def test_a_batch_that_does_not_divide_into_its_parts_is_refused():
    with pytest.raises(ValueError, match=r"`batch_size` must divide .*Use 45"):
        fit(Tiny(), X, config=dataclasses.replace(QUICK, accumulate=5))


def test_learning_rates_scale_the_updates_of_what_they_name(plain):
    rates = {"out.bias": 0.0, "*.bias": 1.0, "out.*": 0.5}
    config = dataclasses.replace(QUICK, num_steps=1, learning_rates=rates)
    assert hash(config)  # settings are a key of the compiled steps
    start = by_name(Tiny())
    scaled = by_name(fit(Tiny(), X, config=config).model)
    usual = by_name(
        fit(Tiny(), X, config=dataclasses.replace(QUICK, num_steps=1)).model
    )
    np.testing.assert_array_equal(scaled["out.bias"], start["out.bias"])
    half = (usual["out.kernel"] - start["out.kernel"]) / 2
    np.testing.assert_allclose(
        scaled["out.kernel"] - start["out.kernel"], half, atol=1e-7
    )
    assert np.abs(half).max() > 1e-6
    for name in fnmatch.filter(start, "trunk.*"):
        np.testing.assert_array_equal(scaled[name], usual[name])


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"*.vektors": 0.1}, r"'\*.vektors' matches none of"),
        ({"*.vectors": -1.0}, "must be finite factors of at least 0"),
        ((("*.vectors", float("nan")),), "must be finite factors"),
    ],
)
def test_learning_rates_that_cannot_be_are_refused(rates, message):
    with pytest.raises(ValueError, match=message):
        fit(Tiny(), X, config=dataclasses.replace(QUICK, learning_rates=rates))


@pytest.mark.parametrize(
    ("trainable", "pattern"),
    [
        (nnx.All(nnx.PathContains("out"), nnx.PathContains("kernel")), "*.out.kernel"),
        (nnx.PathContains("vectors"), "*.vectors"),
        (nnx.PathContains("trunk"), "*.trunk.*"),
    ],
    ids=["output kernels", "rotations", "trunks"],
)
def test_filters_train_what_they_name_and_nothing_else(trainable, pattern):
    model = flow()

    def loss(model, x, key):
        leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
        return sum(jnp.sum((leaf - 1) ** 2) for leaf in leaves)

    result = fit(model, X, config=QUICK, trainable=trainable, loss_fn=loss)
    assert moved(model, result.model) == set(fnmatch.filter(by_name(model), pattern))


def test_a_step_takes_at_most_all_of_a_kernel():
    config = TrainConfig(learning_rate=3.0, schedule="constant", weight_decay=3.0)
    params = {"kernel": jnp.full(2, 5.0), "bias": jnp.full(2, 5.0)}
    optimizer = make_optimizer(config)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -params["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0)
