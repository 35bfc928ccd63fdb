"""Blocks of rows of a file, and streams in constant memory."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from trainers.tables.parts import open_blocks, open_parts

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def write(tmp_path, suffix):
    x = np.arange(40.0).reshape(10, 4)
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, x)
    else:
        columns = {f"x{j}": x[:, j] for j in range(4)}
        parquet.write_table(pa.table(columns), path, row_group_size=3)
    return path, x


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_blocks_of_chosen_columns(tmp_path, suffix):
    path, x = write(tmp_path, suffix)
    parts = open_blocks(path, columns=["x3", "x1", "x0"], drop="x0")
    assert (parts.names, parts.shape) == (("x3", "x1"), (10, 2))
    blocks = parts.blocks(24)
    assert blocks == [(0, 3), (3, 6), (6, 9), (9, 10)]
    rows = np.concatenate([parts.read(*block) for block in blocks])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, x[:, [3, 1]])
    frames = [parts.frame(*block) for block in blocks]
    assert frames[1].names == ("x3", "x1")
    assert frames[1]["x1"].values.tolist() == x[3:6, 1].tolist()
    assert frames[1]["x1"].values.dtype == np.float64


def test_blocks_keep_their_types_and_parts_are_numbers(tmp_path):
    path = tmp_path / "x.parquet"
    columns = {"n": [1, None, 2**60], "w": ["u", "v", None]}
    parquet.write_table(pa.table(columns), path)
    frame = open_blocks(path).frame(0, 3)
    assert [c.source for c in frame.columns] == ["Int64", "String"]
    assert frame["n"].values[2] == 2**60
    assert frame["n"].missing.tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"columns of numbers; \['w'\]"):
        open_parts(path)
    rows = open_blocks(path, drop="w").read(0, 3)
    assert np.isnan(rows[1, 0])


def test_the_index_of_pandas_is_no_feature(tmp_path):
    pd = pytest.importorskip("pandas")
    pd.DataFrame({"a": [1.5, 2.5]}, index=[7, 3]).to_parquet(tmp_path / "x.parquet")
    assert open_parts(tmp_path / "x.parquet").names == ("a",)


STREAM = """
import pathlib, sys
from trainers.tables import PartWriter, frames_of
rows = 0
with PartWriter(sys.argv[2]) as writer:
    for frame in frames_of(sys.argv[1]):
        writer.write(frame)
        rows += len(frame)
# Not `ru_maxrss`: a child's begins with the memory of the process that started it.
status = pathlib.Path("/proc/self/status").read_text()
print(rows, int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", ["x.npy", "x.parquet", "x.csv"])
@pytest.mark.parametrize("target", ["y.npy", "y.parquet", "y.csv.gz"])
def test_streams_take_little_memory(tmp_path, source, target):
    """2,000,000 × 8 rows, 128 MB as float64, in one row group."""
    if source.endswith("csv") and target.endswith("gz"):
        pytest.skip("slow twice")
    random = np.random.default_rng(0)
    rows = random.normal(size=(2_000_000, 8)).astype(np.float32)
    path = tmp_path / source
    if path.suffix == ".npy":
        np.save(path, rows)
    else:
        table = pa.table({f"x{j}": rows[:, j] for j in range(8)})
        if path.suffix == ".csv":
            pytest.importorskip("pyarrow.csv").write_csv(table, path)
        else:
            parquet.write_table(table, path, row_group_size=len(rows))
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(path), str(tmp_path / target)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[3])},
    )
    count, megabytes = map(int, done.stdout.split())
    assert count == len(rows)
    assert megabytes < 600
