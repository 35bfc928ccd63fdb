"""What a run measures beside its loss: values of the loss function, metrics of clu."""

import dataclasses
import functools
import json

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics
from flax import nnx

from tests.trainers.layouts import LAYOUTS
from tests.trainers.tiny import Tiny
from trainers import CheckpointError, TrainConfig, fit
from trainers.run.step import loss_and_values

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(96, 2)).astype(np.float32)
VALID = _RNG.normal(size=(21, 2)).astype(np.float32)
QUICK = TrainConfig(
    num_steps=6, batch_size=48, eval_every=3, steps_per_dispatch=2, ema_decay=0.0
)
RESERVED = ("step", "train", "valid", "loss", "grad_norm", "bad_steps", "seconds")


class Stop(Exception):
    """Stands for a crash."""


@flax.struct.dataclass
class Largest(metrics.Metric):
    """The largest of the values."""

    value: jax.Array

    @classmethod
    def from_model_output(cls, values, mask=None, **_):
        return cls(jnp.max(values, where=mask, initial=-jnp.inf))

    def merge(self, other):
        return type(self)(jnp.maximum(self.value, other.value))

    def compute(self):
        return self.value


@flax.struct.dataclass
class Median(metrics.CollectingMetric.from_outputs(("loss", "mask"))):
    """The median loss, on the host."""

    def compute(self):
        values = super().compute()
        return np.median(values["loss"][values["mask"]])


HIDDEN = set()  # values that are left out


def loss_with_values(model, x, key):
    loss = -model.log_prob(x)
    shift = model.out.bias[...]
    values = {"twice/the loss": 2 * loss.mean(), "shift": shift[0], "one": 1}
    return loss, {name: values[name] for name in values.keys() - HIDDEN}


def test_values_of_the_loss_are_means_over_the_steps(tmp_path, monkeypatch):
    run = functools.partial(
        fit, Tiny(), X, VALID, config=dataclasses.replace(QUICK, checkpoint_every=1)
    )
    workdir = tmp_path / "part"

    def crash(step, model):
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        run(loss_fn=loss_with_values, workdir=workdir, callback=crash)
    found = run(loss_fn=loss_with_values, workdir=workdir).history
    assert {"twice/the loss", "shift", "one"} < found.keys()
    assert all(np.isnan(found[name][0]) for name in ("shift", "one"))
    np.testing.assert_array_equal(found["one"][1:], 1)
    np.testing.assert_allclose(found["twice/the loss"], 2 * found["loss"], rtol=1e-6)
    assert found["shift"][1] != found["shift"][2]
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["shift"] == found["shift"][-1]
    assert "shift" not in json.loads(lines[0])

    monkeypatch.setitem(globals(), "HIDDEN", {"shift"})  # which no identity tells
    with pytest.raises(CheckpointError, match=r"differs in what .*shift.*`loss_fn`"):
        run(loss_fn=loss_with_values, workdir=workdir)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["one device", *LAYOUTS])
def test_values_are_those_of_the_whole_batch(layout):
    config = dataclasses.replace(QUICK, accumulate=2, jitter=0.0)
    weights = np.arange(96) % 3 + 1.0
    options = {} if layout == "one device" else LAYOUTS[layout]()
    plain = fit(Tiny(), X, config=config, weights=weights)
    found = fit(
        Tiny(), X, config=config, weights=weights, loss_fn=loss_with_values, **options
    )
    for name in ("loss", "train", "grad_norm"):
        np.testing.assert_allclose(
            found.history[name], plain.history[name], rtol=2e-5, err_msg=name
        )
    one = fit(Tiny(), X, config=config, weights=weights, loss_fn=loss_with_values)
    for name in ("shift", "one", "twice/the loss"):
        np.testing.assert_allclose(
            found.history[name], one.history[name], rtol=2e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([1.0], "a list"),
        ((1.0, 2.0), "a pair of a loss and a float"),
        ((1.0, {}, 3), "a tuple"),
        ((np.ones(3), np.ones(3)), r"a pair of .* of shape \(3,\)"),
        ((1.0, {"a": np.ones(3)}), r"an array of shape \(3,\) under 'a'"),
        ((1.0, {"a": {"b": 1.0}}), "a dict under 'a'"),
        ((1.0, {"a": "b"}), "a str under 'a'"),
        ((1.0, {"a": None}), "a NoneType under 'a'"),
        ((1.0, {"a": 1j}), "a complex under 'a'"),
        ((1.0, {3: 1.0}), "a float under 3"),
        (({"a": 1.0}, 1.0), "a dict"),
        (None, "a NoneType"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value),
)
def test_what_is_no_loss_is_refused(found, told):
    with pytest.raises(ValueError, match=f"`loss_fn` must return a loss.*got {told}"):
        loss_and_values(found)


@pytest.mark.parametrize("name", [*RESERVED, "more", "valid/worst"])
def test_values_do_not_take_the_names_of_other_columns(name):
    def loss(model, x, key):
        return -model.log_prob(x), {name: 1.0}

    with pytest.raises(ValueError, match=f"`loss_fn` must name .*got '{name}'"):
        fit(
            Tiny(),
            X,
            VALID,
            config=QUICK,
            loss_fn=loss,
            monitor={"more": X},
            metrics={"worst": Largest.from_output("loss")},
        )


@pytest.mark.parametrize("name", RESERVED)
def test_sets_do_not_take_the_names_of_other_columns(name):
    with pytest.raises(ValueError, match=f"`monitor` must name .*got '{name}'"):
        fit(Tiny(), X, config=QUICK, monitor={name: X})


@pytest.mark.slow
def test_values_in_training_and_in_evaluation_are_the_same():
    class Moody(Tiny):
        def __init__(self):
            super().__init__()
            self.dropout = nnx.Dropout(0.0)

    def loss(model, x, key):
        mood = {} if model.dropout.deterministic else {"a": 1.0}
        return -model.log_prob(x), mood

    with pytest.raises(ValueError, match=r"the same names.*got \['a'\] and \[\]"):
        fit(Moody(), X, config=QUICK, loss_fn=loss)


def far(batch, **_):
    return jnp.abs(batch).max(axis=-1) > 1


def test_metrics_are_columns_for_every_set():
    given = {
        "mean": metrics.Average.from_output("loss"),
        "worst": Largest.from_output("loss"),
        "median": Median,
        "far": metrics.Average.from_fun(far),
        "mean log p": metrics.Average.from_fun(
            lambda model, batch, **_: model.log_prob(batch)
        ),
        "nothing": metrics.Average.from_fun(lambda loss, **_: loss * jnp.nan),
    }
    result = fit(Tiny(), X, monitor={"more": VALID}, config=QUICK, metrics=given)
    assert len([name for name in result.history if "/" in name]) == 12
    for name, rows in (("train", X), ("more", VALID)):
        loss = -np.asarray(result.model.log_prob(rows))
        wanted = {
            name: -result.history[name][-1],
            "mean": loss.mean(),
            "worst": loss.max(),
            "median": np.median(loss),
            "far": (np.abs(rows).max(axis=-1) > 1).mean(),
            "mean log p": -loss.mean(),
            "nothing": np.nan,
        }
        del wanted[name]
        for own, value in wanted.items():
            np.testing.assert_allclose(
                result.history[f"{name}/{own}"][-1], value, rtol=1e-4, err_msg=own
            )


@flax.struct.dataclass
class Collection(metrics.Collection):
    """As in the examples of clu."""

    worst: Largest.from_output("loss")
    far: metrics.Average.from_fun(lambda weights, batch, **_: weights * far(batch))


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_collection_is_taken_in_every_layout(layout):
    weights = np.arange(96) % 3
    run = functools.partial(
        fit, Tiny(), X, VALID, weights=weights, config=QUICK, metrics=Collection
    )
    one, many = run().history, run(**LAYOUTS[layout]()).history
    np.testing.assert_allclose(one["train/far"], weights[far(X)].sum() / weights.sum())
    for name in ("train/worst", "valid/worst", "train/far", "valid/far"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-4, err_msg=name)


class NoTree(Largest):
    """Not a pytree."""

    @classmethod
    def from_model_output(cls, loss, **_):
        return cls(loss)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "must be a clu.metrics.Collection.*got 3"),
        (metrics.Average, "must be a clu.metrics.Collection"),
        ({"a": Largest(1.0)}, "got Largest.*for 'a'"),
        ({3: Largest}, "for 3"),
        ({"a": metrics.Average.from_output("logits")}, "'a' raised KeyError: 'logits'"),
        ({"a": NoTree}, "decorate it"),
        ({"a": metrics.CollectingMetric.from_outputs(("loss",))}, "must compute one"),
    ],
    ids=["number", "class", "instance", "name", "output", "no tree", "array"],
)
def test_metrics_that_cannot_be_are_refused(given, told):
    with pytest.raises(ValueError, match=f"`metrics` .*{told}"):
        fit(Tiny(), X, config=QUICK, metrics=given)
