"""DataFrames come back as they came: types and names, also through a configuration."""

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from trainers.tables import InputError, frame_of, read_frame, write_frame
from trainers.tables.natives import restored
from trainers.tables.natives.labels import as_json, value_of
from trainers.tables.schema import Schema

N = 120
RNG = np.random.default_rng(0)
G = RNG.normal(size=N)
K = RNG.integers(0, 5, N)
WORDS = np.array(["x", "y", "z"])[K % 3]
DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(int(k)) for k in K]
HOURS = [datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=i) for i in range(N)]
PRICES = [decimal.Decimal(int(k)).quantize(decimal.Decimal("0.01")) / 4 for k in K]
LEVELS = ["z", "q", "x", "y"]  # in no order that sorting gives, and one without rows


def back(table, rows=slice(None)):
    schema = Schema.of(table)
    schema = Schema.from_config(json.loads(json.dumps(schema.to_config())))
    return schema.decode(schema.encode(table).rows[rows])


PANDAS = {
    **{name: pd.array(K, name) for name in ("Int64", "UInt8", "int8", "uint16")},
    **{name: pd.array(G, name) for name in ("Float32", "Float64", "double[pyarrow]")},
    "boolean": pd.array(K > 2, "boolean"),
    "bool[pyarrow]": pd.array(K > 2, "bool[pyarrow]"),
    "float16": G.astype(np.float16),
    "longdouble": G.astype(np.longdouble),
    "string": pd.array(WORDS, "string"),
    "string[pyarrow]": pd.array(WORDS, pd.ArrowDtype(pa.string())),
    "decimal[pyarrow]": pd.array(PRICES, pd.ArrowDtype(pa.decimal128(10, 2))),
    "timestamp[pyarrow]": pd.array(HOURS, pd.ArrowDtype(pa.timestamp("ms"))),
    "dictionary[pyarrow]": pd.arrays.ArrowExtensionArray(
        pa.array(WORDS).dictionary_encode()
    ),
    "ordered": pd.Categorical(WORDS, LEVELS, ordered=True),
    "numbers as categories": pd.Categorical(K, [9, 4, 3, 2, 1, 0]),
    "small numbers as categories": pd.Categorical(K.astype("int8")),
    "intervals": pd.cut(G, 4),
    "intervals of zoned times": pd.cut(
        pd.date_range("2020-03-01", "2020-05-01", N, tz="Europe/Berlin"), 3
    ),
    "days as categories": pd.Categorical(pd.DatetimeIndex(DAYS)),
    "strings as categories": pd.Series(WORDS, dtype="string").astype("category"),
    "objects as categories": pd.Categorical(
        WORDS, pd.Index(["x", "y", "z"], dtype=object)
    ),
    **{
        f"{name} as categories": pd.Categorical(pd.array(K, name))
        for name in ("Int64", "Float64", "int64[pyarrow]", "uint64")
    },
    "boolean as categories": pd.Categorical(pd.array(K > 2, "boolean")),
    "mixed categories": pd.Categorical(np.array([1, "x", 2.5], object)[K % 3]),
    "truth and numbers": pd.Categorical(np.array([0, True, 2], object)[K % 3]),
    "large numbers as categories": pd.Categorical(
        np.array([1, 2**63 + 5, 10**25], object)[K % 3]
    ),
    "unsigned categories": pd.Categorical(
        np.array([1, 2, 2**63 + 5], np.uint64)[K % 3]
    ),
    "sparse": pd.arrays.SparseArray(np.where(K > 2, G, 0.0), fill_value=0.0),
    **{
        name: pd.Series(values, dtype=object)
        for name, values in {
            "words": WORDS.tolist(),
            "whole": K.tolist(),
            "truth": (K > 2).tolist(),
            "decimals": PRICES,
            "days": DAYS,
            "instants": HOURS,
            "stamps": list(map(pd.Timestamp, HOURS)),
            "zoned": [pd.Timestamp(h, tz="Europe/Berlin") for h in HOURS],
            "spans": [h - HOURS[0] for h in HOURS],
        }.items()
    },
}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("values", PANDAS.values(), ids=PANDAS)
def test_pandas_types_come_back(values, constant):
    table = pd.DataFrame({"a": values, "b": G})
    if constant:
        table["a"] = table["a"].iloc[[0] * N].reset_index(drop=True)
    went = back(table)
    # Hours in days as float32 are some seconds off.
    exact = isinstance(
        table["a"].iloc[0], str | bool | int | datetime.date | pd.Interval
    )
    if exact and not isinstance(table["a"].iloc[0], datetime.datetime):
        pd.testing.assert_series_equal(went["a"], table["a"])
    assert went["a"].dtype == table["a"].dtype
    assert type(went["a"].iloc[0]) is type(table["a"].iloc[0])
    assert back(table, slice(0)).dtypes.equals(table.dtypes)


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.int8()])
def test_a_column_without_values_is_left_out(kind):
    empty = pd.array([None] * N, pd.ArrowDtype(kind))
    assert Schema.of(pd.DataFrame({"g": G, "y": empty})).width == 1


def test_decimals_of_python_keep_their_scale():
    went = back(pd.DataFrame({"a": PRICES, "b": G}))["a"]
    assert went.tolist() == PRICES
    assert {value.as_tuple().exponent for value in went} == {-2}
    zoned = PANDAS["zoned"]
    off = back(pd.DataFrame({"a": zoned, "b": G}))["a"] - zoned
    assert off.abs().max() < pd.Timedelta(minutes=1)


POLARS = {
    "Enum": pl.Series(WORDS, dtype=pl.Enum(LEVELS)),
    "Categorical": pl.Series(WORDS, dtype=pl.Categorical),
    "Decimal": pl.Series(PRICES, dtype=pl.Decimal(10, 2)),
    "Int128": pl.Series(K, dtype=pl.Int128),
    "UInt8": pl.Series(K, dtype=pl.UInt8),
    "Date": pl.Series(DAYS),
}


@pytest.mark.parametrize("values", POLARS.values(), ids=POLARS)
def test_polars_types_come_back(values):
    table = pl.DataFrame({"a": values, "b": G})
    assert back(table)["a"].equals(values)
    assert back(table).schema == back(table, slice(0)).schema == table.schema


ARROW = {
    "decimal128": pa.array(PRICES, pa.decimal128(10, 2)),
    "decimal256": pa.array(PRICES, pa.decimal256(40, 2)),
    "date64": pa.array(DAYS, pa.date64()),
    "half": pa.array(K.astype(np.float16)),
    "large_string": pa.array(WORDS.tolist(), pa.large_string()),
    "string_view": pa.array(WORDS.tolist(), pa.string_view()),
    "dictionary": pa.array(WORDS).dictionary_encode(),
    "ordered": pa.DictionaryArray.from_arrays(
        pa.array(K % 4, pa.int8()), pa.array(LEVELS), ordered=True
    ),
    "numbers in a dictionary": pa.array(K).dictionary_encode(),
    "days in a dictionary": pa.array(DAYS).dictionary_encode(),
    "runs": pc.run_end_encode(pa.array(np.sort(K))),
}


@pytest.mark.parametrize("values", ARROW.values(), ids=ARROW)
def test_arrow_types_come_back(values):
    table = pa.table({"a": values, "b": G})
    assert back(table).schema == back(table, slice(0)).schema == table.schema
    assert back(table)["a"].to_pylist() == values.to_pylist()
    assert back(table.to_batches()[0])["a"].to_pylist() == values.to_pylist()


def test_decimals_stay_within_their_digits():
    native = {"type": "decimal128(5, 2)"}
    column = restored(
        np.array([1e6, -1e6, 0.125]), np.zeros(3, bool), native, "pyarrow"
    )
    assert [str(v) for v in column.to_pylist()] == ["999.99", "-999.99", "0.12"]


@pytest.mark.parametrize("name", ["decimal128", "half", "large_string"])
def test_parquet_types_come_back(tmp_path, name):
    table = pa.table({"a": ARROW[name], "b": G})
    pq.write_table(table, tmp_path / "a.parquet")
    frame = read_frame(tmp_path / "a.parquet")
    write_frame(tmp_path / "b.parquet", Schema.of(frame).decode_frame(np.zeros((9, 2))))
    assert pq.read_schema(tmp_path / "b.parquet").types == table.schema.types


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_type_can_be_written(tmp_path, suffix):
    several = {
        "pandas": pd.DataFrame(PANDAS),
        "polars": pl.DataFrame(POLARS),
        "pyarrow": pa.table(ARROW),
    }
    for origin, table in several.items():
        path = tmp_path / f"{origin}{suffix}"
        schema = Schema.of(table)
        write_frame(path, schema.decode_frame(np.zeros((3, schema.width))))
        assert len(read_frame(path)) == 3


NAMES = {
    "numbers": [0, 1],
    "floats": [0.5, np.inf],
    "truth": [True, False],
    "days": [*DAYS[:1], datetime.date(1999, 1, 1)],
    "instants": pd.date_range("2020", "2021", 2),
    "periods": pd.period_range("2020-01", periods=2, freq="M"),
    "intervals": pd.interval_range(0, 2),
    "words and numbers": ["a", 1],
    "tuples": pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["u", None]),
    "flat tuples": pd.Index([("a", 1), ("b", 2)], tupleize_cols=False),
    "named": pd.Index(["a", "b"], name="measure"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_come_back(names):
    table = pd.DataFrame(np.c_[G, G**2], columns=names)
    pd.testing.assert_index_equal(back(table).columns, table.columns)
    kinds = {table.columns[1]: "positive"}
    assert Schema.of(table, kinds).columns[1].kind_name == "positive"


def test_plain_columns_are_kept_as_by_earlier_releases():
    words = {"b": WORDS} if pd.__version__ >= "3" else {}  # objects of Python before
    config = Schema.of(pd.DataFrame({"a": G} | words)).to_config()
    assert not {"native", "label"} & set().union(*config["columns"])
    named = Schema.of(pd.DataFrame({0: G})).to_config()
    assert named["columns"][0]["label"] == {"name": ["int", 0]}


def test_a_configuration_runs_nothing():
    for bad in (["os.system", "x"], ["__import__", "os"]):
        with pytest.raises(ValueError, match="must be of a known type; got '"):
            value_of(bad)
    for origin in ("pandas", "polars", "pyarrow"):
        with pytest.raises(ValueError, match=r"known type|No type alias for"):
            restored(G, np.zeros(N, bool), {"type": "os.system"}, origin)
    with pytest.raises(
        ValueError, match="words, numbers, dates or intervals; got bytes"
    ):
        as_json(b"a")


LISTS = {"a": [[1, 2]] * N, "b": G}
TUPLES = pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval())


class NoArray:
    """What NumPy cannot read, as a tensor with a gradient."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("use tensor.detach().numpy()")


class Delayed:
    """A table that is not in memory yet."""

    columns = ("a",)

    def compute(self):
        return 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame(LISTS), "column 'a' of `X` must hold real numbers, got 'list'"),
        (pl.DataFrame(LISTS), "column 'a' of `X` must hold real numbers, got List"),
        (pa.table({"a": TUPLES}), "column 'a' of `X` must hold .* got 'MonthDayNano'"),
        (pl.DataFrame({"a": [{"q": 1}] * 3}), "column 'a' of `X` must hold .* Struct"),
        (pl.DataFrame({"a": [{"q": 1, "r": 2}] * 3}), "must hold real numbers, .* Str"),
        (pl.DataFrame({"a": np.c_[G, G]}), "must hold real numbers, got Array"),
        (
            pl.DataFrame({"a": pl.Series([2**70, 1], dtype=pl.Int128)}),
            "column 'a' of `X` must hold integers of 64 bits; got 1 to 1180591620717411",
        ),
        (
            pd.DataFrame({"a": np.array(["u", 1, "1", None] * 9, object)}),
            "column 'a' of `X` must hold words or numbers, not both; got 'u' in 18 rows"
            " and 1 in 9",
        ),
        (pd.DataFrame({b"a": G}), "must have a name and categories that are words"),
        ({"a": 1}, "column 'a' of `X` must hold one value for each row, .* got 1"),
        ({"a": np.c_[G, G]}, r"column 'a' of `X` must hold one value .* \(120, 2\)"),
        ({"a": G, "b": G[:5]}, "as many rows in every column; got 120 in a, 5 in b"),
        (None, "`X` must be a table in memory or the path of one; got None. Give"),
        ((x for x in "ab"), r"got a generator\. Make a list of it with list\(\.\.\.\)"),
        ({1, 2}, "must be a table .* got a set. Give an array"),
        (pl.LazyFrame({"a": G}), r"LazyFrame\. Read it with \.collect\(\)"),
        (np.array(3.0), "must have rows and columns, .* got one number, 3.0. Give an"),
        (np.array("a"), "must have rows and columns, .* got one object, a. Give an"),
        (pd.DataFrame(np.c_[G, G], columns=["a", "a"]), "differently, got twice: a. R"),
        (pa.table([G, G], names=["a", "a"]), "differently, got twice: a. Rename"),
        ({0: G, "0": G}, "name every column differently, got twice: 0. Rename"),
        (
            {"a": G, "b": pd.Series(["u", "v"] * 60)},
            r"column 'b' of `X` must hold real numbers",
        ),
        (pd.DataFrame({"a": G + 1j}), r"complex\. Convert it to two columns, x\.real"),
        (G + 1j, r"complex\. Convert it to two columns, x\.real and x\.imag"),
        (pd.DataFrame({"a": [10**30, 5]}), "integers of 64 bits; got 5 to 1000000"),
        ([{"a": 1}, {"a": 2}], r"got dict\. Convert it to a DataFrame, with pandas"),
        ([[1, 2], [3]], "`X` must be what NumPy makes an array of; got a list: "),
        (NoArray(), "got a NoArray: use tensor.detach"),
        (Delayed(), r"got a .*Delayed\. Read it with \.compute\(\)"),
        (np.arange(9).astype("m8[M]"), r"durations in days, .* got timedelta64\[M\]"),
    ],
)
def test_what_is_no_table_is_told_by_name(table, message):
    with pytest.raises(InputError, match=message):
        Schema.of(table)


@pytest.mark.filterwarnings("error")
def test_longer_floats_than_float64_are_refused_as_others():
    with pytest.raises(InputError, match=r"numbers within .*1e.100"):
        Schema.of(np.array([1, 2, np.longdouble("1e400")])[:, None])


def test_sparse_matrices_are_told_the_way_out():
    import scipy.sparse

    with pytest.raises(
        InputError, match=r"csr_matrix\. Make an array .* \.toarray\(\)"
    ):
        Schema.of(scipy.sparse.csr_matrix(np.eye(3)))


@pytest.mark.parametrize("kinds", [None, ["positive"], "positive"])
def test_kinds_must_be_a_mapping(kinds):
    with pytest.raises(InputError, match="`kinds` must be 'auto' or a mapping"):
        Schema.of(pd.DataFrame({"a": G}), kinds)


@pytest.mark.parametrize("value", ["u", 3, DAYS[0]])
def test_one_value_and_empty_cells_are_two_states(value):
    table = pd.DataFrame({"a": [value] * 90 + [None] * 30, "b": G})
    message = r"30 in a \(else always .*: fill the empty cells to model both\)"
    with pytest.raises(InputError, match=message):
        Schema.of(table)
    assert Schema.of(table.assign(a=value)).column("a").kind.kind == "skipped"
    assert Schema.of(table, {"a": "skipped"}).names == ("a", "b")
    # What is not written back, loses nothing.
    assert Schema.of(table.assign(a=None)).column("a").why == "no values"


def test_frames_of_other_libraries_keep_names_as_text():
    frame = frame_of(pd.DataFrame({0: G, 1: pd.Categorical(K)}))
    assert frame.names == ("0", "1")
    assert frame.dataframe("polars").columns == ["0", "1"]
    assert frame.dataframe("pyarrow").column_names == ["0", "1"]
