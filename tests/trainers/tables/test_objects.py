"""Decimals, objects, zones: exact where NumPy can hold them, or told."""

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainers import Schema
from trainers.tables import InputError

N = 60
STEPS = np.arange(N)
Z = np.random.default_rng(0).normal(size=N)
BEYOND = "column 'a': numbers of more than 15 digits are rounded (--drop a)"


def parquet(values, kind, folder):
    path = folder / "rows.parquet"
    pq.write_table(arrow(values, kind, folder), path)
    return path


def arrow(values, kind, _):
    return pa.table({"a": pa.array(values, kind), "z": Z})


def in_polars(values, kind, _):
    kind = pl.Decimal(kind.precision, kind.scale)
    return pl.DataFrame({"a": pl.Series(values, dtype=kind), "z": Z})


def in_pandas(values, kind, _):
    return pd.DataFrame({"a": pd.array(values, dtype=pd.ArrowDtype(kind)), "z": Z})


def objects(values, kind, _):
    del kind
    return pd.DataFrame({"a": pd.Series(values, dtype=object), "z": Z})


def mapping(values, kind, _):
    del kind
    return {"a": np.array(values, object), "z": Z}


def back_and_notes(table):
    """Column a of the rows as they are decoded, by a schema that was saved; its notes."""
    schema = Schema.of(table)
    again = Schema.from_config(json.loads(json.dumps(schema.to_config())))
    column = again.decode(again.encode(table).rows)["a"]
    values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    return values, schema.notes


@pytest.mark.parametrize("form", [parquet, arrow, in_polars, in_pandas, objects])
@pytest.mark.parametrize("first", [-(2**60) - 1, 2**53 + 1, 2**60 + 1, 2**63 + 1])
def test_whole_decimals_beyond_float64_come_back(form, first, tmp_path):
    values = [Decimal(first + 2 * int(k)) for k in STEPS]
    table = form(values, pa.decimal128(30, 0), tmp_path)
    assert back_and_notes(table) == (values, ())


@pytest.mark.parametrize(
    "form", [parquet, arrow, in_polars, in_pandas, objects, mapping]
)
@pytest.mark.parametrize(
    ("first", "scale"), [("1234567890123456789.125", 3), (f"{10**25}", 0)]
)
def test_decimals_of_more_digits_are_told(form, first, scale, tmp_path):
    values = [Decimal(first) + 16 * int(k) for k in STEPS]
    table = form(values, pa.decimal128(30, scale), tmp_path)
    assert BEYOND in _notes(table)


def _notes(table):
    return Schema.of(table, whole=False).notes


@pytest.mark.parametrize("form", [objects, mapping])
@pytest.mark.parametrize(
    "values",
    [
        [-1 - k if k % 2 else 2**63 + k for k in range(N)],  # of no type of 64 bits
        [*(2**53 + 1 + 2 * k for k in range(N - 1)), 0.5],
    ],
)
def test_whole_numbers_that_no_type_holds_are_told(form, values, tmp_path):
    assert BEYOND in _notes(form(values, None, tmp_path))


def test_what_float64_tells_apart_is_not_told(tmp_path):
    values = [Decimal(k) / 8 for k in range(N)]
    assert not _notes(parquet(values, pa.decimal128(38, 4), tmp_path))
    assert not _notes(objects(values, None, tmp_path))
    assert BEYOND not in _notes(objects([2.0**70 * k for k in range(N)], None, None))


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
@pytest.mark.parametrize(
    "zone",
    ["America/New_York", "America/Port-au-Prince", "Etc/GMT+5", "Europe/Berlin", "UTC"],
)
def test_a_time_zone_comes_back(zone, unit):
    days = pd.date_range("2024-01-01", periods=N, freq="h", tz=zone).as_unit(unit)
    table = pd.DataFrame({"a": days, "z": Z})
    schema = Schema.of(table)
    back = schema.decode(schema.encode(table).rows)["a"]
    assert back.dtype == table["a"].dtype
    assert (back == table["a"]).all()


@pytest.mark.parametrize("zone", [None, "America/New_York"])
@pytest.mark.parametrize("dtype", [None, object])
def test_instants_keep_their_nanoseconds(zone, dtype):
    ticks = pd.to_datetime(1577836800000000001 + 3 * STEPS).tz_localize(zone)
    table = pd.DataFrame({"a": pd.Series(ticks, dtype=dtype), "z": Z})
    assert back_and_notes(table) == (list(ticks), ())


def test_durations_of_pandas_keep_their_nanoseconds():
    values = [pd.Timedelta(1001 + 3 * int(k)) for k in STEPS]
    assert back_and_notes(objects(values, None, None)) == (values, ())


def test_far_dates_beside_nanoseconds_are_not_wrapped():
    held = [pd.Timestamp(1577836800000000001), pd.Timestamp("9999-12-31").as_unit("s")]
    column = Schema.of(objects(held * (N // 2), None, None)).columns[0]
    assert column.high.startswith("9999-12-31")


def test_a_decimal_of_negative_scale_is_named_or_exact():
    values = [Decimal("1E2"), Decimal("3E2"), Decimal("7E2")] * (N // 3)
    table = arrow(values, pa.decimal128(5, -2), None)
    named = "column 'a' of `X` must hold real numbers"
    try:  # narwhals 2.0 has a word for it, 2.29 has none
        found = back_and_notes(table)[0]
    except InputError as error:
        found = str(error).partition(",")[0]
    assert found in (values, named)


def test_dates_beside_numbers_come_back_as_objects():
    table = {
        "a": np.datetime64("2024-01-01") + STEPS,
        "b": STEPS.astype("timedelta64[s]") * 7,
        "c": STEPS,
    }
    schema = Schema.of(table)
    encoded = schema.encode(table).rows
    back = schema.decode(encoded)
    assert back.dtype == object
    for column, values in zip(back.T, table.values(), strict=True):
        assert {type(value) for value in column} == {type(values[0])}
        np.testing.assert_array_equal(column.astype(values.dtype), values)
    np.testing.assert_array_equal(Schema.of(back).encode(back).rows, encoded)


FAR = [20_000 + k for k in range(N - 3)] + [-800_000, 4_000_000, 5_000_000]  # days


@pytest.mark.parametrize("form", [parquet, arrow, in_polars, in_pandas])
def test_dates_beyond_the_year_9999_come_back(form, tmp_path):
    days = pa.array(FAR, pa.date32())
    table = (
        pl.DataFrame({"a": pl.from_arrow(days), "z": Z})
        if form is in_polars
        else form(days, pa.date32(), tmp_path)
    )
    schema = Schema.of(table)
    column = schema.columns[0]
    assert (column.low, column.high) == tuple(
        np.array([-800_000, 5_000_000], "M8[D]").astype(str)
    )
    back = schema.decode_frame(schema.encode(table).rows)["a"].values
    off = np.abs(back.astype(int) - FAR)
    assert not off[:-3].any()
    assert off.max() < 10  # far out they count by their logarithm


def test_holes_among_dates_are_holes():
    days = pa.array([*FAR[:-1], None], pa.date32())
    column = Schema.of(arrow(days, None, None), whole=False).columns[0]
    assert (column.missing, column.high) == (1, str(np.datetime64(4_000_000, "D")))


FIVE = datetime.timezone(datetime.timedelta(hours=5))
BEYOND_PYTHON = {
    "never, in UTC": [
        datetime.datetime(1 + 2019 * (k > 0), 1, 1, tzinfo=FIVE) for k in STEPS
    ],
    "beyond float64": [10**400 if k else Decimal(1) for k in STEPS],
}


@pytest.mark.parametrize("name", BEYOND_PYTHON)
@pytest.mark.parametrize("form", [objects, mapping])
def test_what_python_cannot_convert_is_told_with_its_column(form, name):
    table = form(BEYOND_PYTHON[name], None, None)
    with pytest.raises(
        InputError, match=r"column 'a' of `X` must hold dates of the .*9"
    ):
        Schema.of(table)


def test_far_dates_that_are_categories_are_told_with_their_column():
    days = pa.array(FAR, pa.date32()).dictionary_encode()
    with pytest.raises(
        InputError, match="column 'a' of `X` must hold dates of the years"
    ):
        Schema.of(pa.table({"a": days, "z": Z}))


@pytest.mark.parametrize("form", [objects, mapping])
def test_a_signalling_nan_is_missing(form):
    values = [Decimal("sNaN") if k % 5 == 2 else Decimal(int(k)) for k in STEPS]
    schema = Schema.of(form(values, None, None), whole=False)
    assert schema.columns[0].missing == N // 5
    with pytest.raises(InputError, match="12 in a"):
        Schema.of(form(values, None, None))
