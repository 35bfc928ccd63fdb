"""Training with weights of rows: what repeated rows, or fewer of them, give."""

import dataclasses
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow
from tests.trainers.layouts import LAYOUTS, QUICK, VALID, X, assert_same_run
from tests.trainers.tiny import Tiny
from trainers import CheckpointError, TrainConfig, fit

_RNG = np.random.default_rng(1)
COUNTS = _RNG.integers(0, 4, len(X))
WHOLE = TrainConfig(
    num_steps=8, batch_size=1_000, eval_every=4, jitter=0.0, learning_rate=0.03
)


def test_counts_give_the_run_of_repeated_rows():
    """Every step sees all rows, so the two losses are one number."""
    valid_counts = _RNG.integers(0, 3, len(VALID))
    repeated = fit(
        Tiny(),
        np.repeat(X, COUNTS, axis=0),
        np.repeat(VALID, valid_counts, axis=0),
        config=WHOLE,
    )
    found = fit(
        Tiny(),
        X,
        VALID,
        weights=COUNTS.tolist(),
        weights_valid=valid_counts,
        monitor={"test": VALID},
        config=WHOLE,
    )
    assert_same_run(repeated.history, found.history, rtol=2e-5)
    plain = fit(Tiny(), X, VALID, config=dataclasses.replace(WHOLE, num_steps=1))
    np.testing.assert_allclose(  # monitored rows count equally
        found.history["test"][0], plain.history["valid"][0], rtol=1e-5
    )


def test_a_row_of_weight_0_is_not_there():
    bad = X.copy()
    bad[COUNTS == 0] = 3e38  # finite, and its loss is not
    valid = VALID.copy()
    valid[5] = 3e38
    weights_valid = np.arange(len(VALID)) != 5
    options = {"config": QUICK, "weights_valid": weights_valid}
    found = fit(Tiny(), bad, valid, weights=COUNTS > 0, **options)
    wanted = fit(Tiny(), X[COUNTS > 0], VALID, **options)
    assert_same_run(wanted.history, found.history, rtol=1e-5)
    assert found.bad_steps == 0


def test_a_step_is_unbiased():
    """The mean over batches of all sizes of an epoch is the weighted mean."""
    weights = _RNG.random(96)
    config = dataclasses.replace(WHOLE, num_steps=6, batch_size=16, learning_rate=1e-12)
    result = fit(Tiny(), X[:96], weights=weights, config=config)
    loss = -np.asarray(Tiny().log_prob(jnp.asarray(X[:96])))
    wanted = np.average(loss, weights=weights)
    np.testing.assert_allclose(
        np.average(result.history["loss"][1:], weights=[4, 2]), wanted, rtol=1e-5
    )
    np.testing.assert_allclose(result.history["train"][0], -wanted, rtol=1e-5)


@pytest.mark.parametrize("layout", [*map(slow, LAYOUTS), "in parts"])
def test_every_layout_gives_the_losses_of_one_device(layout):
    options = {"weights": COUNTS, "weights_valid": np.arange(len(VALID))}
    one = fit(Tiny(), X, VALID, config=QUICK, **options)
    parts = dataclasses.replace(QUICK, accumulate=4)
    layout = {"config": parts} if layout == "in parts" else LAYOUTS[layout]()
    many = fit(Tiny(), X, VALID, **({"config": QUICK} | layout), **options)
    assert_same_run(one.history, many.history, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_a_weighted_conditional_run_goes_on_to_the_same_bits(tmp_path):
    flow = rn.coupling_flow(
        2, 1, num_components=2, hidden=(4,), context_features=1, rngs=nnx.Rngs(0)
    )

    def run(workdir=None, weights=COUNTS, **options):
        options |= {"context": X[:, :1], "context_valid": VALID[:, :1]}
        config = dataclasses.replace(QUICK, checkpoint_every=2)
        options |= {"weights": weights, "config": config, "workdir": workdir}
        return fit(flow, X, VALID, **options)

    def stop(step, model):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = run()
    assert run(tmp_path, callback=stop).stop_reason == "interrupted"
    with pytest.raises(CheckpointError, match="the values of `weights`"):
        run(tmp_path, np.maximum(COUNTS, 1) * (COUNTS > 0) + (COUNTS == 3))
    found = run(tmp_path)
    for name in whole.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(found.history[name], whole.history[name], name)


def test_a_loss_of_ones_own_is_weighted_row_by_row():
    def loss(model, batch, key):
        return jnp.sum(batch["x"] ** 2, axis=-1) * model.vectors[0, 0]

    rows = {"x": X, "label": np.arange(len(X))}
    result = fit(Tiny(), rows, weights=COUNTS, loss_fn=loss, config=QUICK)
    wanted = np.average(np.sum(X**2, axis=-1), weights=COUNTS)
    np.testing.assert_allclose(-result.history["train"][0], wanted, rtol=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"loss_fn": lambda m, x, key: -m.log_prob(x).mean()},
            r"`loss_fn` must return one loss for each row .*got shape \(\)",
        ),
        (
            {"weights": np.ones(3)},
            r"`weights` must have one number for each of the 101",
        ),
        (
            {"weights_valid": np.ones(3)},
            "`weights_valid` must have one number for each",
        ),
        ({"x_valid": None, "weights_valid": [1.0]}, "must be None without `x_valid`"),
    ],
)
def test_weights_that_cannot_be_are_refused(change, message):
    options = {"x_valid": VALID, "weights": COUNTS, "config": QUICK} | change
    with pytest.raises(ValueError, match=message):
        fit(Tiny(), X, **options)


def test_a_file_has_no_weights(tmp_path):
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(
        ValueError, match="`weights` must be None where `x_train` is read"
    ):
        fit(Tiny(), tmp_path / "x.npy", weights=COUNTS, config=QUICK)
