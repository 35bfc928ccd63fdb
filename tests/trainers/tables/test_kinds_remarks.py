"""Grids: values off them, grids in grids and mostly empty ones; numbers of rows."""

import datetime

import numpy as np
import pandas as pd
import pytest

from trainers.tables.kinds import Grid, Integer, Levels
from trainers.tables.kinds.base import log_normal
from trainers.tables.kinds.finding import declared, find
from trainers.tables.schema import Schema

RNG = np.random.default_rng(0)
N = 3_000
COUNTS = np.rint(np.exp(6.5 + 0.5 * RNG.normal(size=N)))


def log_mass(kind, x):
    return kind.encode(np.float64(x), np.full((len(x), kind.noise), 0.5))[1]


@pytest.mark.parametrize(
    ("x", "wanted"),
    [
        (COUNTS, Integer),
        (np.r_[COUNTS, [565.5, 802.5, 396.667]], Grid),
        (RNG.integers(2001, 2016, N), Levels),
        (RNG.normal(50, 0.5, N).round(1), Levels),
    ],
)
def test_a_value_off_the_grid_has_the_mass_of_the_nearest_on_it(x, wanted):
    kind = find(x, where="x").kind
    assert isinstance(kind, wanted)
    on = x[:1]
    masses = log_mass(kind, on + kind.step * np.array([0, -0.3, 0.4]))
    np.testing.assert_allclose(masses, log_mass(kind, on)[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("counts", "grid", "lacks"),
    [
        (np.ceil(np.exp(2.5 + 1.2 * RNG.normal(size=2 * N))), Integer, 4e-3),
        (1 + RNG.binomial(14, 0.2, 2 * N), Levels, 4e-5),
    ],
)
def test_the_rest_of_a_spike_keeps_the_cell_of_its_value(counts, grid, lacks):
    """What the masses of such a column lack to one, as docs/tables.md has it."""
    x = np.where(np.arange(2 * N) % 2, counts, 0).astype(int)
    kind = declared(x, "spike(0)", where="x").kind
    assert (kind.value, type(kind.rest)) == (0, grid)
    cells, num_draws = np.arange(5_000.0), 256
    total = np.zeros(len(cells))
    for u in (np.arange(num_draws) + 0.5) / num_draws:
        z, log_det = kind.rest.encode(cells, np.full((len(cells), 1), u))
        total += np.exp(log_normal(z[:, 0]) + log_det) / num_draws
    np.testing.assert_allclose(total.sum(), 1, atol=1e-3)
    assert lacks / 2 < (1 - kind.share) * total[0] < 2 * lacks


def test_values_off_the_grid_are_counted():
    assert "off the grid" not in find(COUNTS, where="x").why
    few = find(np.r_[COUNTS, [565.5, 802.5, 396.667]], where="x")
    assert few.why.endswith("3 values off the grid are rounded")
    many = np.r_[np.tile(COUNTS, 20), [565.5]]
    assert find(many, where="x").why.endswith("1 value off the grid is rounded")
    asked = declared(np.r_[0.25, COUNTS], "integer", where="x")
    assert asked.why.endswith("1 value off the grid is rounded")
    assert asked.kind.low == 0


def test_a_part_of_many_values_repeats_no_more_than_they_do():
    assert not find(RNG.normal(size=60_000), where="x").note


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e9])
def test_what_float_cannot_write_is_not_off_the_grid(scale):
    x = (20 * RNG.normal(size=N)).round(1) * scale
    assert "off the grid" not in find(x, where="x").why
    assert "off the grid" not in find(np.float32(x), where="x").why


def test_a_grid_in_a_grid_is_named_with_the_way_out():
    x = 40 + 9 * RNG.normal(size=N)
    x = np.where(RNG.random(N) < 0.9, x.round(), x.round(2))
    found = find(x[:999], where="column 'vote'")
    assert found.note.startswith("column 'vote': ")
    assert "lie on steps of 1, the others on steps of 0.01" in found.note
    assert "--kinds 'vote=rounded(1)'" in found.note
    assert not find(x.round(2) + RNG.integers(0, 99, N) / 100, where="x").note
    digits = np.array([float(f"{value:.4g}") for value in np.exp(RNG.normal(size=N))])
    assert not find(digits, where="x").note
    assert "off the grid are rounded" in declared(x, "rounded(1)", where="x").why


def days(numbers):
    return [datetime.date(2000, 1, 4) + datetime.timedelta(int(d)) for d in numbers]


def test_dates_that_repeat_and_leave_most_days_out_are_levels():
    tuesdays = np.r_[7 * RNG.choice(1_000, 60), 3]
    table = pd.DataFrame({"day": pd.to_datetime(days(RNG.choice(tuesdays, N)))})
    schema = Schema.of(table)
    (column,) = schema.columns
    assert isinstance(column.kind, Levels)
    assert column.kind_name == "date, integer"
    assert "values that repeat" in column.why
    back = schema.decode(schema.encode(table).rows)
    assert (back == table).all(axis=None)
    seen, new = schema.encode(table).log_det, pd.DataFrame({"day": days([5])})
    unseen = schema.encode(new.astype(table.dtypes)).log_det
    assert np.isfinite(unseen).all()
    assert unseen < seen.min() - 5


@pytest.mark.parametrize(
    "x",
    [
        np.repeat(RNG.choice(10_000, 150, replace=False), 40),
        np.where(RNG.random(9_000) < 0.95, RNG.integers(20, 70, 9_000), 41.37),
        np.repeat(RNG.choice(10**9, 25, replace=False), 40),
    ],
)
def test_few_numbers_that_repeat_are_levels(x):
    assert isinstance(find(x, where="x").kind, Levels)
    assert isinstance(find(np.repeat(x, 12), where="x").kind, Levels)


def test_counts_with_a_long_tail_are_no_levels():
    x = np.rint(np.exp(3 + RNG.normal(size=40_000)))
    assert isinstance(find(x, where="x").kind, Integer)


@pytest.mark.parametrize(
    ("name", "x", "are_groups"),
    [
        ("patient_id", RNG.integers(0, 90, N), True),
        ("subjectId", np.array([f"s{i % 90}" for i in range(N)], object), True),
        ("user", np.array([f"s{i % 900}" for i in range(N)], object), True),
        ("users", np.array([f"s{i % 3}" for i in range(N)], object), False),
        ("valid", np.array([f"s{i % 90}" for i in range(N)], object), False),
    ],
)
def test_groups_of_rows_are_named(name, x, are_groups):
    why = find(x, where=f"column {name!r}").why
    assert ("groups? their rows fall into train and test alike" in why) == are_groups


@pytest.mark.parametrize(
    ("name", "x", "is_identifier"),
    [
        ("pollno", RNG.permutation(10**6)[:N], True),
        ("team_id", RNG.permutation(10**6)[:N], True),
        ("", np.arange(1, N + 1), True),
        ("votes", RNG.permutation(10**6)[:N], False),
        ("team_id", RNG.integers(0, 5_000, N), False),
        ("year", np.arange(1900, 2000), False),
    ],
)
def test_a_number_of_the_row_is_named(name, x, is_identifier):
    why = find(x, where=f"column {name!r}").why
    assert ("each row its own: an identifier? --drop" in why) == is_identifier
