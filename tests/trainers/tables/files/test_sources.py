"""Where a table lies: suffixes, first bytes, compression, standard input."""

import gzip
import io
import os
import sys

import numpy as np
import pytest

from trainers.tables import InputError, frames_of, read_frame, size_of
from trainers.tables.files.sources import find

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
ROWS = b"a,b\n1,2.5\n2,3.5\n4,4.5\n"


def zstd(data):
    stream = pa.BufferOutputStream()
    with pa.CompressedOutputStream(stream, "zstd") as file:
        file.write(data)
    return stream.getvalue().to_pybytes()


def contents():
    """The same table as bytes of each kind, and the suffix."""
    npy, table = io.BytesIO(), io.BytesIO()
    records = np.array([(1, 2.5), (2, 3.5), (4, 4.5)], [("a", "i8"), ("b", "f8")])
    np.save(npy, records)
    parquet.write_table(pa.table({n: records[n] for n in ("a", "b")}), table)
    return {
        ".csv": ROWS,
        ".tsv": ROWS.replace(b",", b"\t"),
        ".txt": ROWS.replace(b",", b"  "),
        ".npy": npy.getvalue(),
        ".parquet": table.getvalue(),
    }


def check(frame):
    assert frame.names == ("a", "b")
    assert frame["a"].values.tolist() == [1, 2, 4]
    assert frame["b"].values.tolist() == [2.5, 3.5, 4.5]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstd])
@pytest.mark.parametrize("suffix", contents())
def test_every_suffix_plain_and_packed(tmp_path, suffix, pack):
    end = {gzip.compress: ".gz", zstd: ".zst"}.get(pack, "")
    for name in (f"x{suffix}{end}", f"x.y{suffix.upper()}{end.upper()}"):
        path = tmp_path / name
        path.write_bytes(pack(contents()[suffix]))
        check(read_frame(path))
        assert [len(part) for part in frames_of(path, rows=2)] == [2, 1]
        assert size_of(path) >= 48


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstd])
@pytest.mark.parametrize("suffix", contents())
def test_standard_input_is_known_by_its_first_bytes(monkeypatch, suffix, pack):
    stream = io.TextIOWrapper(io.BytesIO(pack(contents()[suffix])))
    monkeypatch.setattr(sys, "stdin", stream)
    source = find("-")
    assert source.path.exists()
    frame = read_frame(source)
    check(frame)
    assert frame.notes[0].startswith("standard input is read as")
    copy = source.path
    check(read_frame(source))  # may be read again
    del source
    assert not copy.exists()


def test_what_the_suffix_does_not_say(tmp_path):
    """The first bytes go before the suffix."""
    for name, data in {
        "x.csv": gzip.compress(ROWS),
        "x.txt": contents()[".parquet"],
        "part-0": contents()[".parquet"],
    }.items():
        (tmp_path / name).write_bytes(data)
        check(read_frame(tmp_path / name))


def test_no_file_no_table(tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"PK\x03\x04")
    (tmp_path / "x.doc").write_bytes(b"words")
    (tmp_path / "x\n.csv").write_bytes(b"a,b\n1\n1,2\n1,2\n")
    for name, message in {
        "none.csv": r"`path` must be an existing file, got .*none\.csv",
        "x.xlsx": "zip archive or an Excel file",
        "x.doc": r"must end in one of \.csv, .* also with \.gz or \.zst, got .*x\.doc",
        "": "must be a file, got the folder",
        "x\n.csv": r"x\\n\.csv' must have 2 cells in every line",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            read_frame(tmp_path / name)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.csv.gz"])
def test_the_missing_extra_is_named(tmp_path, monkeypatch, name):
    packed = gzip.compress(ROWS) if name.endswith("gz") else ROWS
    (tmp_path / name).write_bytes(packed)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'rbig-nnx\[data\]'"):
        read_frame(tmp_path / name)
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    assert len(read_frame(tmp_path / "x.npy")) == 2


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv', a pipe or a device\. Use - "):
        read_frame(tmp_path / "t.csv")
