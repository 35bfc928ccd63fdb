"""Tables into files, and back."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest

from trainers.tables import (
    InputError,
    PartWriter,
    check_output,
    frame_of,
    read_frame,
    write_frame,
)

pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

TABLE = pd.DataFrame(
    {
        "integer": [1, 2, 2**62],
        "unsigned": np.array([2**64 - 1, 0, 7], np.uint64),
        "float": [0.1, 1e22, -5e-324],
        "single": np.array([0.1, 3, 1e-7], np.float32),
        "truth": [True, False, True],
        "class": pd.Categorical(["x", "z", "x"], ["z", "y", "x"]),
        "word": ['a, "b"', None, "ü\nv"],
        "day": np.array(["2024-01-31", "2024-02-29", "1969-12-31"], "datetime64[us]"),
        "instant": np.array(["2024-01-31T10:00:00.5", "NaT", "2024"], "datetime64[ms]"),
        "clock": np.array([60, 3_600, 86_399], "timedelta64[s]"),
        "holes": [np.nan, 2.5, np.inf],
        "counts": pd.array([1, None, 3], "Int64"),
    }
)
TEXTS = [".csv", ".tsv", ".csv.gz", ".tsv.zst"]
# What a format has no type for comes back in another.
OTHER = {
    "text": {"class": "String", "single": "Float64"},
    ".npz": {"class": "String", "counts": "Float64"},
    ".parquet": {},
}


@pytest.mark.parametrize("suffix", [*TEXTS, ".npz", ".parquet"])
def test_every_type_comes_back(tmp_path, suffix):
    frame = frame_of(TABLE)
    path = tmp_path / f"x{suffix}"
    write_frame(path, frame)
    back = read_frame(path)
    assert back.names == frame.names
    other = OTHER["text" if suffix in TEXTS else suffix]
    for column, was in zip(back.columns, frame.columns, strict=True):
        np.testing.assert_array_equal(column.missing, was.missing, column.name)
        values, held = column.values[~column.missing], was.values[~was.missing]
        if suffix in TEXTS and column.name == "single":
            values = values.astype(np.float32)  # the shortest digits of a float32
        np.testing.assert_array_equal(values, held, column.name)
        kind, wanted = column.source.partition("(")[0], was.source.partition("(")[0]
        assert kind == other.get(column.name, wanted)
    if suffix == ".parquet":
        assert [c.source for c in back.columns] == [c.source for c in frame.columns]
        assert back["class"].levels == ("z", "y", "x")


def test_text_as_people_read_it(tmp_path):
    frame = frame_of(TABLE.drop(columns=["unsigned", "single", "holes"]))
    write_frame(tmp_path / "x.csv", frame)
    assert (tmp_path / "x.csv").read_text() == (
        "integer,float,truth,class,word,day,instant,clock,counts\n"
        '1,0.1,true,"x","a, ""b""",2024-01-31 00:00:00,2024-01-31 10:00:00.500,00:01:00,1\n'
        '2,1e+22,false,"z",NA,2024-02-29 00:00:00,NA,01:00:00,NA\n'
        '4611686018427387904,-5e-324,true,"x","ü\nv",1969-12-31 00:00:00,'
        "2024-01-01 00:00:00.000,23:59:59,3\n"
    )


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".npy", ".parquet"])
def test_no_rows(tmp_path, suffix):
    frame = frame_of(TABLE[["integer", "float"]]).take(np.zeros(0, int))
    write_frame(tmp_path / f"x{suffix}", frame)
    with pytest.raises(InputError, match="with 0 rows of 2 columns"):
        read_frame(tmp_path / f"x{suffix}")
    if suffix == ".csv":
        assert (tmp_path / "x.csv").read_text() == "integer,float\n"


def test_holes_in_the_only_column_are_no_blank_lines(tmp_path):
    frame = frame_of(TABLE[["counts"]])
    write_frame(tmp_path / "x.csv", frame)
    assert read_frame(tmp_path / "x.csv")["counts"].missing.tolist() == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (["truth"], "?"),
        (["unsigned"], "u8"),
        (["single"], "f4"),
        (["counts", "float"], "f8"),
        (["counts"], "f8"),
    ],
)
def test_npy_takes_the_type_that_holds_all(tmp_path, names, dtype):
    frame = frame_of(TABLE[names])
    write_frame(tmp_path / "x.npy", frame)
    array = np.load(tmp_path / "x.npy")
    assert array.dtype == dtype
    for values, column in zip(array.T, frame.columns, strict=True):
        assert np.isnan(values).tolist() == column.missing.tolist()
        np.testing.assert_array_equal(
            values[~column.missing], column.values[~column.missing]
        )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["integer", "word", "day"],
            r"numbers only, not word \(String\), day \(Datetime",
        ),
        (["integer", "float"], "column integer must hold integers up to 2.53"),
    ],
)
def test_npy_refuses_what_it_cannot_hold(tmp_path, names, message):
    (tmp_path / "x.npy").write_bytes(b"before")
    with pytest.raises(InputError, match=message):
        write_frame(tmp_path / "x.npy", frame_of(TABLE[names]))
    assert (tmp_path / "x.npy").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("suffix", [*TEXTS, ".npy", ".npz", ".parquet"])
def test_parts_are_one_table(tmp_path, suffix):
    names = ["single"] if suffix == ".npy" else list(TABLE.columns)
    frame = frame_of(TABLE[names])
    write_frame(tmp_path / f"whole{suffix}", frame)
    with PartWriter(tmp_path / f"parts{suffix}") as writer:
        for row in range(3):
            writer.write(frame.take([row]))
    whole, parts = (read_frame(tmp_path / f"{n}{suffix}") for n in ("whole", "parts"))
    assert whole.names == parts.names
    for a, b in zip(whole.columns, parts.columns, strict=True):
        assert a.source == b.source
        np.testing.assert_array_equal(a.missing, b.missing)
        np.testing.assert_array_equal(a.values[~a.missing], b.values[~b.missing])


@pytest.mark.parametrize("suffix", [*TEXTS, ".npy", ".npz", ".parquet"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_there_stays_if_anything_fails(tmp_path, suffix, error):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"before")
    frame = frame_of(TABLE[["float"]])

    def interrupted():
        with PartWriter(path) as writer:
            writer.write(frame)
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == [path.name]


def test_mode_and_links_are_kept(tmp_path):
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    write_frame(link, frame_of(TABLE[["integer"]]))
    assert link.is_symlink()
    assert real.read_text().startswith("integer\n1\n")
    assert real.stat().st_mode & 0o777 == 0o640


def test_outputs_are_checked_before_any_work(tmp_path):
    (tmp_path / "in.csv").write_text("a\n1\n")
    (tmp_path / "link.csv").symlink_to("in.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "in.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, message in {
        "x.xlsx": r"must end in one of \.csv, .* got .*x\.xlsx",
        "x": "must end in one of",
        "x.npy.gz": r"\.csv or \.tsv with \.gz or \.zst behind",
        "none/x.csv": "must be in an existing folder, .* Make the folder .*none",
        "folder.csv": "must be a file, got .*folder",
        "in.csv": "another file than the one that is read",
        "link.csv": "another file than the one that is read",
        "hard.csv": "another file than the one that is read",
        "folder.csv/../in.csv": "another file than the one that is read",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            check_output(tmp_path / name, inputs=["-", tmp_path / "in.csv"])
        assert str(caught.value).isprintable()
    for name in ("x.csv", "x.TSV.gz", "x.parquet", "x.npy", "x.npz"):
        check_output(tmp_path / name, inputs=[tmp_path / "in.csv"])
    check_output("-", inputs=["-"])
    with contextlib.suppress(InputError):
        write_frame(tmp_path / "none" / "x.csv", frame_of(TABLE))
    assert not (tmp_path / "none").exists()


def test_standard_input_is_not_written_over(tmp_path, monkeypatch):
    path = tmp_path / "in.csv"
    path.write_text("a\n1\n")
    with path.open() as file, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", file)
        with pytest.raises(InputError, match="another file than the one that is read"):
            check_output(path, inputs=["-"])
        check_output(tmp_path / "out.csv", inputs=["-"])


@pytest.mark.slow
def test_a_full_disk_is_told(tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import numpy as np\n"
        "from trainers.tables import write_frame, frame_of\n"
        "write_frame(sys.argv[1], frame_of(np.random.default_rng(0).normal(size=(999, 2))))"
    )
    for name in ("x.csv", "x.npy", "x.parquet"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)],
            capture_output=True,
            text=True,
        )
        last = done.stderr.strip().splitlines()[-1]
        assert "InputError" in last
        assert "cannot be written" in last
        assert os.listdir(tmp_path) == []


def test_standard_output(capfdbinary):
    write_frame("-", frame_of(TABLE[["integer", "class"]]))
    assert capfdbinary.readouterr().out == (
        b'integer,class\n1,"x"\n2,"z"\n4611686018427387904,"x"\n'
    )
