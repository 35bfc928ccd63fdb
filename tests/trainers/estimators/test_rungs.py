"""Runs with one decay after another: when there is another one, and which is returned."""

import dataclasses
import itertools

import numpy as np
import pytest

from trainers import FitResult
from trainers.checkpoints.variables import arrays_of
from trainers.estimators import rungs
from trainers.estimators.encoded import EncodedTable, split
from trainers.estimators.rungs import START, steps_within, train_rungs
from trainers.estimators.settings import settings_for
from trainers.estimators.starts import start
from trainers.placement import compilation

SMALL = {"num_blocks": 1, "num_components": 2, "hidden": (4,), "rotation": "pca"}


def result(valid, *, every=100, reason="completed"):
    """A run with these validation scores."""
    steps = every * np.arange(len(valid))
    return FitResult(
        model=f"of {max(valid)}",
        history={"step": steps, "valid": np.array(valid)},
        best_step=int(steps[np.argmax(valid)]),
        stop_reason=reason,
        bad_steps=0,
        compile_seconds=0.0,
        train_seconds=0.0,
    )


def climbed(monkeypatch, runs, *, steps=300, valid="rows", **options):
    """What `train_rungs` makes of runs that end like these, and their settings."""
    configs, runs = [], iter(runs)

    def train_flow(flow, train, valid, config, **options):
        configs.append((config.weight_decay, config.num_steps, options["workdir"]))
        return next(runs)

    monkeypatch.setattr(rungs, "train_flow", train_flow)
    settings = settings_for(3_000, 2, asked={"num_steps": steps})
    settings = dataclasses.replace(settings, decays=(0.1, 1.0, 10.0), **options)
    return train_rungs("flow", None, valid, settings), configs


RISING = [0.0, 1.0, 2.0, 3.0]
TURNED = [0.0, 1.0, 0.5, 0.2]


def test_a_run_that_does_not_overfit_is_the_only_one(monkeypatch):
    chosen, configs = climbed(monkeypatch, [result(RISING)])
    assert [decay for decay, *_ in configs] == [0.1]
    assert chosen.best.result.model == "of 3.0"


@pytest.mark.parametrize(
    ("second", "third", "count", "best"),
    [
        ([0.0, 1.5, 1.0, 0.5], [0.0, 1.0, 1.7, 1.2], 3, "of 1.7"),
        ([0.0, 1.5, 1.0, 0.5], [0.0, 1.0, 1.2, 1.2], 3, "of 1.5"),
        ([0.0, 0.5, 1.0, 1.5], None, 2, "of 1.5"),
        ([0.0, 0.9, 0.8, 0.7], None, 2, "of 1.0"),
    ],
    ids=["gains", "turns", "fits", "gains nothing"],
)
def test_more_decay_while_runs_overfit_and_gain(
    monkeypatch, second, third, count, best
):
    runs = [result(run) for run in (TURNED, second, third) if run]
    chosen, configs = climbed(monkeypatch, runs)
    assert len(configs) == len(chosen.runs) == count
    assert chosen.best.result.model == best
    assert "\n" not in chosen.told()
    assert chosen.best.name in chosen.told()


def test_an_early_stop_is_overfitting_and_the_start_is_a_candidate(monkeypatch):
    runs = [result([0.0, -1.0, -1.0], reason="early stop") for _ in range(2)]
    chosen, configs = climbed(monkeypatch, runs)
    assert len(configs) == 2
    assert chosen.best.name == START
    assert chosen.best.result.model == "flow"
    assert chosen.best.result.best_step == 0


def test_of_few_rows_gains_alone_decide(monkeypatch):
    runs = [result(RISING), result([0.0, 2.0, 3.0, 4.0]), result(RISING)]
    chosen, configs = climbed(monkeypatch, runs, only_overfitted=False)
    assert len(configs) == 3
    assert chosen.best.result.model == "of 4.0"


def test_without_held_out_rows_there_is_one_run(monkeypatch):
    ended = result([np.nan] * 4)
    options = {"valid": None, "only_overfitted": False}
    chosen, configs = climbed(monkeypatch, [ended], **options)
    assert len(configs) == 1
    assert chosen.best.result is ended


def test_steps_of_a_budget_are_shared(monkeypatch):
    runs = [
        result(TURNED, every=200),
        result([0.0, 2.0, 1.0], every=150),
        result(TURNED),
    ]
    _, configs = climbed(monkeypatch, runs, steps=700, total_steps=1_200)
    assert [steps for _, steps, _ in configs] == [700, 600, 300]
    runs = [result(TURNED, every=370)]
    assert len(climbed(monkeypatch, runs, steps=1_100, total_steps=1_200)[1]) == 1


def test_a_signal_ends_all_of_it(monkeypatch):
    runs = [result(TURNED), result(TURNED[:2], reason="interrupted")]
    chosen, configs = climbed(monkeypatch, runs)
    assert chosen.interrupted
    assert len(configs) == 2


@pytest.fixture(scope="module")
def small():
    """A start, rows, and settings under which every run counts as overfitted."""
    random = np.random.default_rng(0)
    x = random.normal(size=(160, 2)).astype(np.float32) ** 3
    rows, valid = split(EncodedTable(rows=x, log_det=np.zeros(160)), 0.25, 0)
    asked = SMALL | {"num_steps": 40, "eval_every": 10, "patience": 0}
    settings = settings_for(120, 2, asked=asked)
    settings = dataclasses.replace(settings, decays=(0.1, 1.0, 10.0))
    flow, _ = start(rows, settings.architecture, seed=0)
    return flow, rows, valid, settings


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(rungs, "_is_overfitted", lambda result: True)
    scores = itertools.count()
    monkeypatch.setattr(rungs, "_best_score", lambda result: float(next(scores)))


@pytest.mark.slow
def test_all_runs_are_one_compiled_program(small, always):
    train_rungs(*small)
    before = list(compilation._compiled)
    longer = dataclasses.replace(small[-1].train, num_steps=60, learning_rate=1e-4)
    train_rungs(*small[:-1], dataclasses.replace(small[-1], train=longer))
    assert list(compilation._compiled) == before


@pytest.mark.slow
def test_a_ladder_that_was_stopped_goes_on_to_the_same_bits(small, always, tmp_path):
    whole = train_rungs(*small, workdir=tmp_path / "whole")
    calls = itertools.count()

    def stop(step, model):
        if next(calls) == 8:  # in the second run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rungs(*small, workdir=tmp_path / "stopped", callback=stop)
    found = train_rungs(*small, workdir=tmp_path / "stopped")
    assert [c.name for c in found.candidates] == [c.name for c in whole.candidates]
    for one, other in zip(found.runs, whole.runs, strict=True):
        np.testing.assert_array_equal(one.history["valid"], other.history["valid"])
        arrays = arrays_of(other.model)
        for name, array in arrays_of(one.model).items():
            np.testing.assert_array_equal(array, arrays[name], name)
    anew = train_rungs(*small, workdir=tmp_path / "stopped", resume=False)
    assert len(anew.runs) == 3
    assert (tmp_path / "stopped" / "rungs.previous").is_dir()


def test_what_fits_into_seconds_is_measured_by_the_first_steps(small, monkeypatch):
    ended = result([0.0, 0.0, 0.0])
    ended.history["seconds"] = np.array([0.5, 2.0, 3.5])  # .5 a score, 1 for 20 steps
    monkeypatch.setattr(rungs, "train_flow", lambda *args, **options: ended)
    config = dataclasses.replace(small[-1].train, eval_every=20)
    found = steps_within(100.0, *small[:-1], config)
    np.testing.assert_allclose(found, (95 - 40 * 0.5) * 20, rtol=0.01)
    assert steps_within(1.0, *small[:-1], config) == 40


def test_of_a_long_time_more_steps_are_measured(small, monkeypatch):
    def train_flow(flow, train, valid, config, **options):
        ended = result([0.0, 0.0, 0.0])
        a_step = 0.05 if config.num_steps == 40 else 0.1  # the first are fast
        between = 0.5 + a_step * config.eval_every
        ended.history["seconds"] = 0.5 + between * np.arange(3)
        return ended

    monkeypatch.setattr(rungs, "train_flow", train_flow)
    config = dataclasses.replace(small[-1].train, eval_every=20)
    found = steps_within(10_000.0, *small[:-1], config)
    np.testing.assert_allclose(found, (9_500 - 40 * 0.5) / 0.1, rtol=0.01)
