"""Where a table comes in and goes out: by which names, and as what where nothing is known."""

import numpy as np
import pandas as pd
import pytest

from trainers.tables import InputError, PartWriter, frame_of, read_frame
from trainers.tables.kinds.exact import from_origin, whole_from
from trainers.tables.schema import Schema

N = 120
RNG = np.random.default_rng(0)
REAL = RNG.normal(size=N)
LOST = {
    "id": np.arange(N, dtype=np.int32) + 1_000,
    "seen": REAL > 0,
    "day": np.datetime64("2020-01-01") + RNG.integers(0, 90, N),
    "span": RNG.integers(0, 90, N).astype("timedelta64[s]"),
    "real": RNG.normal(size=N),
}
PEOPLE = {"height": RNG.normal(170, 10, N), "weight": RNG.normal(70, 10, N)}


def there_and_back(table, kinds="auto"):
    schema = Schema.of(table, kinds)
    return schema.decode_frame(schema.encode(table).rows)


@pytest.mark.parametrize("n", [103, 133, 221, 309])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32, float])
def test_what_negates_another_column_comes_back_exactly(n, dtype):
    male = np.random.default_rng(n).random(n) < 0.3
    table = {"male": male, "female": (~male).astype(dtype), "x": RNG.normal(size=n)}
    schema = Schema.of(table)
    female = schema.column("female")
    assert female.why == "1 minus male"
    assert (female.kind.factor, female.kind.offset) == (-1, 1)
    back = schema.decode_frame(schema.encode(table).rows)["female"].values
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, table["female"])


def test_a_boolean_is_the_nearer_one():
    column = Schema.of({"a": REAL > 0, "b": REAL}).column("a")
    near = np.array([2e-16, -2e-16, 1 - 2e-16, 1, 0])
    assert column.column(near).values.tolist() == [False, False, True, True, False]


def test_a_line_has_the_decimals_that_it_was_written_with():
    table = {"c": 15 + REAL, "f": 1.8 * (15 + REAL) + 32, "k": 15 + REAL + 273.15}
    kinds = [Schema.of(table).column(name).kind for name in "fk"]
    assert [(kind.factor, kind.offset) for kind in kinds] == [(1.8, 32), (1, 273.15)]


@pytest.mark.parametrize("name", LOST)
def test_a_column_that_nothing_is_known_of_is_missing(name):
    table = {"lost": LOST[name], "x": REAL}
    frame = there_and_back(table, {"lost": "skipped"})
    lost = frame["lost"]
    assert lost.missing.all()
    assert lost.values.dtype == LOST[name].dtype
    back = np.column_stack(list(frame.native().T))
    assert pd.isna(back[:, 0]).all()
    np.testing.assert_allclose(back[:, 1].astype(float), REAL, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("first", "nothing"), [("id", "f"), ("day", "M")])
def test_an_array_keeps_its_places(first, nothing):
    other = LOST[first][0] + RNG.permutation(N).astype(int)
    array = np.stack([LOST[first], other], axis=1)
    back = there_and_back(array, {0: "skipped"}).native()
    assert (back.shape, back.dtype.kind) == (array.shape, nothing)
    assert np.isnan(back[:, 0]).all()
    assert not np.isnan(back[:, 1]).any()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_a_file_has_an_empty_cell_where_nothing_is_known(suffix, tmp_path):
    words = np.array([f"n{i}" for i in range(N)])
    np.savez(tmp_path / "in.npz", words=words, **LOST)
    frame = there_and_back(
        read_frame(tmp_path / "in.npz"), dict.fromkeys(set(LOST) - {"real"}, "skipped")
    )
    out = tmp_path / f"out.{suffix}"
    with PartWriter(out) as writer:
        writer.write(frame)
    again = read_frame(out)
    lost = [name for name in frame.names if name != "real"]
    assert again.names == ("words", *LOST)
    assert all(again[name].missing.all() for name in lost)
    np.testing.assert_allclose(again["real"].values, frame["real"].values)


def records(table):
    dtype = [(name, float) for name in table]
    return np.array(list(zip(*table.values(), strict=True)), dtype)


@pytest.mark.parametrize("make", [dict, records, pd.DataFrame])
def test_names_are_not_taken_for_places(make):
    schema = Schema.of(PEOPLE)
    turned = {"weight": PEOPLE["weight"], "height": PEOPLE["height"]}
    assert schema.matched(make(turned)).names == schema.names
    wrong = {"weight": PEOPLE["weight"], "heigth": PEOPLE["height"]}
    message = r"`X` must .*; height not among weight, heigth\. .* Near: .*heigth"
    with pytest.raises(InputError, match=message):
        schema.matched(make(wrong))
    given = Schema.of(PEOPLE, given=True)
    with pytest.raises(InputError, match=r"`context` must have .* Near: "):
        given.context(make(wrong))


def test_without_names_places_count():
    array = np.stack(list(PEOPLE.values()), axis=1)
    of_array, of_names = Schema.of(array), Schema.of(PEOPLE)
    rows = of_array.encode(array).rows
    for schema, table in [
        (of_names, array),
        (of_names, array.tolist()),
        (of_array, {"a": array[:, 0], "b": array[:, 1]}),
        (of_array, pd.DataFrame(array, columns=["a", "b"])),
    ]:
        np.testing.assert_array_equal(schema.encode(table).rows, rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_not_decoded(bad):
    schema = Schema.of({"k": RNG.poisson(400, N), "g": RNG.integers(0, 3, N)})
    rows = np.zeros((4, 2), np.float32)
    rows[2, 1] = bad
    with pytest.raises(InputError, match=r"`rows` must be finite .* is row 2 "):
        schema.decode(rows)
    assert len(schema.decode(rows[:2])) == 2
    assert schema.decode(rows[:0]).shape == (0, 2)


@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (2,), (), (1, 2, 2)])
def test_rows_of_another_shape_are_not_decoded(shape):
    schema = Schema.of(PEOPLE)
    with pytest.raises(InputError, match=r"`rows` .*\[n, 2\], .* got shape \("):
        schema.decode(np.zeros(shape))


def test_a_frame_of_dates_takes_what_is_missing():
    days = np.array(["2020-01-01", "NaT"], "datetime64[D]")
    assert np.isnat(frame_of({"day": days}).native()[1, 0])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("step", [1, 1_000])
def test_whole_numbers_are_counted_from_any_other(dtype, step):
    ends = np.iinfo(dtype)
    x = np.array([ends.min, ends.min + 7, ends.max // 3, ends.max - 7, ends.max], dtype)
    for origin in map(int, x):
        exact = [(int(value) - origin) / step for value in x]
        np.testing.assert_array_equal(from_origin(origin, x, step), exact)
        np.testing.assert_allclose(
            whole_from(from_origin(origin, x), origin, np.dtype(dtype)).astype(float),
            x.astype(float),
            atol=2_048,  # float64 tells no more of what lies so far apart
        )
