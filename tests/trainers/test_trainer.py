import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trainers import TrainConfig, Trainer, fit, load_flow

_RNG = np.random.default_rng(0)
X = (_RNG.normal(size=(500, 2)) * [1.0, 3.0] + [2.0, -1.0]).astype(np.float32)
VALID = (_RNG.normal(size=(200, 2)) * [1.0, 3.0] + [2.0, -1.0]).astype(np.float32)
QUICK = TrainConfig(
    num_steps=30,
    batch_size=64,
    eval_every=10,
    steps_per_dispatch=4,
    learning_rate=0.1,
    jitter=0.0,
)


class Count(nnx.Variable):
    """Calls made, changed by the forward pass."""


class Normal(nnx.Module):
    """A Gaussian with a linear mean of the context, and state beside parameters."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.mean = nnx.Linear(1, 2, rngs=rngs)
        self.log_scale = nnx.Param(jnp.zeros(2))
        self.calls = Count(jnp.zeros((), jnp.int32))
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def log_prob(self, x, context=None):
        self.calls[...] = self.calls[...] + 1
        context = jnp.ones((*x.shape[:-1], 1), x.dtype) if context is None else context
        mean = self.mean(self.dropout(context))
        z = (x - mean) * jnp.exp(-self.log_scale[...])
        log_scale = jnp.sum(self.log_scale[...])
        return -0.5 * jnp.sum(z**2, -1) - log_scale - jnp.log(2 * jnp.pi)


@pytest.fixture
def model():
    return Normal(rngs=nnx.Rngs(0))


@pytest.fixture(params=["graph", "tree"])
def mode(request):
    if request.param == "tree":
        with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
            yield request.param
    else:
        yield request.param


def arrays(model):
    state = nnx.to_pure_dict(nnx.state(model, (nnx.Param, Count)))
    return jax.tree.map(np.asarray, state)


def test_training_improves_and_leaves_the_input(model, mode):
    before = arrays(model)
    result = fit(model, X, VALID, config=QUICK)
    history = result.history
    np.testing.assert_array_equal(history["step"], [0, 10, 20, 30])
    assert history["valid"][-1] > history["valid"][0] + 1
    assert history["train"].shape == history["seconds"].shape == (4,)
    assert result.stop_reason == "completed"
    jax.tree.map(np.testing.assert_array_equal, before, arrays(model))
    after = arrays(result.model)
    jax.tree.map(lambda a, b: _assert_changed(a, b), before, after)
    assert after["calls"] == result.best_step + 0  # one forward pass a step


def _assert_changed(a, b):
    assert not np.array_equal(a, b)


def test_the_returned_model_is_the_best_of_the_history(model):
    config = dataclasses.replace(QUICK, schedule="constant", learning_rate=0.5)
    result = fit(model, X, VALID, config=config)
    best = np.nanargmax(result.history["valid"])
    assert result.best_step == result.history["step"][best]
    result.model.eval()
    score = float(result.model.log_prob(jnp.asarray(VALID)).mean())
    np.testing.assert_allclose(score, result.history["valid"][best], rtol=1e-5)


def test_without_validation_the_last_parameters_come_back(model):
    result = fit(model, X, config=QUICK)
    assert result.best_step == 30
    assert np.isnan(result.history["valid"]).all()


def test_evaluation_covers_a_last_part_batch(model, monkeypatch):
    monkeypatch.setattr("trainers.run.evaluation._BATCH", 64)
    whole = float(model.eval() or model.log_prob(jnp.asarray(VALID)).mean())
    result = fit(model, X, VALID, config=dataclasses.replace(QUICK, num_steps=1))
    np.testing.assert_allclose(result.history["valid"][0], whole, rtol=1e-6)
    mean = fit(
        model,
        X,
        VALID,
        loss_fn=lambda m, x, key: -m.log_prob(x).mean(),
        config=dataclasses.replace(QUICK, num_steps=1),
    )
    np.testing.assert_allclose(mean.history["valid"][0], whole, rtol=1e-6)


def test_the_result_depends_on_the_seed_alone(model):
    one, two = (fit(model, X, VALID, config=QUICK) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, arrays(one.model), arrays(two.model))
    other = fit(model, X, VALID, config=dataclasses.replace(QUICK, seed=1))
    assert other.history["valid"][-1] != one.history["valid"][-1]


def test_steps_per_dispatch_changes_nothing(model):
    one, two = (
        fit(model, X, config=dataclasses.replace(QUICK, steps_per_dispatch=s))
        for s in (1, 7)
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, arrays(one.model), arrays(two.model))


def test_a_second_run_of_one_structure_compiles_nothing(model):
    trainer = Trainer(config=QUICK)
    first = trainer.fit(model, X, VALID)
    second = trainer.fit(Normal(rngs=nnx.Rngs(7)), X, VALID)
    assert second.compile_seconds < max(first.compile_seconds, 0.2)
    assert second.history["train"][0] != first.history["train"][0]


def test_early_stop_counts_evaluations(model):
    config = dataclasses.replace(
        QUICK, num_steps=1_000, patience=2, learning_rate=10.0, schedule="constant"
    )
    result = fit(model, X, VALID, config=config)
    assert result.stop_reason == "early stop"
    assert result.history["step"][-1] == result.best_step + 2 * QUICK.eval_every


def test_the_average_follows_the_parameters(model):
    config = dataclasses.replace(QUICK, num_steps=1, schedule="constant", jitter=0.0)
    fast = fit(model, X, config=dataclasses.replace(config, ema_decay=0.0))
    slow = fit(model, X, config=dataclasses.replace(config, ema_decay=0.9))
    start = model.log_scale[...]
    np.testing.assert_allclose(
        slow.model.log_scale[...] - start,
        0.1 * (fast.model.log_scale[...] - start),
        rtol=1e-4,
    )


def test_noise_has_the_asked_size(model):
    seen = []

    def loss(model, x, key):
        jax.debug.callback(lambda a: seen.append(np.asarray(a)), x)
        return -model.log_prob(x)

    config = dataclasses.replace(QUICK, num_steps=1, batch_size=500, jitter=0.5)
    fit(model, np.tile([[1.0, 2.0], [3.0, 8.0]], (250, 1)), loss_fn=loss, config=config)
    noisy = next(a for a in seen if len(np.unique(a)) > 4)
    near_low = noisy[np.argsort(noisy[:, 1])][:100]
    assert near_low.shape == (100, 2)
    np.testing.assert_allclose(
        noisy.std(axis=0), np.sqrt(1.25) * np.array([1.0, 3.0]), rtol=0.15
    )


def test_bad_steps_are_skipped_and_counted(model):
    def loss(model, batch, key):
        x, poison = batch
        return -model.log_prob(x) + jnp.where(poison.max() > 0, jnp.nan, 0.0)

    poison = np.zeros((500, 1), np.float32)
    poison[17] = 1.0  # one batch of each epoch of seven
    result = fit(model, (X, poison), loss_fn=loss, config=QUICK)
    assert 3 <= result.bad_steps <= 5
    assert result.stop_reason == "completed"
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(arrays(result.model)))
    assert np.isfinite(result.history["loss"][1:]).all()


def test_too_many_bad_steps_stop_with_the_last_good_state(model):
    def loss(model, x, key):
        scale = model.log_scale[...].sum()
        return jnp.where(scale > 0.2, jnp.nan, 1.0) * -model.log_prob(x)

    config = dataclasses.replace(QUICK, num_steps=500, max_bad_steps=5)
    with pytest.warns(RuntimeWarning, match="not finite for 5 steps in a row"):
        result = fit(model, X, loss_fn=loss, config=config)
    assert result.stop_reason == "non-finite"
    assert result.bad_steps >= 5
    assert result.history["step"][-1] < 100
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(arrays(result.model)))


def test_context_trains_a_conditional_model(model):
    context = _RNG.normal(size=(500, 1)).astype(np.float32)
    x = 3 * context + 0.1 * X
    result = fit(model, x, x, context=context, context_valid=context, config=QUICK)
    assert result.history["valid"][-1] > result.history["valid"][0]


def test_a_custom_loss_sees_the_batch_and_a_key(model):
    def loss(model, batch, key):
        noise = jax.random.normal(key, batch["x"].shape)
        return -model.log_prob(batch["x"] + 0.1 * noise, batch["c"])

    rows = {"x": X, "c": np.ones((500, 1), np.float32)}
    result = fit(model, rows, rows, loss_fn=loss, config=QUICK)
    assert result.history["valid"][-1] > result.history["valid"][0]


def test_a_filter_chooses_what_trains(model):
    only = nnx.All(nnx.Param, nnx.PathContains("log_scale"))
    result = fit(model, X, trainable=only, config=QUICK)
    np.testing.assert_array_equal(result.model.mean.bias[...], model.mean.bias[...])
    assert not np.array_equal(result.model.log_scale[...], model.log_scale[...])


def test_a_mesh_gives_the_single_device_losses(model):
    n = jax.device_count()
    mesh = jax.make_mesh((n,), ("data",))
    one = fit(model, X, VALID, config=QUICK)
    many = fit(model, X, VALID, config=QUICK, mesh=mesh)
    for name in ("train", "valid", "loss"):
        np.testing.assert_allclose(
            many.history[name], one.history[name], rtol=1e-3, atol=1e-3
        )


def test_monitored_sets_and_the_writer_see_each_evaluation(model):
    class Writer:
        def __init__(self):
            self.steps, self.names = [], set()

        def write_scalars(self, step, scalars):
            self.steps.append(step)
            self.names |= scalars.keys()

        def flush(self):
            self.names.add("flushed")

    writer, called = Writer(), []
    result = fit(
        model,
        X,
        VALID,
        monitor={"test": VALID[:50]},
        writer=writer,
        callback=lambda step, model: called.append((step, type(model))),
        config=QUICK,
    )
    assert writer.steps == [0, 10, 20, 30]
    assert {"train", "valid", "test", "loss", "seconds", "flushed"} <= writer.names
    assert called == [(s, Normal) for s in (0, 10, 20, 30)]
    assert result.history["test"].shape == (4,)


def test_a_run_leaves_its_best_and_last_model(model, tmp_path):
    import rbig_nnx as rn

    flow = rn.coupling_flow(2, 1, num_components=2, hidden=(4,), rngs=nnx.Rngs(0))
    config = dataclasses.replace(QUICK, num_steps=20, checkpoint_every=10)
    result = fit(flow, X, VALID, config=config, workdir=tmp_path)
    x = jnp.asarray(VALID)
    loaded = load_flow(tmp_path)
    np.testing.assert_array_equal(loaded.log_prob(x), result.model.log_prob(x))
    again = fit(flow, X, VALID, config=config, workdir=tmp_path, resume=False)
    np.testing.assert_array_equal(
        load_flow(tmp_path).log_prob(x), again.model.log_prob(x)
    )
    assert (tmp_path / "checkpoints.previous").is_dir()


class Empty(nnx.Module):
    def __init__(self):
        self.scale = Count(jnp.ones(()))

    def log_prob(self, x, context=None):
        return -jnp.sum(x**2, -1) * self.scale[...]


class Narrow(Normal):
    num_features = 3
    context_features = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": Empty()}, "`model` must have parameters to train"),
        (
            {"flow": Narrow(rngs=nnx.Rngs(0))},
            "must have the model's 3 features; got 2",
        ),
        ({"x_valid": VALID[:, :1]}, "`x_valid` must have the columns of `x_train`"),
        ({"x_valid": VALID * np.nan}, "`x_valid` must be finite"),
        ({"context": np.ones((500, 1))}, "`x_valid` must have the columns"),
        (
            {"loss_fn": lambda m, x, k: m.log_scale[...] + x},
            "`loss_fn` must return a mean loss",
        ),
    ],
)
def test_bad_arguments_are_named(model, change, message):
    arguments = {"flow": model, "x_train": X, "x_valid": VALID, "config": QUICK}
    with pytest.raises(ValueError, match=message):
        fit(**(arguments | change))


def test_context_must_match_the_model():
    class Wants(Normal):
        num_features = 2
        context_features = 1

    with pytest.raises(ValueError, match="1 context features; got no context"):
        fit(Wants(rngs=nnx.Rngs(0)), X, config=QUICK)
