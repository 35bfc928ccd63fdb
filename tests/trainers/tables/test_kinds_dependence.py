"""Columns that are linear functions of others are named, and no others."""

import numpy as np
import pandas as pd
import pytest

from trainers.tables.kinds import dependence
from trainers.tables.schema import Schema

RNG = np.random.default_rng(0)
N = 600
X = RNG.normal(size=(N, 3)) * [1, 10, 1e-3] + [0, 1e3, 5]
TABLES = {
    "shares of one": {
        f"p{i}": share for i, share in enumerate(RNG.dirichlet([2, 3, 4, 5], N).T)
    },
    "shares to four digits": {
        f"p{i}": s for i, s in enumerate(RNG.dirichlet([2, 3, 4], N).T.round(4))
    },
    "degrees in two units": {
        "celsius": (c := RNG.normal(15, 10, N)).round(3),
        "fahrenheit": (1.8 * c + 32).round(3),
    },
    "six digits": {"x": X[:, 1].round(6), "y": (X[:, 1] / 3).round(6)},
    "a mean that is rounded": {
        "low": (X[:, 1] - np.exp(X[:, 0])).round(5),
        "high": (X[:, 1] + np.exp(X[:, 0])).round(5),
        "mean": X[:, 1],
    },
    "margin of rounded columns": {
        "a": (a := RNG.normal(45, 5, N).round(1)),
        "b": (b := RNG.normal(40, 5, N).round(1)),
        "margin": (a - b).round(1),
    },
}


@pytest.mark.parametrize("name", TABLES)
def test_a_dependence_is_named_with_the_way_out(name):
    table = pd.DataFrame(TABLES[name])
    last = table.columns[-1]
    (note,) = Schema.of(table).notes
    assert (
        f"column '{last}' is a linear function of {', '.join(table.columns[:-1])}"
        in note
    )
    assert f"--drop {last}" in note
    assert not Schema.of(table, {last: "skipped"}).notes


@pytest.mark.parametrize(
    "x",
    [
        X,
        X + np.where(np.arange(N) == 7, 1e9, 0)[:, None],  # one row far out
        np.exp(5 * X[:, [0, 0, 0]] + RNG.normal(size=(N, 3))),
        np.c_[X, X.sum(1) + 1e-3 * RNG.normal(size=N)],
        RNG.normal(size=(5, 5)),  # so few rows that all depend
    ],
)
def test_nothing_is_said_of_columns_that_do_not_depend(x):
    assert not dependence.dependences(x)


def test_each_dependence_is_found_among_many():
    x = np.c_[X, X[:, 0] + 1e-3 * X[:, 1], RNG.normal(size=N)]
    x = np.c_[x, x[:, 4] - x[:, 1]]
    found = [(column, parts) for column, parts, _ in dependence.dependences(x)]
    assert found == [(3, (0, 1)), (5, (1, 4))]


@pytest.mark.parametrize("noise", [0.3, 0.6, 2.0])
def test_columns_that_differ_by_more_than_their_rounding_are_no_copies(noise):
    x = 5e6 + 10 * RNG.normal(size=500)  # float32 has steps of 0.5 there
    table = {"a": x, "b": x + noise * RNG.normal(size=500)}
    short = {name: values.astype(np.float32) for name, values in table.items()}
    for given in (table, short):
        assert Schema.of(given).width == 2


COPIES = {
    "cast": lambda x: x.astype(float),
    "fahrenheit": lambda x: x * np.float32(1.8) + np.float32(32),
    "of fahrenheit": lambda x: np.float32(5 / 9) * (x - np.float32(32)),
    "kelvin": lambda x: x + np.float32(273.15),
    "half": lambda x: (x / 2).astype(np.float16).astype(np.float32),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("first", ["x", "y"])
def test_copies_in_short_types_are_found_whichever_comes_first(name, first):
    x = (20 + 8 * RNG.normal(size=400)).astype(np.float32)
    x = x.astype(np.float16).astype(np.float32) if name == "half" else x
    table = {"x": x, "y": COPIES[name](x)}
    table = {first: table.pop(first), **table}
    assert Schema.of(table).width == 1
