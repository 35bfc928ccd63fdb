"""A table and its schema: there and back, in the type it came in."""

import datetime
import decimal
import io
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from trainers.tables.checks import InputError
from trainers.tables.door import frame_of
from trainers.tables.schema import Schema

N = 400
RNG = np.random.default_rng(0)
MIXED = {
    "real": RNG.normal(size=N) + 1e7,
    "price": np.exp(3 * RNG.normal(size=N)),
    "count": RNG.poisson(3, N),
    "big": np.rint(3e9 + 1e9 * RNG.normal(size=N)).astype(np.int64),
    "grade": RNG.choice(["low", "mid", "high"], N).tolist(),
    "yes": RNG.random(N) < 0.3,
    "day": [datetime.date(2020, 1, 1) + datetime.timedelta(int(d)) for d in range(N)],
    "at": [
        datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=float(s))
        for s in RNG.uniform(0, 1e6, N)
    ],
}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_data_frame_comes_back_as_it_came(make):
    table = make(MIXED)
    schema = Schema.of(table)
    schema = Schema.from_config(json.loads(json.dumps(schema.to_config())))
    rows, log_det = schema.encode(table)
    assert rows.dtype == np.float32
    assert log_det.dtype == np.float64
    assert np.isfinite(log_det).all()
    assert (np.abs(rows.mean(0)) < 0.3).all()
    assert ((rows.std(0) > 0.5) & (rows.std(0) < 2)).all()
    back = schema.decode(rows)
    assert type(back) is type(table)
    came, went = frame_of(table), frame_of(back)
    assert came.names == went.names
    for a, b in zip(came.columns, went.columns, strict=True):
        assert a.source == b.source or a.name == "day"
        if a.values.dtype == object or a.values.dtype.kind in "bi":
            if a.name != "big":
                assert a.values.tolist() == b.values.tolist(), a.name
        elif a.values.dtype.kind == "f":
            np.testing.assert_allclose(a.values, b.values, rtol=1e-5)
    assert back.__class__.__module__.split(".")[0] in ("pandas", "polars", "pyarrow")


@pytest.mark.parametrize(
    "dtype",
    [
        "int64",
        "uint64",
        "int8",
        "bool",
        "float16",
        "longdouble",
        ">f8",
        ">i4",
        "float32",
    ],
)
def test_every_type_is_read_by_value(dtype):
    x = np.rint(3 * RNG.normal(size=(N, 2)) + 20)
    x = (x > 20) if dtype == "bool" else x
    schema = Schema.of(x.astype(np.float64))
    typed = x.astype(dtype)
    same = Schema.of(typed)
    assert [c.kind for c in same.columns] == [c.kind for c in schema.columns]
    np.testing.assert_array_equal(same.encode(typed).rows, schema.encode(x).rows)
    assert same.decode(same.encode(typed).rows).dtype == np.dtype(dtype).newbyteorder(
        "="
    )


def test_decimals_are_numbers_and_words_are_not():
    x = np.array([[decimal.Decimal(i) / 7, i % 5] for i in range(50)], object)
    np.testing.assert_array_equal(
        Schema.of(x).encode(x).rows, Schema.of(x.astype(float)).encode(x).rows
    )
    with pytest.raises(InputError, match="column 1 of `X` must hold real numbers"):
        Schema.of(np.array([[i, "q"] for i in range(50)], object))
    with pytest.raises(InputError, match="column 'a' holds numbers as words"):
        Schema.of(pd.DataFrame({"a": [str(i) for i in range(50)]}))


@pytest.mark.parametrize("offset", [1e7, 1.7e9, 2.45e6])
@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_offsets_and_scales_change_nothing_but_the_constant(offset, factor):
    x = RNG.normal(size=(N, 2)) @ np.array([[1.0, 0.5], [0, 1]])
    moved = x * factor + [0, offset * factor]
    rows, log_det = Schema.of(x).encode(x)
    other, other_det = Schema.of(moved).encode(moved)
    np.testing.assert_allclose(other, rows, atol=1e-6)
    np.testing.assert_allclose(other_det + 2 * np.log(factor), log_det, atol=1e-6)
    back = Schema.of(moved).decode(other)
    assert len(np.unique(back[:, 1])) >= 0.99 * N


def test_a_row_far_out_ruins_nothing():
    x = RNG.normal(size=(3_000, 2))
    x[5] = 1e6
    rows, log_det = Schema.of(x).encode(x)
    assert np.abs(rows).max() < 30
    assert rows.std() < 1.2
    assert np.isfinite(log_det).all()


def test_copies_constants_and_text_are_left_out_and_written_back():
    x = RNG.normal(size=N)
    table = pd.DataFrame(
        {"x": x, "f": 1.8 * x + 32, "same": x, "c": 3, "t": [f"r{i}" for i in range(N)]}
    )
    schema = Schema.of(table)
    assert [c.kind.kind for c in schema.columns] == ["continuous", *["skipped"] * 4]
    back = schema.decode(schema.encode(table).rows)
    assert list(back.columns) == ["x", "f", "same", "c"]
    np.testing.assert_allclose(back["f"], table["f"], rtol=1e-5, atol=1e-4)
    assert (back["c"] == 3).all()
    array = table[["x", "c"]].to_numpy()
    assert Schema.of(array).decode(np.zeros((2, 1))).shape == (2, 2)


@pytest.mark.parametrize(
    ("factor", "offset", "why"),
    [
        (1, 0, "a copy of x"),
        (3, 0, "a multiple of x"),
        (-1, 1, "1 minus x"),
        (1, 5, "a linear function of x"),
        (1.8, 32, "a linear function of x"),
    ],
)
def test_why_a_column_is_left_out(factor, offset, why):
    x = RNG.random(N)
    table = pd.DataFrame({"x": x, "y": factor * x + offset})
    assert Schema.of(table).column("y").why == why


def test_columns_are_found_by_name():
    table = pd.DataFrame(MIXED)
    schema = Schema.of(table)
    shuffled = table[list(table.columns)[::-1]].assign(extra="?")
    np.testing.assert_array_equal(
        schema.encode(shuffled).rows, schema.encode(table).rows
    )
    with pytest.raises(InputError, match="must have the columns of the fit; price not"):
        schema.encode(table.drop(columns="price"))
    with pytest.raises(InputError, match="must have the 2 columns of the fit, got 3"):
        Schema.of(RNG.normal(size=(9, 2))).encode(RNG.normal(size=(9, 3)))


def test_holes_are_counted_by_column():
    table = pd.DataFrame(MIXED)
    table.loc[[3, 4], "real"] = np.nan
    table.loc[7, "grade"] = None
    with pytest.raises(InputError, match=r"2 in real, 1 in grade \(of 400 rows\)"):
        Schema.of(table)
    x = RNG.normal(size=(9, 2))
    schema = Schema.of(x)
    x[3, 1] = np.inf
    with pytest.raises(InputError, match="1 in x1"):
        schema.encode(x)


def test_kinds_are_overridden_by_name_or_number():
    x = RNG.integers(0, 5, (N, 2))
    schema = Schema.of(x, {0: "categorical", "x1": "skipped"})
    assert [c.kind_name for c in schema.columns] == ["categorical", "skipped"]
    with pytest.raises(InputError, match="`kinds` must name columns, x0, x1; got 5"):
        Schema.of(x, {5: "positive"})


def test_rounded_columns_can_be_densities():
    x = RNG.normal(size=(N, 1)).round(1)
    mass, density = Schema.of(x), Schema.of(x, masses=False)
    assert mass.columns[0].kind.is_mass
    assert not density.columns[0].kind.is_mass
    assert density.noise == 1  # dithered all the same


def test_contexts_are_numbers_and_one_hot():
    table = pd.DataFrame({k: MIXED[k] for k in ("real", "grade", "yes")})
    rows = Schema.of(table, given=True).context(table)
    assert rows.shape == (N, 1 + 3 + 1)
    assert set(np.unique(rows[:, 1:4])) == {0, 1}
    assert set(np.unique(rows[:, 4])) == {-1, 1}


def test_categories_come_in_the_order_of_the_numbers():
    grade = RNG.choice(["b", "c", "a"], N)
    x = pd.Series(grade).map({"b": 0.0, "c": 5.0, "a": 9.0}) + RNG.normal(size=N)
    codes = pd.Series(grade).map({"b": 7, "c": 2, "a": 5})
    table = pd.DataFrame({"grade": grade, "codes": codes, "x": x})
    schema = Schema.of(table, {"codes": "categorical"})
    assert schema.column("grade").kind.levels in [("b", "c", "a"), ("a", "c", "b")]
    assert schema.column("codes").kind.levels in [(7, 2, 5), (5, 2, 7)]
    back = schema.decode(schema.encode(table).rows)
    assert (back[["grade", "codes"]] == table[["grade", "codes"]]).all(axis=None)


def test_draws_are_the_same_for_every_row():
    x = RNG.integers(0, 9, (N, 2))
    schema = Schema.of(x)
    for alone, all_rows in zip(
        schema.encodings(x[:1], 4), schema.encodings(x, 4), strict=True
    ):
        np.testing.assert_array_equal(alone.rows[0], all_rows.rows[0])
    assert len(list(Schema.of(RNG.normal(size=(9, 2))).encodings(x[:0], 4))) == 1


def test_the_table_of_kinds_fits_a_screen():
    import rich.console

    console = rich.console.Console(width=80, record=True, file=io.StringIO())
    console.print(Schema.of(pd.DataFrame(MIXED)).table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    printed = str(Schema.of(pd.DataFrame(MIXED)).table())
    assert printed.splitlines() == text.rstrip("\n").splitlines()
    assert "date" in text
    assert "categorical" in text


@pytest.mark.parametrize("spread", [0.5, 50])  # few levels, and many
def test_rounded_values_come_back_as_they_were_written(spread):
    x = (45 + spread * RNG.normal(size=N)).round(1)
    schema = Schema.of({"x": x}, {"x": "rounded"})
    back = schema.decode_frame(schema.encode({"x": x}).rows)["x"].values
    assert len(np.unique(back)) > 5
    np.testing.assert_array_equal(back, back.round(1))


@pytest.mark.parametrize(
    "origin",
    [
        np.int64(2**53 + 1),
        np.int64(9 * 10**18),
        np.int64(-9 * 10**18),
        np.uint64(2**63),
    ],
)
@pytest.mark.parametrize("step", [1, 300])
def test_whole_numbers_that_float64_does_not_hold_keep_their_differences(origin, step):
    k = step * RNG.integers(0, 1_000, N).astype(origin.dtype)
    far, near = ({"k": k + o, "x": RNG.normal(size=N)} for o in (origin, 0))
    near["x"] = far["x"]
    ours, plain = Schema.of(far), Schema.of(near)
    rows, log_det = ours.encode(far)
    expected = plain.encode(near)
    np.testing.assert_allclose(rows, expected.rows, atol=1e-6)
    np.testing.assert_allclose(log_det, expected.log_det, atol=1e-9)
    back = ours.decode_frame(rows)["k"].values
    assert back.dtype == origin.dtype
    np.testing.assert_array_equal(back, far["k"])
    again = Schema.from_config(json.loads(json.dumps(ours.to_config())))
    np.testing.assert_array_equal(again.encode(far).rows, rows)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "values", [RNG.normal(size=N).round(1), RNG.choice([0.1, 0.25, 0.7], N)]
)
def test_decimals_in_a_short_type_are_what_they_are_in_float64(values, dtype):
    x = values[:, None]
    schema, short = Schema.of(x), Schema.of(x.astype(dtype))
    assert short.columns[0].kind == schema.columns[0].kind
    one, other = schema.encode(x), short.encode(x.astype(dtype))
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.log_det, other.log_det)
    assert np.isin(short.decode(other.rows), x.astype(dtype)).all()


def test_numbers_of_any_length_in_float32_are_left_as_they_are():
    x = RNG.normal(size=(N, 1)).astype(np.float32)
    schema = Schema.of(x)
    assert schema.columns[0].digits is None
    # Nor is a longer one moved to the digits of a fit.
    schema = Schema.of(x.round(2))
    odd = np.array([[0.123456]], np.float32)
    assert schema.columns[0].numbers(frame_of(odd).columns[0])[0] == odd[0, 0]


def test_whole_numbers_over_all_of_int64_come_back():
    ends = np.iinfo(np.int64)
    x = np.where(np.arange(N) % 2, ends.max, ends.min)[:, None]
    schema = Schema.of(x)
    assert schema.decode(schema.encode(x).rows).tolist() == x.tolist()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([2**60 + 1, 2**60 + 3, 7], True),  # two are one
        ([2**63 - 1, -(2**63), 5], True),  # 5 becomes 0
        ([2**60 + 1, 2**60 + 3], False),  # counted from one of them
        ([2**53 - 1, 5], False),
        (RNG.integers(-(2**62), 2**62, N), False),  # a density
    ],
)
def test_integers_too_far_apart_for_their_masses_are_told(values, told):
    k = np.resize(np.asarray(values, np.int64), N)
    notes = Schema.of({"k": k, "x": RNG.normal(size=N)}).notes
    wanted = ("column 'k': integers 2^53 or more apart are rounded (--drop k)",)
    assert notes == wanted * told
