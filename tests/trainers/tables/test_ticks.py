"""Dates on a grid of the clock are counted in whole ticks, and come back on it."""

import datetime

import numpy as np
import pytest

from trainers.tables import InputError
from trainers.tables.kinds.ticks import Ticks
from trainers.tables.schema import Schema

pd = pytest.importorskip("pandas")

N = 300
RNG = np.random.default_rng(0)
START = pd.Timestamp("2020")
GRIDS = {
    "days": pd.date_range(START, periods=N),
    "working days": pd.bdate_range(START, periods=N),
    "weeks": pd.date_range(START, periods=N, freq="7D"),
    "some days": START + pd.to_timedelta(RNG.permutation(9_000)[:N], "D"),
    "days at six": pd.date_range("2020-01-01 06:00", periods=N),
    "hours": START + pd.to_timedelta(RNG.integers(0, 200, N), "h"),
    "hours, once": pd.date_range(START, periods=N, freq="h"),
    "quarters": START + pd.to_timedelta(15 * RNG.integers(0, 2_000, N), "min"),
    "quarters, later": pd.date_range("2020-01-01 00:07:30", periods=N, freq="15min"),
    "minutes": START + pd.to_timedelta(RNG.integers(0, 2_000, N), "min"),
    "seconds": START + pd.to_timedelta(RNG.integers(0, 2_000, N), "s"),
    "tenths": START + pd.to_timedelta(100 * RNG.integers(0, 99, N), "ms"),
    "milliseconds": pd.date_range(START, periods=N, freq="ms"),
    "durations": pd.to_timedelta(5 * RNG.integers(0, 2_000, N), "min"),
    "zoned": pd.date_range(START, periods=N, freq="h", tz="Europe/Berlin"),
}


def frame(values, unit="ns"):
    column = pd.Series(values).dt.as_unit(unit)
    return pd.DataFrame({"t": column, "x": RNG.normal(size=len(column))})


@pytest.mark.parametrize("name", GRIDS)
def test_values_on_a_grid_come_back_on_it(name):
    table = frame(GRIDS[name])
    schema = Schema.of(table)
    back = schema.decode(schema.encode(table).rows)
    assert (back.t == table.t).all()
    again = Schema.from_config(schema.to_config())
    rows = RNG.normal(size=(N, schema.width))
    drawn = again.decode(rows).t
    assert (
        ((drawn - table.t[0]) % pd.Timedelta(Ticks_of(table))).eq(pd.Timedelta(0)).all()
    )


def Ticks_of(table):
    gaps = np.diff(np.unique(table.t.astype("int64")))
    return int(np.gcd(np.gcd.reduce(gaps), 86_400 * 10**9))


def test_days_have_a_mass_whatever_unit_they_come_in():
    table = frame(GRIDS["days"])
    schema = Schema.of(table)
    about = schema.about()[0]
    assert (about["kind"], about["why"]) == ("date, integer", "whole days")
    assert (about["low"], about["high"]) == ("2020-01-01", "2020-10-26")
    assert about["log_p"] == "a mass"
    seconds = table.assign(t=table.t.dt.as_unit("s"))
    np.testing.assert_array_equal(
        Schema.of(seconds).encode(seconds).rows, schema.encode(table).rows
    )
    np.testing.assert_array_equal(
        schema.encode(seconds).rows, schema.encode(table).rows
    )
    noon = table.assign(t=table.t + pd.Timedelta("3h"))  # rounded to the day
    np.testing.assert_array_equal(schema.encode(noon).rows, schema.encode(table).rows)


def test_instants_without_a_grid_are_counted_in_days():
    table = frame(START + pd.to_timedelta(RNG.integers(0, 10**15, N), "us"))
    column = Schema.of(table).column("t")
    assert column.kind_name == "date, continuous"
    assert column.about()["log_p"] == "a density per day"
    asked = Schema.of(frame(GRIDS["days"]), {"t": "continuous"})
    assert asked.column("t").about()["log_p"] == "a density per day"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("date", "whole hours"),
        ("rounded(1)", "as asked"),
        ("categorical", "as asked"),
    ],
)
def test_kinds_that_are_asked_for(kind, why):
    table = frame(GRIDS["hours"])
    schema = Schema.of(table, {"t": kind})
    assert schema.column("t").why.startswith(why)
    back = schema.decode(schema.encode(table).rows).t
    slack = pd.Timedelta("12h" if kind == "rounded(1)" else 0)
    assert (abs(back - table.t) <= slack).all()
    with pytest.raises(InputError, match=r"must be date, .* for dates; got 'positive'"):
        Schema.of(table, {"t": "positive"})


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ("9999-12-31", 15),
        ("9999-12-31", 1),
        ("1900-01-01", 1),
        ("9999-12-31T23:59:59", 9),
    ],
)
def test_a_sentinel_is_told_as_a_date(value, rows):
    days = np.array(GRIDS["days"], "datetime64[s]")
    days[:rows] = np.datetime64(value)
    schema = Schema.of(frame(days, "s"))
    note = next(note for note in schema.notes if "far from" in note)
    assert f"{value} in {rows} row" in note
    assert f"(--na {value}, or leave" in note
    about = schema.about()[0]
    assert value in (about["low"], about["high"])
    if rows > 1:
        assert about["why"].startswith(f"{value} in ")
        assert about["log_p"].startswith(f"a mass at {value} and ")


@pytest.mark.parametrize("unit", ["as", "fs", "ps", "M", "Y", "W"])
def test_every_unit_of_numpy_is_read(unit):
    fine = unit in ("as", "fs", "ps")
    counts = RNG.integers(0, 9, N) * (10**9 if fine else 1)
    table = {"t": counts.astype(f"datetime64[{unit}]")}
    schema = Schema.of(table)
    back = schema.decode_frame(schema.encode(table).rows)["t"].values
    np.testing.assert_array_equal(back, table["t"].astype(back.dtype))


def test_dates_far_from_those_of_the_fit_do_not_wrap():
    ticks = Ticks.of(np.arange(5).astype("datetime64[us]"))
    (far,) = ticks.numbers(np.array(["9999-12-31"], "datetime64[D]"))
    assert far == pytest.approx(2_932_896)
    ends = ticks.dates(np.array([-1e18, 1e18]), np.dtype("datetime64[ns]"))
    assert ends[0].astype("M8[Y]") < np.datetime64("1700")
    assert ends[1].astype("M8[Y]") > np.datetime64("2250")


FOREVER = pd.Timestamp.max
SPANS = {
    "days": (pd.to_timedelta(17 * np.arange(N), "D"), FOREVER.floor("D")),
    "seconds": (pd.to_timedelta(RNG.integers(0, 10**8, N), "s"), FOREVER.floor("s")),
    "anything": (pd.to_timedelta(RNG.integers(0, 10**17, N)), FOREVER),
}


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("sign", [1, -1])
def test_nanoseconds_more_than_292_years_apart_do_not_wrap(name, sign):
    """As where the end of what pandas counts stands for "for ever"."""
    after, end = SPANS[name]
    counts = np.array((pd.Timestamp("1950") + after).as_unit("ns").asi8)
    counts[:3] = end.value
    table = frame(pd.to_datetime(sign * counts))
    end, word = table.t[0], str(table.t[0].asm8)
    schema = Schema.of(table)
    column = schema.column("t")
    told = word.removesuffix("T00:00:00.000000000").removesuffix(".000000000")
    assert told in ((column.high if sign > 0 else column.low), column.why.split()[0])
    (note,) = schema.notes
    assert f"{told} in 3 rows lies far" in note
    assert f"(--na {told}, or leave" in note
    numbers = column.numbers(schema.matched(table)["t"])
    middle = np.sort(sign * counts)[N // 2]
    days = [(int(sign * k) - int(middle)) / 86_400e9 for k in counts]
    np.testing.assert_allclose(numbers / column.ticks.a_day, days, rtol=1e-15)
    back = schema.decode(schema.encode(table).rows).t
    assert (back[:3] == end).all()
    if name == "days":
        assert (back == table.t).all()


def test_scores_far_from_the_fit_are_those_of_a_coarser_unit():
    fitted = frame(pd.date_range("1900", "1960", periods=N))
    schema = Schema.of(fitted)
    far = frame(pd.to_datetime(["1930-01-01", "2262-01-01"]))
    scores = schema.encode(far)
    coarse = schema.encode(far.assign(t=far.t.dt.as_unit("us")))
    np.testing.assert_array_equal(scores.rows[:, 0], coarse.rows[:, 0])
    np.testing.assert_allclose(scores.log_det, coarse.log_det, rtol=1e-12)
    assert scores.rows[1, 0] > 5  # standard deviations, and not below


def test_ends_are_told_to_the_last_digit():
    instants = np.datetime64("2020-01-01", "us") + RNG.integers(0, 10**15, N)
    instants[3] = np.datetime64("9999-12-31T23:59:59.999999")
    schema = Schema.of({"t": instants})
    assert schema.column("t").high == "9999-12-31T23:59:59.999999"
    assert "(--na 9999-12-31T23:59:59.999999, or" in schema.notes[0]


def test_zones_must_be_as_in_the_fit():
    aware, naive = frame(GRIDS["zoned"]), frame(GRIDS["hours"])
    with pytest.raises(InputError, match="'t' must hold times with a time zone, as in"):
        Schema.of(aware).encode(naive)
    with pytest.raises(InputError, match="'t' must hold times without a time zone, as"):
        Schema.of(naive).encode(aware)


def test_instants_of_several_offsets_are_read_as_utc():
    zones = [datetime.timezone(datetime.timedelta(hours=h)) for h in range(3)]
    times = [
        datetime.datetime(2020, 1, 1, i % 24, tzinfo=zones[i % 3]) for i in range(N)
    ]
    table = frame(GRIDS["hours"]).assign(t=pd.Series(times, dtype=object))
    schema = Schema.of(table)
    back = schema.decode(schema.encode(table).rows).t
    assert (back == pd.to_datetime(table.t, utc=True)).all()
    table.loc[0, "t"] = datetime.datetime(2020, 1, 1)
    with pytest.raises(InputError, match=r"'t' of `X` must hold times that all have"):
        Schema.of(table)


@pytest.mark.parametrize(
    ("values", "way"),
    [
        (pd.period_range("2020", periods=N, freq="M"), r"Period.*x\.dt\.to_timestamp"),
        (pd.interval_range(0, N), r"Interval.*x\.array\.left"),
        (GRIDS["hours"].time, r"time\. .*pandas\.to_timedelta"),
    ],
)
def test_types_of_pandas_that_are_no_numbers_are_told_what_to_do(values, way):
    table = pd.DataFrame({"t": values, "x": RNG.normal(size=N)})
    with pytest.raises(InputError, match=f"'t' of `X` must hold .*got {way}"):
        Schema.of(table)


def test_what_lies_beyond_the_range_makes_no_heap_at_its_ends():
    hours = START + pd.to_timedelta(RNG.integers(0, 300, 2_000), "h")
    table = frame(hours)
    schema = Schema.of(table)
    rows = schema.encode(table).rows
    rows[:, 0] *= 1.1  # as a flow that does not keep to the ends
    drawn = schema.decode(rows).t
    assert drawn.between(table.t.min(), table.t.max()).all()
    assert drawn.value_counts().max() < 30
