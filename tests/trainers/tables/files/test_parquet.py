"""Parquet, whose types and indexes are known."""

import datetime
import decimal
import json

import numpy as np
import pytest

from trainers import Schema
from trainers.tables import (
    InputError,
    frames_of,
    num_rows_of,
    read_frame,
    size_of,
    write_frame,
)

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
DAY = datetime.date(2024, 1, 31)


def write(path, columns, **options):
    parquet.write_table(pa.table(columns), path, **options)
    return path


def test_types_as_they_are(tmp_path):
    columns = {
        "i8": pa.array([1, None], pa.int8()),
        "u64": pa.array([2**64 - 1, 0], pa.uint64()),
        "f16": pa.array(np.float16([0.5, 2])),
        "f32": pa.array([0.1, None], pa.float32()),
        "money": pa.array([decimal.Decimal("0.1"), decimal.Decimal("-7.1234")]),
        "truth": pa.array([True, None]),
        "day": pa.array([DAY, None]),
        "instant": pa.array([0, 1], pa.timestamp("ms", "Europe/Berlin")),
        "clock": pa.array([datetime.time(0, 1), None]),
        "word": pa.array(["u", None], pa.large_string()),
        "class": pa.DictionaryArray.from_arrays([1, None], ["low", "high"]),
        "empty": pa.nulls(2),
    }
    frame = read_frame(write(tmp_path / "x.parquet", columns))
    sources = {c.name: c.source for c in frame.columns}
    assert sources == {
        "i8": "Int8",
        "u64": "UInt64",
        "f16": "Float32",
        "f32": "Float32",
        "money": "Float64",
        "truth": "Boolean",
        "day": "Date",
        "instant": "Datetime(time_unit='ms', time_zone='Europe/Berlin')",
        "clock": "Duration(time_unit='us')",
        "word": "String",
        "class": "Categorical",
        "empty": "Float64",
    }
    assert frame["money"].values.tolist() == [0.1, -7.1234]
    assert frame["u64"].values.tolist() == [2**64 - 1, 0]
    assert frame["clock"].values[0] == np.timedelta64(60, "s")
    assert frame["class"].levels == ("low", "high")
    assert [c.missing[1] for c in frame.columns if c.missing.any()] == [True] * 8
    assert frame["empty"].missing.all()


CLOCKS = [datetime.time(i % 24, 7 * i % 60) for i in range(40)]
WORDS = [f"k{i % 4}" for i in range(40)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        *(
            (CLOCKS, kind)
            for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"))
        ),
        ([DAY + datetime.timedelta(i) for i in range(40)], pa.date64()),
        (WORDS, pa.string_view()),
        (WORDS, pa.large_string()),
    ],
    ids=str,
)
def test_types_come_back_as_they_came(tmp_path, values, kind):
    path = write(tmp_path / "x.parquet", {"a": pa.array(values, kind)})
    kind = parquet.read_schema(path).field("a").type  # Parquet has no seconds
    schema = Schema.of(path)
    schema = Schema.from_config(json.loads(json.dumps(schema.to_config())))
    table = schema.decode_frame(schema.encode(path, noise=np.full(1, 0.5)).rows)
    write_frame(tmp_path / "y.parquet", table)
    found = parquet.read_table(tmp_path / "y.parquet")["a"]
    assert (found.type, found.to_pylist()) == (kind, values)
    write_frame(tmp_path / "y.csv", table)
    written = (tmp_path / "y.csv").read_text().splitlines()[2].strip('"')
    assert written in (str(values[1]), f"{values[1]} 00:00:00")


def test_decimals_are_the_nearest_floats(tmp_path):
    texts = [f"{v:.4f}" for v in np.random.default_rng(0).normal(scale=1e3, size=500)]
    column = pa.array([decimal.Decimal(text) for text in texts])
    frame = read_frame(write(tmp_path / "x.parquet", {"a": column}))
    assert frame["a"].values.tolist() == [float(text) for text in texts]


@pytest.mark.parametrize("name", [None, "when"])
def test_the_index_of_pandas_is_left_out(tmp_path, name):
    pd = pytest.importorskip("pandas")
    index = pd.Index([7, 3], name=name)
    path = tmp_path / "x.parquet"
    pd.DataFrame({"a": [1.5, 2.5]}, index=index).to_parquet(path)
    frame = read_frame(path)
    assert frame.names == ("a",)
    kept = name or "__index_level_0__"
    assert f"index, {kept}, only counts or names the rows" in frame.notes[0]
    assert read_frame(path, columns=[kept]).names == (kept,)
    pd.DataFrame({"a": [1.5, 2.5]}).to_parquet(path)
    frame = read_frame(path)
    assert (frame.names, frame.notes) == (("a",), ())


def test_what_a_frame_cannot_hold_is_left_out(tmp_path):
    columns = {"a": [1, 2], "tags": [["u"], []], "raw": [b"u", b"v"]}
    path = write(tmp_path / "x.parquet", columns)
    frame = read_frame(path)
    assert frame.names == ("a",)
    assert "tags (list<" in frame.notes[0]
    assert "raw (binary) hold no numbers" in frame.notes[0]
    with pytest.raises(
        InputError, match=r"--columns must be among .*x\.parquet', a; got"
    ):
        read_frame(path, columns=["tags"])


def test_parts_and_sizes(tmp_path):
    columns = {"a": np.arange(10), "b": [f"w{i % 2}" for i in range(10)]}
    path = write(tmp_path / "x.parquet", columns, row_group_size=4)
    parts = list(frames_of(path, rows=3))
    assert sum(map(len, parts)) == 10
    assert max(map(len, parts)) <= 3
    assert np.concatenate([part["a"].values for part in parts]).tolist() == [*range(10)]
    assert read_frame(path, limit=2)["b"].values.tolist() == ["w0", "w1"]
    assert num_rows_of(path) == 10
    assert size_of(path) == 160
    empty = write(tmp_path / "e.parquet", {"a": pa.array([], pa.int64())})
    for read in (read_frame, lambda p: list(frames_of(p))):
        with pytest.raises(InputError, match="with 0 rows of 1 columns"):
            read(empty)


def test_names_that_come_twice_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"got .*x\.parquet' with a twice"):
        read_frame(tmp_path / "x.parquet")


def test_an_old_pyarrow_is_refused_by_its_version(monkeypatch, tmp_path):
    path = write(tmp_path / "rows.parquet", {"a": [1.0, 2.0]})
    monkeypatch.setattr(pa, "__version__", "25.0.1")
    told = r"`pyarrow` must be 26 or newer.*got 25\.0\.1.*pip install"
    with pytest.raises(InputError, match=told):
        read_frame(path)
