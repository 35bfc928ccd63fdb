"""Every kind: there and back, a density that is one, and how it is found."""

import json

import numpy as np
import pandas as pd
import pytest

from trainers.tables.checks import InputError
from trainers.tables.kinds import (
    Bounded,
    Continuous,
    Grid,
    Integer,
    Levels,
    Positive,
    Scale,
    Skipped,
    Spike,
    kind_from_config,
)
from trainers.tables.kinds.finding import declared, find
from trainers.tables.schema import Schema

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=2_000)
UNIT = Scale(center=0.5, spread=2.0)
KINDS = {
    "continuous": (Continuous(scale=UNIT), NORMAL),
    "far": (Continuous(scale=UNIT), np.array([-1e30, -1e6, -20.0, 0.0, 17.0, 1e300])),
    "positive": (Positive(scale=UNIT), np.exp(3 * NORMAL)),
    "from zero": (Positive(floor=-0.1, scale=UNIT), np.abs(NORMAL).round(1)),
    "bounded": (Bounded(low=-1, high=3, floor=-1, ceiling=3), RNG.uniform(-1, 3, 500)),
    "on bounds": (
        Bounded(low=0, high=1, floor=-0.001, ceiling=1.001),
        np.array([0.0, 0.2, 1.0]),
    ),
    "grid": (Grid(step=0.5, low=-9, high=9, scale=UNIT), np.rint(NORMAL * 2) / 2),
    "log grid": (
        Integer(step=1, low=0, high=500, log=True, scale=UNIT),
        np.arange(500.0),
    ),
    "levels": (
        Levels(levels=("a", "b", "c"), shares=(0.5, 0.2, 0.3)),
        np.array(["a", "c", "b"], object),
    ),
    "every third": (
        Integer(step=3, low=-30, high=30, between=0.01, scale=UNIT),
        np.arange(-30.0, 31, 3),
    ),
    "even levels": (
        Levels(levels=(0, 2), shares=(0.4, 0.6), step=2, tail=0.01, between=0.01),
        np.array([0, 2, 2]),
    ),
    "counts": (
        Levels(levels=(0, 1, 2), shares=(0.5, 0.2, 0.3), step=1, tail=0.01),
        np.array([0, 1, 2, 2]),
    ),
    "spike": (
        Spike(value=0.0, share=0.4, rest=Positive(scale=UNIT)),
        np.where(NORMAL > 0, np.exp(NORMAL), 0),
    ),
}


def normal(z):
    return -0.5 * z**2 - 0.5 * np.log(2 * np.pi)


@pytest.mark.parametrize("name", KINDS)
def test_there_and_back(name):
    kind, x = KINDS[name]
    u = np.random.default_rng(1).random((len(x), kind.noise))
    z, log_det = kind.encode(x, u)
    assert z.shape == (len(x), kind.width)
    assert np.isfinite(z).all()
    assert np.isfinite(log_det).all()
    back = kind.decode(z)
    if x.dtype == object:
        assert back.tolist() == x.tolist()
    else:
        np.testing.assert_allclose(np.float64(back), x, rtol=1e-9, atol=1e-9)
    again = kind_from_config(json.loads(json.dumps(kind.to_config())))
    assert again == kind


@pytest.mark.parametrize("name", ["continuous", "positive", "from zero", "bounded"])
def test_log_det_is_the_slope(name):
    kind, x = KINDS[name]
    x, h = x[:50], 1e-6
    z, log_det = kind.encode(x, np.empty((50, 0)))
    above, _ = kind.encode(x + h * np.abs(x) + h, np.empty((50, 0)))
    slope = (above - z)[:, 0] / (h * np.abs(x) + h)
    inside = np.isfinite(log_det) & (slope > 0)
    assert inside.sum() > 40
    np.testing.assert_allclose(np.log(slope[inside]), log_det[inside], atol=1e-3)


@pytest.mark.parametrize(
    "name", ["grid", "log grid", "every third", "levels", "even levels", "counts"]
)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 1.3)])
def test_masses_add_to_one(name, mean, std):
    """Under any density of the encoded column: here a Gaussian."""
    kind, _ = KINDS[name]
    cells = {
        "grid": np.arange(-40, 40, 0.5),
        "log grid": np.arange(0, 200_000.0),
        "levels": np.array(["a", "b", "c"], object),
        "counts": np.arange(-30, 30),
        "every third": np.arange(-90, 90),
        "even levels": np.arange(-60, 60),
    }[name]
    total, num_draws = np.zeros(len(cells)), 512  # the outer levels' cells are wide
    for u in (np.arange(num_draws) + 0.5) / num_draws:
        z, log_det = kind.encode(cells, np.full((len(cells), 1), u))
        total += np.exp(normal((z[:, 0] - mean) / std) - np.log(std) + log_det)
    np.testing.assert_allclose(total.sum() / num_draws, 1, atol=0.01)


def test_independent_levels_need_no_flow():
    kind, _ = KINDS["levels"]
    for u in (0.01, 0.5, 0.97):
        z, log_det = kind.encode(np.array(["a", "b", "c"], object), np.full((3, 1), u))
        masses = np.exp(normal(z[:, 0]) + log_det)
        np.testing.assert_allclose(masses, [0.5, 0.2, 0.3], rtol=1e-6)


def test_a_spike_has_its_share():
    kind, _ = KINDS["spike"]
    u = np.random.default_rng(0).random((20_000, kind.noise))
    z, log_det = kind.encode(np.zeros(20_000), u)
    mass = np.exp(normal(z).sum(1) + log_det)
    np.testing.assert_allclose(mass, 0.4, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "x"),
    [
        ("positive", np.array([-1.0, 0.0])),
        ("bounded", np.array([-1.5, 3.5])),
        ("levels", np.array(["d", "e"], object)),
        ("log grid", np.array([-1.0, -7.0])),
    ],
)
def test_what_cannot_be_has_no_mass(name, x):
    kind, _ = KINDS[name]
    z, log_det = kind.encode(x, np.full((2, kind.noise), 0.5))
    assert np.isfinite(z).all()
    assert (log_det == -np.inf).all()


FOUND = {
    "normal": (NORMAL, "continuous"),
    "time stamps": (1.7e9 + 1e4 * NORMAL, "continuous"),
    "log-normal": (np.exp(3 * NORMAL), "positive"),
    "exponential": (RNG.exponential(size=2_000), "positive"),
    "far from zero": (100 + NORMAL, "continuous"),
    "uniform": (RNG.random(2_000), "bounded"),
    "percent": (100 * RNG.beta(0.5, 0.5, 2_000), "bounded"),
    "angle": (RNG.uniform(-180, 180, 2_000), "bounded"),
    "rounded": ((0.3 * NORMAL).round(1), "rounded"),
    "halves": (np.rint(8 * NORMAL) / 2, "rounded"),
    "float32 tenths": (np.float32((3 * NORMAL).round(1)), "rounded"),
    "counts": (RNG.poisson(3, 2_000), "integer"),
    "counts as floats": (np.float64(RNG.poisson(3, 2_000)), "integer"),
    "large integers": (np.rint(3e9 + 1e9 * NORMAL).astype(np.int64), "integer"),
    "uint64": (np.uint64(2**63) + RNG.integers(0, 10**6, 2_000, np.uint64), "integer"),
    "coin": (RNG.integers(0, 2, 2_000), "boolean"),
    "truth": (RNG.random(2_000) < 0.3, "boolean"),
    "words": (RNG.choice(np.array(["u", "v", "w"], object), 2_000), "categorical"),
    "zeros": (np.where(NORMAL > 0, NORMAL, 0), "spike"),
    "constant": (np.full(10, 7), "skipped"),
    "text": (np.array([f"row {i}" for i in range(100)], object), "skipped"),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_kind_is_found(name):
    x, wanted = FOUND[name]
    kind = find(x, where="column 'x'").kind
    assert (kind.kind_name if isinstance(kind, Levels) else kind.kind) == wanted


def test_a_grid_of_another_scale_is_found_alike():
    for factor in (1e-12, 1.0, 1e12):
        found = find(np.round(NORMAL, 1) * factor, where="x")
        np.testing.assert_allclose(found.kind.step, 0.1 * factor, rtol=1e-9)


def test_new_values_beyond_the_seen_ones_have_a_mass():
    x = np.rint(np.exp(1.5 * NORMAL) * 400) + 30
    kind = find(x, where="x").kind
    assert isinstance(kind, Integer)
    assert kind.log
    new = np.array([0.0, 7.0, x.max() * 10])
    _, log_det = kind.encode(new, np.full((3, 1), 0.5))
    assert np.isfinite(log_det).all()


def test_a_misprint_makes_no_finer_grid():
    x = (3 * NORMAL).round(2)
    x[7] = 9.899999
    kind = find(x, where="x").kind
    np.testing.assert_allclose(kind.step, 0.01)
    _, log_det = kind.encode(x, np.full((len(x), 1), 0.5))
    assert np.isfinite(log_det).all()


def test_a_part_decides_only_what_holds_for_all():
    x = np.concatenate([RNG.integers(0, 3, 60_000), [7]])
    kind = find(x, where="x").kind
    _, log_det = kind.encode(np.float64(x), np.full((len(x), kind.noise), 0.5))
    assert np.isfinite(log_det).all()
    y = np.concatenate([np.full(60_000, 2.0), [3.0]])
    assert not isinstance(find(y, where="x").kind, Skipped)


AGES = RNG.integers(18, 80, 2_000)
FAR = {
    "reals": (np.where(RNG.random(2_000) < 0.05, -9_999, NORMAL), "-9999"),
    "ages": (np.where(RNG.random(2_000) < 0.05, -9_999, AGES), "-9999"),
    "digits": (np.where(RNG.random(2_000) < 0.1, 999, AGES % 10), "999"),
    "one row": (np.where(np.arange(2_000) == 7, -9_999, NORMAL), "-9999"),
    "repeated": (np.where(np.arange(2_000) < 3, 1e6, NORMAL), "1000000"),
    "a log": (np.where(np.arange(2_000) == 7, -999.25, NORMAL), "-999.25"),
    "a fill": (np.where(np.arange(2_000) == 7, 1e20, NORMAL), "1e+20"),
    "many digits": (np.where(np.arange(2_000) < 9, -9_999_999, AGES), "-9999999"),
}


@pytest.mark.parametrize("name", FAR)
def test_a_value_that_stands_for_a_missing_one_is_named(name):
    x, value = FAR[name]
    found = find(x, where="column 1")
    assert f"column 1: {value} in " in found.note
    assert f"--na {value}" in found.note
    if (x == float(value)).sum() > 1:
        # Samples hold it as often, and nothing between it and the rest.
        assert isinstance(found.kind, Spike)
        drawn = found.kind.decode(RNG.normal(size=(1_000, found.kind.width)))
        inner = drawn[drawn != found.kind.value]
        assert x[x != found.kind.value].min() - 2 <= inner.min()


@pytest.mark.parametrize(
    "x",
    [
        RNG.standard_cauchy(3_000),
        np.where(np.arange(2_000) == 7, 1e6, NORMAL),
        np.exp(3 * NORMAL).round(2),
        AGES,
        AGES % 2,
        np.r_[AGES % 4, 40],
    ],
)
def test_far_values_that_are_no_sentinels_are_not(x):
    assert not find(x, where="x").note


def test_one_far_value_is_no_bound():
    x = np.r_[1.7 * np.arange(59), 1_000.0]
    assert find(x, where="x").kind.kind != "bounded"


def test_zeros_among_heaps_are_a_spike():
    money = np.round(np.exp(8 + NORMAL), 3)
    money[:300] = np.ceil(money[:300] / 1_000) * 1_000
    money[-260:] = 0
    for found in (
        find(money, where="x"),
        declared(money[money < 5_000], "spike(0)", where="x"),
    ):
        assert isinstance(found.kind, Spike)
        assert found.kind.value == 0


@pytest.mark.parametrize("kind", ["integer", "rounded(1)"])
@pytest.mark.parametrize("times", [0.4, 1.0, 30.0])
def test_values_off_the_grid_that_was_asked_for_have_mass(kind, times):
    x = times * np.random.default_rng(0).random((200, 1))
    schema = Schema.of(x, {0: kind})
    assert " values off the grid are rounded" in schema.columns[0].why
    assert np.isfinite(schema.encode(x).log_det).all()


@pytest.mark.parametrize(
    "kind", ["integer", "categorical", "boolean", "bounded(0, 9)", "rounded(1)"]
)
@pytest.mark.parametrize("value", [7.0, 7, True, np.datetime64("2020-01-01")])
def test_one_value_is_of_no_other_kind(kind, value):
    table = pd.DataFrame({"a": [1.0, 2.5, 3.0], "k": [value] * 3})
    with pytest.raises(InputError, match=r"`kinds` .* dates|'k' holds one value only"):
        Schema.of(table, {"k": kind})
    assert Schema.of(table).column("k").kind.kind == "skipped"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("rounded(0)", "a step above 0"),
        ("rounded(-1)", "a step above 0"),
        ("boolean", "two values; x holds 2,000"),
        ("spike", "must name a value that x holds"),
        ("spike(3)", "must name a value that x holds"),
    ],
)
def test_kinds_that_cannot_be_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        declared(NORMAL, words, where="x")


def test_few_rows_above_zero_need_not_all_be():
    assert isinstance(find(np.array([0.1, 0.5, 2.0]), where="x").kind, Continuous)


def test_numbers_as_words_are_refused():
    words = np.array(["1.5", "2", "3"] * 9, object)
    with pytest.raises(InputError, match=r"column 'a' holds numbers as words.*--kinds"):
        find(words, where="column 'a'")
    assert declared(words, "categorical", where="a").kind.levels == ("1.5", "2", "3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("numeric", "must be one of continuous"),
        ("postive", r"Near: positive\.$"),
        ("positive", "above 0; column 'x' holds -"),
        ("bounded", r"as in bounded\(0, 1\)"),
        ("bounded(0, 1)", "Widen the bounds"),
        ("bounded(-9, inf)", r"finite bounds .* use positive\.$"),
        ("bounded(nan, 9)", "finite bounds"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        declared(NORMAL, words, where="column 'x'")


@pytest.mark.parametrize(
    ("words", "x", "kind"),
    [
        ("continuous", RNG.integers(0, 9, 99), Continuous),
        ("positive", np.exp(NORMAL), Positive),
        ("bounded(-9, 9)", NORMAL, Bounded),
        ("rounded(0.1)", NORMAL.round(1), Grid | Levels),
        ("integer", RNG.integers(0, 9, 99), Levels),
        ("categorical", RNG.integers(0, 9, 99), Levels),
        ("skipped", NORMAL, Skipped),
    ],
)
def test_a_kind_that_is_asked_for_is_taken(words, x, kind):
    assert isinstance(declared(x, words, where="x").kind, kind)


@pytest.mark.parametrize(
    ("num_values", "why"),
    [
        (600, "free text: each row has its own"),
        (590, "free text: 590 values in 600 rows"),
        (150, "150 categories in 600 rows: --kinds place=categorical takes them"),
    ],
)
def test_why_words_are_left_out(num_values, why):
    words = np.array([f"word {i % num_values}" for i in range(600)], object)
    found = find(words, where="column 'place'")
    assert isinstance(found.kind, Skipped)
    assert found.why == why


def test_whole_numbers_between_the_steps_of_a_grid_have_next_to_no_mass():
    x = np.array([0, 2, 4] * 100)
    kind = find(x, where="column 'x'").kind
    assert "in steps of 2" in find(x, where="column 'x'").why
    z, log_det = kind.encode(np.arange(-1, 6), np.full((7, 1), 0.5))
    masses = np.exp(normal(z[:, 0]) + log_det)
    np.testing.assert_allclose(masses[1:6:2], 1 / 3, rtol=0.01)
    assert (masses[[0, 2, 4, 6]] < 0.002).all()


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (NORMAL * 1e300, r"within ±1e\+100; got .*--na -?\d.*e\+30"),
        (NORMAL * 1e-300, "vary by 1e-100 or more"),
    ],
)
def test_numbers_beyond_what_float64_squares_are_refused(x, told):
    with pytest.raises(InputError, match=told):
        find(x, where="column 'x'")
    with pytest.raises(InputError, match=told):
        declared(x, "continuous", where="column 'x'")
