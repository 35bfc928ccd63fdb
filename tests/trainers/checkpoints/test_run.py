"""Runs that stop and go on: to the same bits, whatever stopped them."""

import concurrent.futures
import dataclasses
import functools
import os
import shutil
import signal

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow
from tests.trainers.layouts import SPLIT, mesh_of
from tests.trainers.tiny import Tiny
from trainers import CheckpointError, TrainConfig, fit, load_flow, restore, save
from trainers.checkpoints.run import RunCheckpoints
from trainers.checkpoints.variables import arrays_of

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(300, 2)).astype(np.float32)
VALID = _RNG.normal(size=(100, 2)).astype(np.float32)
CONFIG = TrainConfig(
    num_steps=24,
    batch_size=32,
    eval_every=8,
    steps_per_dispatch=3,
    checkpoint_every=5,
    ema_decay=0.9,
)


class Stop(Exception):
    """Stands for a crash."""


class Noisy(nnx.Module):
    """A Gaussian with dropout: state beside parameters, and random keys."""

    def __init__(self, *, rngs):
        self.mean = nnx.Linear(1, 2, rngs=rngs)
        self.log_scale = nnx.Param(jnp.zeros(2))
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def log_prob(self, x, context=None):
        mean = self.mean(self.dropout(jnp.ones((*x.shape[:-1], 1), x.dtype)))
        z = (x - mean) * jnp.exp(-self.log_scale[...])
        return -0.5 * jnp.sum(z**2, -1) - jnp.sum(self.log_scale[...])


class Other(Noisy):
    """Another class with the same arrays."""


def flow(seed=0):
    return rn.coupling_flow(2, 1, num_components=2, hidden=(4,), rngs=nnx.Rngs(seed))


def run(workdir, *, model=None, config=CONFIG, x=X, **options):
    model = Noisy(rngs=nnx.Rngs(0)) if model is None else model
    return fit(model, x, VALID, config=config, workdir=workdir, **options)


def interrupt_at(step):
    def callback(at, model):
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return callback


def crash_at(step):
    def callback(at, model):
        if at == step:
            raise Stop

    return callback


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder), folder


def assert_same_run(one, two, folders):
    assert one.history.keys() == two.history.keys()
    for name in one.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(one.history[name], two.history[name], name)
    assert (one.best_step, one.stop_reason) == (two.best_step, two.stop_reason)
    like = Noisy(rngs=nnx.Rngs(1))
    for options in ({}, {"step": "last"}, {"step": "last", "weights": "raw"}):
        a, b = (arrays_of(restore(f, like, **options)) for f in folders)
        for name, array in a.items():
            np.testing.assert_array_equal(array, b[name], f"{name} {options}")


@pytest.mark.parametrize("stop", [interrupt_at(0), interrupt_at(8), crash_at(16)])
def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path, stop):
    try:
        stopped = run(tmp_path, callback=stop)
    except Stop:
        pass
    else:
        assert stopped.stop_reason == "interrupted"
        assert len(stopped.history["step"]) < 4
    assert_same_run(run(tmp_path), whole[0], (tmp_path, whole[1]))


LAYOUTS = {
    "one": dict,
    "1 data": lambda: {"mesh": mesh_of(1)},
    "2 data": lambda: {"mesh": mesh_of(2)},
    "4 data": lambda: {"mesh": mesh_of(4)},
    "8 data": lambda: {"mesh": mesh_of(8)},
    "4 data x 2 model": lambda: {"mesh": mesh_of(4, 2), "partition": SPLIT},
    "pmap on 8": lambda: {"mesh": mesh_of(8), "strategy": "pmap"},
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Runs that stopped half-way, and wholes, by layout; made once each."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp("stopped")
        layout = {"model": Tiny(), **LAYOUTS[name]()}
        run(folder, callback=interrupt_at(8), **layout)
        return folder, run(None, **layout)

    return make


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *(slow("8 data", after) for after in LAYOUTS),
        ("4 data x 2 model", "4 data x 2 model"),
        slow("4 data x 2 model", "one"),
        slow("pmap on 8", "2 data"),
    ],
)
def test_a_run_goes_on_in_another_layout(stopped, tmp_path, before, after):
    folder, expected = stopped(before)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    result = run(tmp_path, model=Tiny(), **LAYOUTS[after]())
    assert result.stop_reason == "completed"
    exact = 4 if before == after else 2  # evaluations; others sum in another order
    for name in expected.history.keys() - {"seconds"}:
        found, wanted = result.history[name], expected.history[name]
        np.testing.assert_array_equal(found[:exact], wanted[:exact], name)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, err_msg=name)
    for name, array in arrays_of(restore(tmp_path, Tiny())).items():
        np.testing.assert_array_equal(array, arrays_of(result.model)[name], name)


def test_a_finished_run_gives_its_result_back(whole, monkeypatch):
    result, folder = whole
    monkeypatch.setattr("trainers.run.program.Program.advance", None)
    again = run(folder)
    assert_same_run(again, result, (folder, folder))
    np.testing.assert_array_equal(again.history["seconds"], result.history["seconds"])
    for name, array in arrays_of(result.model).items():
        np.testing.assert_array_equal(array, arrays_of(again.model)[name])


def test_a_step_holds_best_last_and_raw_values(whole):
    result, folder = whole
    like = Noisy(rngs=nnx.Rngs(1))
    best = arrays_of(restore(folder, like))
    for name, array in arrays_of(result.model).items():
        np.testing.assert_array_equal(array, best[name], err_msg=name)
    last = arrays_of(restore(folder, like, step="last"))
    raw = arrays_of(restore(folder, like, step="last", weights="raw"))
    assert not np.array_equal(last["log_scale"], raw["log_scale"])
    assert [p.name for p in sorted(folder.glob("checkpoints/*"))] == ["22", "24"]


def test_a_model_is_not_saved_over_a_run(whole):
    for folder in (whole[1], whole[1] / "checkpoints"):
        with pytest.raises(ValueError, match="holds something else"):
            save(folder, Noisy(rngs=nnx.Rngs(0)))
    assert (whole[1] / "checkpoints" / "24").is_dir()


def test_a_flow_loads_from_a_run(tmp_path):
    config = dataclasses.replace(CONFIG, num_steps=8)
    result = run(tmp_path, model=flow(), config=config)
    x = jnp.asarray(VALID)
    loaded = load_flow(tmp_path)
    np.testing.assert_array_equal(loaded.log_prob(x), result.model.log_prob(x))
    raw = load_flow(tmp_path, step="last", weights="raw")
    assert not np.array_equal(raw.log_prob(x), loaded.log_prob(x))


BEYOND = X.copy()
BEYOND[213, 1] += 1e-6  # no sample of rows would have seen it


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"config": dataclasses.replace(CONFIG, seed=1)},
            r"`seed` \(0 there, 1 here\)",
        ),
        ({"x": X + 1}, "the values of `x_train`"),
        ({"x": BEYOND}, "the values of `x_train`"),
        ({"x": X[:200]}, r"the shape of `x_train` \(\[300, 2\] there, \[200, 2\] here"),
        ({"weights": np.ones(300)}, r"`weights` \(not given there, given here\)"),
        ({"monitor": {"test": X}}, r"`monitor\['test'\]` \(not given there"),
        (
            {"model": Other(rngs=nnx.Rngs(0))},
            r"the model \(Noisy there, Other here\)",
        ),
        (
            {"model": Noisy(rngs=nnx.Rngs(1))},
            r"the first parameters \(mean.kernel.*another seed or warm start\)",
        ),
        (
            {"loss_fn": lambda m, x, key: -m.log_prob(x)},
            r"`loss_fn` \(.*negative_log_prob there",
        ),
        ({"trainable": nnx.PathContains("log_scale")}, r"which of them .*`trainable`"),
        (
            {"identity": {"rotation": "ica"}},
            r"`rotation` \(None there, 'ica' here\)",
        ),
    ],
)
def test_another_run_is_refused_and_named(whole, change, named, monkeypatch):
    monkeypatch.setattr("trainers.trainer.Program", None)  # before anything compiles
    ways_out = r"`workdir` \(--workdir\), or pass `resume=False` \(--no-resume\)"
    with pytest.raises(CheckpointError, match=rf"{named}.*{ways_out}") as caught:
        run(whole[1], **change)
    assert "\n" not in str(caught.value)


def test_the_start_may_differ_by_rounding(whole):
    model = Noisy(rngs=nnx.Rngs(0))
    model.mean.kernel[...] *= 1 + 1e-6  # as a warm start on an accelerator does
    assert run(whole[1], model=model).stop_reason == "completed"


def test_how_often_to_save_may_change(whole):
    config = dataclasses.replace(CONFIG, checkpoint_every=1, max_to_keep=5)
    assert run(whole[1], config=config).stop_reason == "completed"


def test_an_old_run_is_set_aside_on_demand(tmp_path):
    config = dataclasses.replace(CONFIG, num_steps=3)
    run(tmp_path, config=config)
    other = dataclasses.replace(config, seed=1)
    result = run(tmp_path, config=other, resume=False)
    assert result.stop_reason == "completed"
    assert (tmp_path / "checkpoints.previous" / "3").is_dir()


def flip(step):
    for file in (step / "arrays").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x40
        file.write_bytes(content)


def truncate(step):
    for file in (step / "arrays").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-9])


def empty(step):
    shutil.rmtree(step)
    step.mkdir()


def foreign(step):
    shutil.rmtree(step)
    with ocp.CheckpointManager(step.parent) as manager:
        manager.save(int(step.name), args=ocp.args.StandardSave({"a": np.ones(3)}))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [flip, truncate, empty, foreign])
def test_a_damaged_step_is_left_for_the_one_before(whole, tmp_path, damage):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "checkpoints" / "24")
    if damage in (flip, truncate):
        message = r"checkpoints/24 is damaged: .* Step 22 is whole: pass `step=22`"
        with pytest.raises(CheckpointError, match=message):
            restore(tmp_path, Noisy(rngs=nnx.Rngs(1)))
    with pytest.warns(RuntimeWarning, match=r"checkpoints/24.* goes on from step 22"):
        result = run(tmp_path)
    assert_same_run(result, whole[0], (tmp_path, whole[1]))
    assert (tmp_path / "checkpoints.damaged" / "24").is_dir()
    assert (tmp_path / "checkpoints" / "24" / "meta").is_dir()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_a_whole_step_nothing_is_overwritten(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    for step in (tmp_path / "checkpoints").iterdir():
        flip(step)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=r"No other step .* is whole"):
        run(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_handlers_come_back_and_a_second_signal_counts(tmp_path):
    seen = []
    old = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:

        def twice(step, model):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)

        result = run(tmp_path, callback=twice)
        assert result.stop_reason == "interrupted"
        assert seen == ["mine"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["mine", "mine"]
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_thread_trains_without_handlers(tmp_path):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        result = pool.submit(run, tmp_path).result()
    assert result.stop_reason == "completed"


def test_what_is_written_may_change_at_once(tmp_path):
    identity = {"model": {"model": "Tiny", "config": None}}
    history, tree = [{"step": 0}], {"a": np.ones(1_000)}
    with RunCheckpoints(tmp_path, identity=identity, keep=1, resume=True) as writer:
        writer.write(1, tree, {"history": history})
        history.append({"step": 1})
        tree["a"][:] = 2.0
    reader = RunCheckpoints(tmp_path, identity=identity, keep=1, resume=True)
    saved = reader.newest(tree)
    assert saved.about["history"] == [{"step": 0}]
    np.testing.assert_array_equal(saved.tree["a"], 1.0)
