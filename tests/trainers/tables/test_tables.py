import sys

import numpy as np
import pytest

from trainers.tables import (
    InputError,
    check_rows,
    read_table,
    split_rows,
    write_table,
)

X = np.array([[1.5, -2.0], [3.25, 1e-7], [0.1, 12345678.0]], np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet", ".CSV"])
def test_round_trip_is_exact(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write_table(path, X, ("a, b", "c"))
    table = read_table(path)
    assert table.values.dtype == np.float32
    np.testing.assert_array_equal(table.values, X)
    named = suffix.lower() in (".csv", ".parquet")
    assert table.names == (("a, b", "c") if named else ("x0", "x1"))
    np.testing.assert_array_equal(
        read_table(path, table.names[::-1]).values, X[:, ::-1]
    )


@pytest.mark.parametrize(
    "dtype", [np.int64, np.uint8, np.bool_, np.float64, np.float16]
)
def test_number_types_and_one_column(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([0, 1, 2, 3], dtype))
    values = read_table(tmp_path / "a.npy").values
    assert values.shape == (4, 1)
    assert values.dtype == np.float32


def test_csv_without_header_keeps_its_first_row(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    table = read_table(tmp_path / "a.csv")
    np.testing.assert_array_equal(table.values, [[1, 2], [3, 4]])
    assert table.names == ("x0", "x1")


def test_npz_array_is_chosen_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=X, two=2 * X)
    np.testing.assert_array_equal(
        read_table(tmp_path / "a.npz", array="two").values, 2 * X
    )
    with pytest.raises(
        InputError, match=r"`array` must name one of .*one, two, got None"
    ):
        read_table(tmp_path / "a.npz")


BAD_TEXT = {
    "empty.csv": ("", "0 bytes"),
    "header.csv": ("a,b\n", "got .* with 0 rows of 2 columns"),
    "words.csv": ("a,b,c\n1,x,2\n3,4,5\n", r"numbers only, .*: b \(string\)"),
    "hole.csv": ("a,b\n1,2\n3,\n5,6\n,8\n", "missing value in 2 of 4 rows, .* row 1 "),
    "void.csv": ("a,b\n1,\n2,\n", "missing value in 2 of 2 rows"),
    "infinite.csv": ("a\n1\ninf\n", "missing value in 1 of 2 rows, the first is row 1"),
    "huge.csv": ("a\n1\n1e300\n", "finite in float32"),
    "twice.csv": ("a,a\n1,2\n", "twice: a"),
    "ragged.csv": ("a,b\n1,2\n3\n", "cannot be read"),
    "torn.npy": ("not an array", "NumPy cannot read"),
    "torn.npz": ("not an archive", "NumPy cannot read"),
    "torn.parquet": ("not a table", "cannot be read"),
    "table.xlsx": ("1", "must end in one of .npy, .npz, .csv, .parquet"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_bad_files_are_refused(tmp_path, name):
    text, message = BAD_TEXT[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name)


def test_truncated_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", X)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-5])
    with pytest.raises(InputError, match="NumPy cannot read"):
        read_table(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.float32(3), r"shape \(\)"),
        (np.array(["a", "b"]), "real numbers, got dtype <U1"),
        (np.array([1j, 2]), "real numbers, got dtype complex128"),
        (np.zeros((0, 3)), "0 rows of 3 columns"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "a.npy")


def test_object_arrays_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1, "x"], object), allow_pickle=True)
    with pytest.raises(InputError, match="without objects"):
        read_table(tmp_path / "a.npy")


def test_missing_file_and_unknown_column(tmp_path):
    with pytest.raises(InputError, match="`path` must be an existing file"):
        read_table(tmp_path / "none.csv")
    write_table(tmp_path / "a.csv", X, ("a", "b"))
    with pytest.raises(InputError, match="`columns` must be among a, b, got c"):
        read_table(tmp_path / "a.csv", ["a", "c"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_missing_extra_is_named(tmp_path, monkeypatch, suffix):
    write_table(tmp_path / f"a{suffix}", X)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'rbig-nnx\[data\]'"):
        read_table(tmp_path / f"a{suffix}")


def test_write_errors(tmp_path):
    with pytest.raises(InputError, match="`names` must name the 2 columns, got 1"):
        write_table(tmp_path / "a.csv", X, ("a",))
    with pytest.raises(InputError, match="existing folder"):
        write_table(tmp_path / "none" / "a.csv", X)
    with pytest.raises(InputError, match="must end in one of"):
        write_table(tmp_path / "a.txt", X)


def test_check_rows_passes_good_rows():
    checked = check_rows(X.astype(np.float64))
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, X)
    assert check_rows([1, 2, 3]).shape == (3, 1)
    assert check_rows(np.ones((1, 2)), num_features=2).shape == (1, 2)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X, {"num_features": 3}, "`x` must have the model's 3 columns, got 2"),
        (
            X[None],
            {},
            r"`x` must have rows and columns, \[n, d\], got shape \(1, 3, 2\)",
        ),
        (X[:1], {}, r"at least 2 rows and one column, got shape \(1, 2\)"),
        (X[:0], {"num_features": 2}, "at least 1 rows"),
        (
            np.array([[1, 2], [1, 3]]),
            {"name": "data"},
            "`data` must vary .* columns 0 ",
        ),
        (np.where(X == 1.5, np.nan, X), {}, "in 1 of 3 rows, the first is row 0 "),
        (X.astype(object), {}, "got dtype object"),
    ],
)
def test_check_rows_refuses(x, options, message):
    with pytest.raises(InputError, match=message):
        check_rows(x, **options)


def test_split_covers_every_row_once():
    parts = split_rows(1001, seed=3, fractions=(0.8, 0.1, 0.1))
    assert [len(part) for part in parts] == [801, 100, 100]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1001))
    again = split_rows(1001, seed=3, fractions=(0.8, 0.1, 0.1))
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part, same)
    assert not np.array_equal(
        parts[0], split_rows(1001, seed=4, fractions=(0.8, 0.1, 0.1))[0]
    )


def test_split_errors():
    with pytest.raises(InputError, match="must be positive and add to 1"):
        split_rows(10, seed=0, fractions=(0.8, 0.1))
    with pytest.raises(InputError, match=r"got 3 rows in parts of \[3, 0\]"):
        split_rows(3, seed=0, fractions=(0.9, 0.1))
