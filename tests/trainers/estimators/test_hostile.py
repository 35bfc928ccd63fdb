"""Whatever a file says of an estimator and its table: the same densities, or one error."""

import json
import random
import warnings

import numpy as np
import pandas as pd
import pytest

from tests.trainers.checkpoints.test_hostile import mutated
from tests.trainers.estimators.small import SMALL
from trainers import CheckpointError, FlowDensity
from trainers.tables.checks import InputError

ABOUT = ("about",)
ROOTS = [
    *[(*ABOUT, "table", "schema", "columns")] * 3,
    (*ABOUT, "table", "given"),
    (*ABOUT, "table"),
    (*ABOUT, "estimator", "params"),
    (*ABOUT, "estimator", "fitted"),
    (*ABOUT, "estimator"),
    ABOUT,
]


def table(n=120):
    """A column of every kind, and of types that only pandas has."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2026-01-01") + rng.integers(0, 90, n)
    x = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "x": x,
            "copy": 2 * x + 1,
            "one": 3.0,
            "wage": np.exp(rng.normal(size=n)),
            "share": rng.beta(2, 2, n),
            "count": rng.poisson(40, n) * 3,
            "few": rng.integers(0, 3, n),
            "price": np.round(rng.normal(50, 20, n), 1),
            "rain": np.where(rng.random(n) < 0.5, 0.0, np.exp(rng.normal(size=n))),
            "town": pd.Categorical(rng.choice(["A", "B", "C"], n)),
            "yes": pd.array(rng.random(n) < 0.3, dtype="boolean"),
            "day": days,
            "at": pd.to_datetime(rng.permutation(days)).tz_localize("Europe/Paris"),
        }
    )
    frame.columns.name = "of"
    return frame


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    frame = table()
    years = pd.DataFrame({"year": np.arange(len(frame)) % 7, "who": frame["town"]})
    path = tmp_path_factory.mktemp("saved") / "d"
    kinds = {"wage": "positive", "share": "bounded(0, 1)"}
    fitted = FlowDensity(**SMALL | {"num_draws": 1}, kinds=kinds)
    fitted.fit(frame, context=years).save(path)
    file = path / "0" / "meta" / "metadata"
    return path, file, json.loads(file.read_text()), frame[:4], years[:4]


def used(path, frame, years):
    """What a loaded estimator gives, by each of its methods."""
    found = FlowDensity.load(path)
    assert str(found).startswith("FlowDensity(")
    log_prob = found.score_samples(frame, context=years)
    samples = found.sample(4, random_state=0, context=years)
    assert len(samples) == 4
    assert found.n_features_in_ == len(frame.columns)
    return log_prob


@pytest.mark.parametrize("number", [30, pytest.param(3_000, marks=pytest.mark.slow)])
def test_mutations_give_densities_or_are_named(saved, number):
    path, file, good, frame, years = saved
    wanted = used(path, frame, years)
    draw, told, renamed, same = random.Random(number), [], [], 0
    for i in range(number):
        text = mutated(good, draw, ROOTS[i % len(ROOTS)])
        file.write_text(text)
        try:
            with warnings.catch_warnings(action="ignore"):  # of numbers that overflow
                found = used(path, frame, years)
        except CheckpointError as error:
            told.append(str(error))
        except InputError as error:
            renamed.append(str(error))
        else:
            assert found.shape == wanted.shape, text
            same += np.array_equal(found, wanted)
    file.write_text(json.dumps(good))
    assert all(str(path) in line and line.isprintable() for line in told)
    assert len(told) > number / 3
    # What is given may have any names, and times with a zone or without.
    fits = "`context` must have the columns", "must hold times with"
    assert not [line for line in renamed if not any(w in line for w in fits)]
    assert same > number / 20
