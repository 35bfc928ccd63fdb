"""Scores that are not finite: named by set and row, and never the start in silence."""

import dataclasses
import warnings

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rbig_nnx as rn
from tests.slow import slow
from tests.trainers.layouts import LAYOUTS, QUICK, VALID, X, flow
from tests.trainers.tiny import Tiny
from trainers import fit, restore

LARGE = np.tile(VALID, (100, 1))  # more than one batch of the evaluation


def loss(bad, *, until=None):
    """NaN for the rows beyond 1e6, or where a parameter has grown."""

    def loss_fn(model, x, key):
        wild = jnp.max(jnp.abs(x), axis=-1) > 1e6
        if until is not None:
            wild &= jnp.abs(model.vectors[0, 0] - 1) > until
        return jnp.where(wild, bad, -model.log_prob(jnp.where(wild[:, None], 0, x)))

    return loss_fn


def with_wild(rows, number):
    rows = rows.copy()
    rows[number, 1] = 1e7
    return rows


@pytest.mark.parametrize("layout", [None, *map(slow, LAYOUTS)])
@pytest.mark.parametrize("number", [3, slow(4_711)])
def test_a_score_that_is_nan_names_the_set_and_the_row(layout, number):
    options = {"loss_fn": loss(jnp.nan), "config": QUICK}
    options |= LAYOUTS[layout]() if layout else {}
    wild = with_wild(LARGE, number)
    with pytest.raises(ValueError, match=rf"`x_valid` .* is nan, and row {number} \("):
        fit(Tiny(), X, wild, **options)
    if layout is None:
        with pytest.raises(ValueError, match=rf"`monitor\['a'\]` .*row {number}"):
            fit(Tiny(), X, VALID, monitor={"a": wild}, **options)


def test_a_loss_without_rows_names_the_set():
    def mean(model, x, key):
        return loss(jnp.nan)(model, x, key).mean()

    with pytest.raises(ValueError, match=r"`x_valid` .* it is nan\. Leave out"):
        fit(Tiny(), X, with_wild(VALID, 3), loss_fn=mean, config=QUICK)


def test_a_run_that_fails_late_keeps_its_best_model(tmp_path):
    late = loss(jnp.nan, until=1e-6)
    fit_in = lambda **options: fit(  # noqa: E731
        Tiny(), X, with_wild(VALID, 3), loss_fn=late, workdir=tmp_path, **options
    )
    message = "`x_valid` .* at step 4 it is nan, and row 3 .* is in the checkpoints"
    for _ in range(2):  # going on leads to the same
        with pytest.raises(ValueError, match=message):
            fit_in(config=QUICK)
    best = restore(tmp_path, Tiny())
    np.testing.assert_array_equal(best.vectors[...], Tiny().vectors[...])
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert "nan" not in lines.split("loss")[0]
    assert '"step": 4' not in lines


def test_nothing_is_left_behind_where_the_start_fails(tmp_path):
    options = {"loss_fn": loss(jnp.nan), "config": QUICK, "workdir": tmp_path}
    with pytest.raises(ValueError, match="at step 0 it is nan"):
        fit(Tiny(), X, with_wild(VALID, 3), **options)
    assert fit(Tiny(), X, VALID, **options).stop_reason == "completed"


def test_a_monitored_set_that_fails_late_is_told_once():
    late = loss(jnp.nan, until=1e-6)
    options = {"loss_fn": late, "config": QUICK, "monitor": {"a": with_wild(X, 2)}}
    with pytest.warns(
        RuntimeWarning, match=r"`monitor\['a'\]` .*step 4.* row 2"
    ) as told:
        result = fit(Tiny(), X, VALID, **options)
    assert len(told) == 1
    np.testing.assert_array_equal(np.isnan(result.history["a"]), [False, True, True])


def test_minus_infinity_may_lose():
    """A start without mass somewhere is no mistake, if training mends it."""

    def loss_fn(model, x, key):
        wild = jnp.max(jnp.abs(x), axis=-1) > 1e6
        start = jnp.abs(model.vectors[0, 0] - 1) < 1e-6
        per_row = -model.log_prob(jnp.where(wild[:, None], 0, x))
        return jnp.where(wild & start, jnp.inf, per_row)

    with pytest.warns(RuntimeWarning, match="`x_valid` .* at step 0 it is -inf.*row 3"):
        result = fit(Tiny(), X, with_wild(VALID, 3), loss_fn=loss_fn, config=QUICK)
    assert result.best_step > 0
    np.testing.assert_array_equal(
        np.isfinite(result.history["valid"]), [False, True, True]
    )


@pytest.mark.parametrize("patience", [slow(0), 1])
def test_a_run_that_never_had_a_finite_score_has_no_best_model(patience, tmp_path):
    config = dataclasses.replace(QUICK, patience=patience)
    options = {"loss_fn": loss(jnp.inf), "config": config, "workdir": tmp_path}
    message = r"`x_valid` .* it is -inf, and row 3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # at step 0
        for _ in range(2):  # a finished run gives it back
            with pytest.raises(ValueError, match=message):
                fit(Tiny(), X, with_wild(VALID, 3), **options)


@pytest.mark.slow
def test_rows_far_from_a_flow_that_was_not_fitted_are_told():
    x = np.random.default_rng(0).normal(1_000, 50, size=(200, 2)).astype(np.float32)
    fresh = flow()
    with pytest.warns(UserWarning, match=r"`x_train` lies far.*rbig_nnx.warm_start"):
        fit(fresh, x, config=QUICK)
    # What was fitted lies near, whatever the unit: warnings are errors here.
    for scale in (1, 1e6):
        warm, _ = rn.warm_start(fresh, x * scale, key=jax.random.key(0))
        fit(warm, x * scale, config=QUICK)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`x_train` lies far:UserWarning")
def test_noise_that_leaves_the_support_of_a_first_layer_is_named():
    x = np.random.default_rng(0).beta(0.5, 0.5, size=(256, 2)).astype(np.float32)
    logit = distrax.Block(distrax.Inverse(distrax.Sigmoid()), 1)
    bounded = rn.GaussianizationFlow([logit, *flow().layers], num_features=2)
    config = dataclasses.replace(QUICK, num_steps=40, max_bad_steps=4)
    with pytest.warns(RuntimeWarning, match=r"first layer, Block,.*`jitter`=0.0"):
        assert fit(bounded, x, config=config).stop_reason == "non-finite"
    still = dataclasses.replace(config, jitter=0.0)
    assert fit(bounded, x, config=still).bad_steps == 0
