"""What the estimators refuse, and what they warn of, before and beside their work."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tests.trainers.estimators.small import SMALL
from trainers import FlowDensity
from trainers.estimators.arguments import astray
from trainers.tables.checks import InputError
from trainers.tables.schema import Schema

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[1, "a"], [2, "b"]], object), r"column 1 \(from 0\) holds words"),
        (np.array([["1"], ["2"]]), "column 0"),
        ([[1.0, "2"], [3.0, "4"]], "column 1"),
        (pd.DataFrame({"q": ["1", "2", "3"]}), "column 'q' holds numbers as words"),
        (pd.DataFrame({"q": [1.0, None, 3.0]}), "1 in q"),
        (np.ones((5, 2)), "must have a column to model; got x0"),
        (pd.DataFrame({"q": [1.0]}), "must have 2 rows or more; got n_samples = 1"),
    ],
)
def test_bad_tables_are_refused_by_column(x, message):
    with pytest.raises(ValueError, match=message):
        FlowDensity(**SMALL).fit(x)


@pytest.mark.parametrize("x", [None, "rows.csv", {"a": [1, 2]}, {1.0, 2.0}])
def test_what_is_no_table_is_told_how_to_become_one(x):
    with pytest.raises(InputError, match=r"`X` must be an array or a DataFrame; got"):
        FlowDensity().fit(x)


@pytest.mark.parametrize("form", ["csr", "dok"])  # the latter is a dictionary too
def test_a_sparse_array_is_told_how_to_become_one(form):
    x = getattr(sparse, f"{form}_array")(np.eye(9))
    with pytest.raises(TypeError, match=r"dense data is required. Use '\.toarray\(\)'"):
        FlowDensity().fit(x)


@pytest.mark.slow
def test_a_sentinel_is_warned_of_by_column():
    x = RNG.normal(size=(600, 2))
    x[:40, 1] = -9_999
    with pytest.warns(UserWarning, match=r"column 1 \(from 0\): -9999 in 40 rows"):
        FlowDensity(**SMALL | {"num_steps": 1}).fit(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 8}, r"`hidden` must be widths of 1 or more.* None; got 8"),
        ({"hidden": (0,)}, r"`hidden` must be widths of 1 or more.* got \(0,\)"),
        ({"rotation": "x"}, r"`rotation` must be one of \('auto', 'pca'.* got 'x'"),
        ({"verbose": "no"}, "`verbose` must be a whole number of 0 or more; got 'no'"),
        ({"mesh": 3}, "`mesh` must be a jax.sharding.Mesh or None; got 3"),
        ({"random_state": -1}, "`random_state` must be None, 0 to .*; got -1"),
        ({"family": "cauchy"}, r"`family` must be one of .* got 'cauchy'"),
        (
            {"num_blocks": 2.5},
            "`num_blocks` must be a whole number of 1 or more or None",
        ),
        ({"num_steps": True}, "`num_steps` must be a whole number .* got True"),
        (
            {"num_draws": None},
            "`num_draws` must be a whole number of 1 to 1,000,000; got None",
        ),
        ({"patience": -1}, "`patience` must be a whole number of 0 or more or None"),
        ({"learning_rate": "x"}, "`learning_rate` must be a number above 0; got 'x'"),
        ({"jitter": float("inf")}, "`jitter` must be a number of 0 or more or None"),
        ({"ema_decay": 1}, r"`ema_decay` must be a number in \[0, 1\) or None; got 1"),
        ({"validation_fraction": 1.0}, r"`validation_fraction` must be a number in"),
        (
            {"clusters": -1},
            "`clusters` must be a whole number of 0 or more or None; got -1",
        ),
        ({"tails": "yes"}, "`tails` must be True or False or None; got 'yes'"),
        ({"budget": "x"}, "`budget` must be a time"),
        ({"budget": 9}, "`budget` must be None where `num_steps` is given"),
    ],
)
def test_arguments_are_checked_before_any_work(arguments, message, monkeypatch):
    monkeypatch.delattr("trainers.estimators.density.checked_frame")
    with pytest.raises(ValueError, match=message):
        FlowDensity(**SMALL | arguments).fit(np.zeros((9, 2)))


@pytest.fixture
def with_constants():
    x, y = np.random.default_rng(5).normal(size=(2, 60))
    day = pd.Timestamp("2024-03-01")
    return pd.DataFrame(
        {"x": x, "k": 3, "reg": "north", "day": day, "f": np.float32(0.1)}
        | {"twice": 2 * x + 1, "y": y}
    )


def test_rows_that_differ_in_what_was_left_out_are_counted(with_constants):
    schema = Schema.of(with_constants)
    assert [c.name for c in schema.kept] == ["x", "y"]
    assert not astray(schema, schema.matched(with_constants))
    other = with_constants.copy()
    other.loc[:4, "k"], other.loc[:3, "reg"] = 4, "south"
    other.loc[:2, "day"] = pd.Timestamp("2024-03-02")
    other.loc[:1, "f"], other.loc[0, "twice"] = np.float32(0.2), 7.0
    found = {"k": 5, "reg": 4, "day": 3, "f": 2, "twice": 1}
    assert astray(schema, schema.matched(other)) == found
    other["reg"] = 5
    assert astray(schema, schema.matched(other))["reg"] == 60
    assert not astray(schema, schema.matched(other[["x", "y"]]))


@pytest.mark.parametrize("unit", ["D", "s"])
def test_dates_that_are_no_longer_a_copy_are_counted(unit):
    random = np.random.default_rng(0)
    start = pd.Timestamp("2024-03-01")
    day = start + pd.to_timedelta(random.integers(0, 30_000, 300), unit=unit)
    table = pd.DataFrame({"day": day, "due": day + pd.Timedelta("7D")})
    schema = Schema.of(table)
    assert [c.name for c in schema.kept] == ["day"]
    assert not astray(schema, schema.matched(table))
    table.loc[0, "due"] += pd.Timedelta(1, unit)
    assert astray(schema, schema.matched(table)) == {"due": 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1e4, 1e6])
def test_a_copy_is_one_still_in_the_type_it_came_in(offset, dtype):
    of = dtype(offset + 100 * np.random.default_rng(1).normal(size=300))
    table = pd.DataFrame({"of": of, "copy": dtype(7 - 3 * of)})
    schema = Schema.of(table)
    assert [c.name for c in schema.kept] == ["of"]
    assert not astray(schema, schema.matched(table))
    assert not astray(schema, schema.matched(table[:1]))
    table.loc[5, "copy"] += 10  # float32 has steps of .25 at 3e6
    assert astray(schema, schema.matched(table)) == {"copy": 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_few_spacings_are_no_rounding(dtype):
    of = dtype(5e6 + 10 * np.random.default_rng(1).normal(size=300))
    table = pd.DataFrame({"of": of, "copy": dtype(1e7 - of)})
    schema = Schema.of(table)
    assert [c.name for c in schema.kept] == ["of"]
    assert not astray(schema, schema.matched(table))
    table.loc[:2, "copy"] += dtype(4 * np.spacing(np.float32(5e6)))
    assert astray(schema, schema.matched(table)) == {"copy": 3}


@pytest.mark.slow
@pytest.mark.parametrize("as_array", [False, True])
def test_a_constant_that_is_another_now_is_warned_of(with_constants, as_array):
    x = with_constants[["x", "k", "y"]]
    other = x.assign(k=[4] * 2 + [3] * 58)
    if as_array:
        x, other = x.to_numpy(), other.to_numpy()
    model = FlowDensity(**SMALL | {"num_steps": 5}).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score_samples(x)
    with pytest.warns(UserWarning, match=r"\(always 3\), .* it differs in 2 rows\."):
        assert len(model.score_samples(other)) == 60
