"""Settings that follow the table: every table gets some that can be used, and all give way."""

import dataclasses

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from trainers import FlowDensity, TrainConfig
from trainers.estimators.settings import (
    DECIDED,
    EVALUATIONS,
    Budget,
    budget_of,
    settings_for,
)
from trainers.moons import Moons

SIZES = [2, 7, 100, 300, 3_000, 50_000, 2_000_000]


@pytest.mark.parametrize("num_rows", SIZES)
@pytest.mark.parametrize("budget", [Budget(), Budget(60.0, 17), Budget(steps=90)])
def test_every_table_gets_settings_that_can_be_used(num_rows, budget):
    settings = settings_for(num_rows, 2, asked={}, budget=budget)
    train = settings.train
    assert settings.architecture.num_components <= max(num_rows // 4, 1)
    assert train.num_steps // train.eval_every <= EVALUATIONS
    # Patience can act, and leaves room for the schedule's tail.
    assert train.patience >= 2
    if train.num_steps >= 500:
        assert 0.1 < train.patience * train.eval_every / train.num_steps < 0.5
    assert train.weight_decay == settings.decays[0]
    assert list(settings.decays) == sorted(settings.decays)


def test_more_rows_get_more_steps_and_longer_averages():
    settings = [settings_for(n, 2, asked={}).train for n in SIZES]
    for name in ("num_steps", "ema_decay", "batch_size"):
        values = [getattr(train, name) for train in settings]
        assert values == sorted(values), name
    assert settings[0].num_steps < settings[-1].num_steps


def test_steps_that_are_asked_for_are_all_taken():
    assert settings_for(300, 2, asked={"num_steps": 200}).train.patience == 0
    both = {"num_steps": 200, "patience": 3}
    assert settings_for(300, 2, asked=both).train.patience == 3


def test_clusters_are_fewer_than_the_rows():
    with pytest.raises(ValueError, match="`clusters` must be fewer than the 9 rows"):
        settings_for(9, 2, asked={"clusters": 9})
    assert settings_for(9, 2, asked={"clusters": 8}).architecture.clusters == 8


def test_what_is_asked_for_is_used():
    asked = {
        "num_blocks": 3,
        "num_components": 5,
        "hidden": [7],
        "rotation": "pca",
        "num_steps": 70,
        "batch_size": 33,
        "eval_every": 35,
        "patience": 0,
        "jitter": 0.5,
        "ema_decay": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 1.0,
        "seed": 4,
    }
    settings = settings_for(10_000, 2, asked=asked)
    found = vars(settings.architecture) | vars(settings.train)
    assert {name: found[name] for name in asked} == asked | {"hidden": (7,)}
    assert settings.decays == (0.0,)
    assert set(settings.values()) == set(DECIDED)


def test_a_budget_fits_the_schedule_and_gives_no_table_endless_epochs():
    few, many = (
        settings_for(n, 2, asked={}, budget=Budget(600.0, 50_000))
        for n in (3_000, 1_000_000)
    )
    assert many.train.num_steps == many.total_steps == 50_000
    assert few.train.num_steps < few.total_steps
    with pytest.raises(ValueError, match="`budget` must be None where `num_steps`"):
        settings_for(300, 2, asked={"num_steps": 3}, budget=Budget(1.0))


def test_a_budget_of_steps_is_that_of_a_time_that_allows_them():
    steps, time = (
        settings_for(3_000, 2, asked={}, budget=budget)
        for budget in (Budget(steps=500), Budget(600.0, 500))
    )
    assert steps.total_steps == steps.train.num_steps == 500
    assert dataclasses.replace(steps, train=time.train) == time
    assert steps.train.eval_every < time.train.eval_every
    many = settings_for(1_000_000, 2, asked={}, budget=Budget(steps=20_000))
    assert many.train.batch_size > steps.train.batch_size


def test_few_rows_get_little_and_runs_that_are_too_short_have_no_others():
    few, many = (settings_for(n, 2, asked={}) for n in (150, 150_000))
    assert few.architecture.hidden < many.architecture.hidden
    assert few.architecture.num_components < many.architecture.num_components
    assert few.decays[0] > many.decays[0]
    assert len(settings_for(150, 2, asked={"num_steps": 20}).decays) == 1


def test_blocks_follow_rows_and_columns():
    few, wide = (settings_for(300, d, asked={}).architecture for d in (10, 60))
    assert few.num_blocks > wide.num_blocks
    wide, large = (settings_for(n, 60, asked={}).architecture for n in (300, 10_000))
    assert wide.num_blocks < large.num_blocks


@pytest.mark.slow
def test_an_estimator_takes_a_budget_of_steps():
    x = np.random.default_rng(0).normal(size=(60, 1))
    density = FlowDensity(num_blocks=1, budget="3 steps", random_state=0).fit(x)
    assert density.settings_.total_steps == 3
    assert density.history_["step"].max() <= 3


@pytest.mark.slow
def test_few_rows_are_not_far_behind_the_mixture_of_their_density():
    moons = Moons()
    x, fresh = (moons.sample(n, random_state=n) for n in (300, 10_000))
    mixture = GaussianMixture(8, random_state=0).fit(x)
    density = FlowDensity(random_state=0).fit(x)
    assert density.score(fresh) > mixture.score(fresh) - 0.3  # one block: 0.7 behind


def test_the_line_can_be_typed():
    settings = settings_for(3_000, 2, asked={"hidden": (8, 9), "weight_decay": 0.5})
    line = settings.told({name: f"--{name}" for name in DECIDED}, "{} {}")
    assert "\n" not in line
    assert "--hidden 8 9 " in line
    assert line.endswith("--weight_decay 0.5")
    several = settings_for(3_000, 2, asked={}).told({n: n for n in DECIDED}, "{}={}")
    assert "weight_decay=0.3 (then 3, " in several


@pytest.mark.parametrize(
    ("budget", "meant"),
    [
        (None, Budget()),
        (90, Budget(90)),
        ("90s", Budget(90)),
        ("7m", Budget(420)),
        ("1.5h", Budget(5_400)),
        ("1h30m", Budget(5_400)),
        ("3000 steps", Budget(steps=3_000)),
        ("1step", Budget(steps=1)),
    ],
)
def test_a_budget_as_it_is_typed(budget, meant):
    assert budget_of(budget) == meant


@pytest.mark.parametrize(
    "budget",
    ["", "soon", "7d", "0s", -3, "m", "1.2.3s", "nan", "0 steps", "2.5 steps", "steps"],
)
def test_what_is_no_budget_is_refused(budget):
    with pytest.raises(
        ValueError,
        match="`budget` must be a time, as 90s, 7m or 1h30m, or steps of all",
    ):
        budget_of(budget)


def test_the_trainer_itself_keeps_constants():
    plain = TrainConfig()
    assert (plain.num_steps, plain.patience, plain.weight_decay) == (1_000, 10, 0.3)
    assert not [f for f in dataclasses.fields(plain) if getattr(plain, f.name) is None]
