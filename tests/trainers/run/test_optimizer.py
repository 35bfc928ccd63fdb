"""Optimisers of Optax in place of the library's own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax import contrib

from tests.slow import slow
from tests.trainers.layouts import LAYOUTS, SPLIT, mesh_of
from tests.trainers.tiny import Tiny
from trainers import CheckpointError, TrainConfig, fit, restore
from trainers.checkpoints.identity import differences, fingerprint
from trainers.placement import sharding
from trainers.run.optimizer import averaged, own_optimizer
from trainers.run.step import negative_log_prob

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(96, 2)).astype(np.float32)
PLAIN = TrainConfig(
    num_steps=6,
    batch_size=96,
    eval_every=3,
    steps_per_dispatch=2,
    jitter=0.0,
    ema_decay=0.0,
)


def partly_schedule_free():
    def labels(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "free" if path[-1].key == "kernel" else "adam", params
        )

    free = contrib.schedule_free_sgd(0.01)
    return optax.partition({"free": free, "adam": optax.adam(0.01)}, labels)


def noisy():
    return optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.01))


def plateau():
    reduce = contrib.reduce_on_plateau(patience=1, factor=0.5, accumulation_size=2)
    return optax.chain(optax.adam(0.3), reduce)


def sharpness_aware(**options):
    ascent = optax.chain(contrib.normalize(), optax.sgd(0.05))
    return contrib.sam(optax.sgd(0.01), ascent, **options)


OPTIMIZERS = {
    "sgd(schedule)": lambda: optax.sgd(optax.linear_schedule(0.01, 0, 6)),
    "adafactor": lambda: optax.adafactor(0.01, min_dim_size_to_factor=2),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(0.01), 2),
    "muon": lambda: contrib.muon(0.01),
    "schedule-free": lambda: contrib.schedule_free_sgd(0.01),
    "inject": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
    "noise": noisy,
    "plateau": plateau,
    "polyak": lambda: optax.polyak_sgd(0.1),
    "lbfgs": lambda: optax.lbfgs(memory_size=3),
    "sophia": lambda: contrib.sophia(0.001),
    "sam": sharpness_aware,
    "sam, opaque": functools.partial(sharpness_aware, opaque_mode=True),
    "partition": partly_schedule_free,
}


def by_hand(optimizer, steps):
    """Parameters and state after a few steps on all rows, by a loop of Optax."""
    graph, state = nnx.split(Tiny())
    params, given = nnx.to_pure_dict(state), optimizer.init(nnx.to_pure_dict(state))

    def loss(params, grad_fn=None, obj_fn=None):
        return -jnp.mean(nnx.merge(graph, nnx.State(params)).log_prob(X))

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = own_optimizer(optimizer, TrainConfig()).update(
            grad,
            state,
            params,
            value=value,
            grad=grad,
            value_fn=loss,
            obj_fn=loss,
            grad_fn=lambda params, _: jax.grad(loss)(params),
        )
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, given = step(params, given)
    return params, given


def arrays(model):
    return nnx.to_pure_dict(nnx.state(model))


def assert_equal(one, other, **tolerance):
    check = functools.partial(np.testing.assert_allclose, **tolerance)
    jax.tree.map(check, one, other)


@pytest.mark.parametrize(
    "name", ["MultiSteps", *map(slow, sorted(OPTIMIZERS.keys() - {"MultiSteps"}))]
)
def test_parameters_move_as_in_a_loop_of_optax(name):
    result = fit(Tiny(), X, config=PLAIN, optimizer=OPTIMIZERS[name]())
    params, state = by_hand(OPTIMIZERS[name](), PLAIN.num_steps)
    expected = averaged(params, params, state, 0.0)
    assert result.bad_steps == 0
    assert_equal(arrays(result.model), expected, rtol=1e-3, atol=1e-5)


def test_the_averages_of_a_schedule_free_optimiser_are_what_is_evaluated():
    start, params = {"a": jnp.ones(3), "b": jnp.ones(2)}, {"a": jnp.zeros(3)}
    params["b"] = jnp.full(2, 4.0)
    optimizer = contrib.schedule_free_sgd(0.1)
    state = optimizer.init(start)  # z, where the base optimiser stands
    expected = contrib.schedule_free_eval_params(state, params)
    assert_equal(averaged(start, params, state, 0.99), expected, rtol=1e-6)
    # Within others too, and where it moves a part of the parameters.
    labels = {"a": "free", "b": "sgd"}
    both = optax.partition({"free": optimizer, "sgd": optax.sgd(0.1)}, labels)
    state = optax.MultiSteps(optax.chain(both, optax.identity()), 2).init(start)
    found = averaged(start, params, state, 0.5)
    assert_equal(found["a"], expected["a"], rtol=1e-6)
    assert_equal(found["b"], 2.5)


def test_the_average_is_not_of_where_an_optimiser_looks_around():
    optimizer, home = sharpness_aware(), {"a": jnp.ones(3)}
    state, ones = optimizer.init(home), {"a": jnp.ones(3)}
    updates, state = optimizer.update(ones, state, home)
    away = optax.apply_updates(home, updates)
    assert float(jnp.abs(away["a"] - 1).max()) > 0.01
    assert_equal(averaged(home, away, state, 0.5), home)
    updates, state = optimizer.update(ones, state, away)
    moved = optax.apply_updates(away, updates)
    assert_equal(averaged(home, moved, state, 0.0), moved)
    assert_equal(moved["a"], 0.99, rtol=1e-6)


class Stop(Exception):
    """Stands for a crash."""


def crash_at(step):
    def callback(at, model):
        if at == step:
            raise Stop

    return callback


@pytest.mark.parametrize(
    "name",
    [
        "MultiSteps",
        *map(slow, ["schedule-free", "noise", "inject", "lbfgs", "adafactor"]),
    ],
)
def test_a_run_goes_on_to_the_same_bits(name, tmp_path):
    """Of `MultiSteps` in the middle of an accumulation."""
    config = dataclasses.replace(
        PLAIN, batch_size=32, ema_decay=0.99, checkpoint_every=2, eval_every=4
    )
    run = functools.partial(fit, Tiny(), X, config=config)
    multi = name == "MultiSteps"
    make = (
        (lambda: optax.MultiSteps(optax.adam(0.01), 3)) if multi else OPTIMIZERS[name]
    )
    optimizer = make()
    whole = run(workdir=tmp_path / "whole", optimizer=optimizer)
    workdir = tmp_path / "part"
    with pytest.raises(Stop):
        run(workdir=workdir, optimizer=optimizer, callback=crash_at(4))
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2"]
    rest = run(workdir=workdir, optimizer=optimizer if multi else make())
    assert_equal(arrays(rest.model), arrays(whole.model), rtol=0)
    assert_equal(rest.history["loss"], whole.history["loss"], rtol=0)
    raw = [
        arrays(restore(tmp_path / part, Tiny(), weights="raw"))
        for part in ("whole", "part")
    ]
    assert_equal(*raw, rtol=0)


def identity(optimizer):
    own = optimizer and own_optimizer(optimizer, TrainConfig())
    return fingerprint(
        Tiny(),
        config=TrainConfig(),
        loss_fn=negative_log_prob,
        optimizer=own,
        trainable=nnx.Param,
        data={},
    )


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda: None, "`optimizer` (not given there, given here)"),
        (lambda: optax.sgd(1e-2, momentum=0.9), "`optimizer` (the form of its state)"),
        (lambda: optax.MultiSteps(optax.adam(1e-3), 2), "(the form of its state)"),
        (lambda: optax.adamw(1e-3), "the settings of `optimizer`"),
        (lambda: optax.adam(2e-3), "the settings of `optimizer`"),
    ],
)
def test_a_run_does_not_go_on_with_another_optimiser(other, told):
    (found,) = differences(identity(other()), identity(optax.adam(1e-3)))
    assert told in found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (optax.MultiSteps(optax.sgd(1.0), 2), optax.MultiSteps(optax.sgd(1.0), 3)),
        (optax.sgd(lambda _: 0.1), optax.sgd(lambda _: 0.2)),
        *[[optax.sgd(optax.linear_schedule(1, 0, n)) for n in (8, 9)]],
        *[[optax.sgd(jnp.float32(rate)) for rate in (1, 2)]],
    ],
    ids=["MultiSteps", "function", "schedule", "array"],
)
def test_settings_that_its_functions_hold_are_told_apart(one, other):
    assert differences(identity(one), identity(other)) == [
        "the settings of `optimizer`"
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_line_gives_the_same_identity(name):
    assert identity(OPTIMIZERS[name]()) == identity(OPTIMIZERS[name]())


@pytest.mark.slow
def test_a_workdir_of_another_optimiser_is_refused(tmp_path):
    fit(Tiny(), X, config=PLAIN, workdir=tmp_path, optimizer=optax.sgd(1e-3))
    with pytest.raises(CheckpointError, match="the settings of `optimizer`"):
        fit(Tiny(), X, config=PLAIN, workdir=tmp_path, optimizer=optax.sgd(1e-2))
    with pytest.raises(CheckpointError, match=r"`optimizer` \(given there, not"):
        fit(Tiny(), X, config=PLAIN, workdir=tmp_path)


def test_a_step_whose_updates_are_not_finite_changes_nothing():
    optimizer = optax.chain(
        optax.trace(0.9),
        optax.scale_by_schedule(lambda count: jnp.where(count < 2, -0.01, jnp.nan)),
    )
    config = dataclasses.replace(PLAIN, max_bad_steps=2)
    with pytest.warns(RuntimeWarning, match="not finite for 2 steps"):
        result = fit(Tiny(), X, config=config, optimizer=optimizer)
    assert result.stop_reason == "non-finite"
    assert result.history["bad_steps"].tolist() == [0, 1, result.bad_steps]
    params, _ = by_hand(optimizer, 2)  # the state counts the good steps
    assert_equal(arrays(result.model), params, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_lie_where_their_parameters_do(name):
    mesh = mesh_of(4, 2)
    params = nnx.to_pure_dict(nnx.state(Tiny()))
    places = sharding.like(params, sharding.variable_shardings(Tiny(), mesh, SPLIT))
    optimizer = own_optimizer(OPTIMIZERS[name](), TrainConfig())
    state = jax.eval_shape(optimizer.init, params)
    found = sharding.optimizer_shardings(optimizer, params, places, mesh)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    spread = {
        shape.shape
        for shape, place in zip(
            jax.tree.leaves(state), jax.tree.leaves(found), strict=True
        )
        if not place.is_fully_replicated
    }
    assert spread <= {(2, 8), (8, 4)}
    stateless = {"sgd(schedule)", "polyak", "noise", "sam, opaque", "adafactor"}
    assert bool(spread) == (name not in stateless)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["adafactor", "schedule-free", "lbfgs", "MultiSteps"])
def test_every_layout_gives_the_losses_of_one_device(name, layout):
    config = dataclasses.replace(PLAIN, batch_size=48, accumulate=2)
    run = functools.partial(
        fit, Tiny(), X, config=config, weights=np.arange(96) % 4 + 1.0
    )
    one = run(optimizer=OPTIMIZERS[name]())
    many = run(optimizer=OPTIMIZERS[name](), **LAYOUTS[layout]())
    for column in ("train", "loss", "grad_norm"):
        np.testing.assert_allclose(
            many.history[column], one.history[column], rtol=2e-3, err_msg=column
        )


@pytest.mark.slow
def test_only_what_trains_has_a_state_and_moves():
    only = nnx.PathContains("out")
    config = dataclasses.replace(PLAIN, accumulate=2)
    optimizer = contrib.schedule_free_adamw(0.01)
    result = fit(Tiny(), X, config=config, optimizer=optimizer, trainable=only)
    start, end = arrays(Tiny()), arrays(result.model)
    assert_equal(end["trunk"], start["trunk"], rtol=0)
    assert np.abs(end["out"]["kernel"] - start["out"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (optax.adam, "got a function adam. Call a function that makes one"),
        (optax.linear_schedule(1, 0, 9), "optax.sgd(schedule)"),
        (optax.MultiSteps, "got a type MultiSteps"),
        (nnx.Optimizer(Tiny(), optax.sgd(1.0), wrt=nnx.Param), "pass its `tx`"),
        ("adam", "got a str"),
    ],
)
def test_what_is_no_optimiser_is_refused(optimizer, told):
    with pytest.raises(ValueError, match="`optimizer` must be an optax") as error:
        fit(Tiny(), X, optimizer=optimizer)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 0.1},
        {"learning_rates": {"*.kernel": 0.5}},
        {"schedule": "constant"},
        {"warmup_fraction": 0.1},
        {"initial_fraction": 0.1},
        {"final_fraction": 0.1},
        {"clip_norm": 2.0},
        {"weight_decay": 0.0},
    ],
    ids=str,
)
def test_settings_of_the_optimiser_go_into_it(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"must leave to `optimizer`.*got `{name}`="):
        fit(Tiny(), X, optimizer=optax.sgd(0.1), config=TrainConfig(**settings))


@pytest.mark.parametrize(
    ("optimizer", "settings", "told"),
    [
        (contrib.schedule_free_sgd(), {"ema_decay": 0.5}, "`ema_decay` must keep its"),
        (
            optax.lookahead(optax.sgd(0.1), 2, 0.5),
            {},
            "`optimizer` must need no more than",
        ),
        (
            optax.masked(optax.adam(1), {"out": True}),
            {},
            "be one of nested dictionaries",
        ),
    ],
    ids=["ema_decay", "update", "init"],
)
def test_what_an_optimiser_cannot_do_is_told(optimizer, settings, told):
    with pytest.raises(ValueError, match=told):
        fit(Tiny(), X, optimizer=optimizer, config=TrainConfig(**settings))
