"""Arrays of NumPy in files."""

import numpy as np
import pytest

from trainers.tables import InputError, frames_of, num_rows_of, read_frame, size_of

DTYPES = ["?", "i1", "u2", "<i4", ">i8", "u8", "f2", ">f4", "<f8", "longdouble"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_numbers(tmp_path, dtype):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    frame = read_frame(tmp_path / "x.npy")
    assert frame.names == ("x0", "x1")
    for column, wanted in zip(frame.columns, x.T, strict=True):
        np.testing.assert_array_equal(column.values, wanted)
        assert column.values.dtype == wanted.dtype.newbyteorder("=")


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_in_either_order(tmp_path, order):
    x = np.arange(30.0).reshape(10, 3)
    np.save(tmp_path / "x.npy", np.asarray(x, order=order))
    parts = list(frames_of(tmp_path / "x.npy", rows=4, columns=["x2", "x0"]))
    assert [len(part) for part in parts] == [4, 4, 2]
    rows = np.concatenate([part.native() for part in parts])
    np.testing.assert_array_equal(rows, x[:, [2, 0]])
    limited = read_frame(tmp_path / "x.npy", limit=3)
    np.testing.assert_array_equal(limited.native(), x[:3])
    assert num_rows_of(tmp_path / "x.npy") == 10
    assert size_of(tmp_path / "x.npy", drop="x1") == 10 * 2 * 8


def test_one_dimension_and_records(tmp_path):
    np.save(tmp_path / "x.npy", np.array([1, 3, 2]))
    assert read_frame(tmp_path / "x.npy")["x0"].values.tolist() == [1, 3, 2]
    records = np.array(
        [(1, 2.5, "u", b"w"), (7, np.nan, "", b"")],
        [("a", ">i4"), ("b", "f8"), ("c", "U3"), ("d", "S3")],
    )
    np.save(tmp_path / "r.npy", records)
    frame = read_frame(tmp_path / "r.npy")
    assert frame.names == ("a", "b", "c", "d")
    assert [c.source for c in frame.columns] == ["Int32", "Float64", "String", "String"]
    assert [c.missing.tolist() for c in frame.columns] == [[False, False]] + [
        [False, True]
    ] * 3
    assert (frame["c"].values[0], frame["d"].values[0]) == ("u", "w")


def test_archives(tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    np.savez(tmp_path / "x.npz", one=x, two=2 * x)
    frame = read_frame(tmp_path / "x.npz", array="two")
    np.testing.assert_array_equal(frame.native(), 2 * x)
    with pytest.raises(
        InputError, match=r"--array must name one of .*x\.npz', one, two"
    ):
        read_frame(tmp_path / "x.npz")
    np.savez(tmp_path / "c.npz", price=x[:, 0], n=np.array([4, 4, 5]))
    frame = read_frame(tmp_path / "c.npz")
    assert [(c.name, c.source) for c in frame.columns] == [
        ("price", "Float64"),
        ("n", "Int64"),
    ]
    assert [len(part) for part in frames_of(tmp_path / "c.npz", rows=2)] == [2, 1]
    np.savez_compressed(tmp_path / "z.npz", x)
    np.testing.assert_array_equal(read_frame(tmp_path / "z.npz").native(), x)
    np.savez(tmp_path / "n.npz", price=x[:, 0])
    assert read_frame(tmp_path / "n.npz").names == ("price",)


BAD = {
    "cube": (np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\)"),
    "scalar": (np.float32(3), r"got shape \(\)"),
    "complex": (np.array([1j, 2]), "got complex. Convert it to two columns"),
    "no rows": (np.zeros((0, 3)), "with 0 rows of 3 columns"),
    "no columns": (np.zeros((3, 0)), "rows of 0 columns"),
    "several in a cell": (
        np.zeros(2, [("a", "f8", 3)]),
        r"got shape \(3,\) in column a",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused(tmp_path, name):
    array, message = BAD[name]
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=message) as caught:
        read_frame(tmp_path / "x.npy")
    assert "x.npy" in str(caught.value)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([1, "x"], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", np.array([1, "x"], object), allow_pickle=True)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(InputError, match="without objects"):
            read_frame(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet"])
@pytest.mark.parametrize("how", ["cut", "head", "words", "torn"])
def test_torn_files_are_refused(tmp_path, name, how):
    if name == "x.parquet":
        pytest.importorskip("pyarrow.parquet").write_table(
            pytest.importorskip("pyarrow").table({"a": [1.0, 2.0]}), tmp_path / name
        )
    else:
        (np.save if name == "x.npy" else np.savez)(tmp_path / name, np.ones((4, 2)))
    whole = (tmp_path / name).read_bytes()
    torn = {
        "cut": whole[:-5],
        "head": whole[:20],
        "words": b"a,b\n1,2\n",
        "torn": whole[:12] + b"'{#(" + whole[12:],
    }[how]
    (tmp_path / name).write_bytes(torn)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        read_frame(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_what_numpy_did_not_write_is_not_to_be_unpickled(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="cannot read: ") as caught:
        read_frame(path)
    assert "pickle" not in str(caught.value)
