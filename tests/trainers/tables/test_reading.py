import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from trainers.tables import InputError, read_table

ROWS = np.random.default_rng(0).normal(size=(40, 2)) ** 3
TEXT = "".join(f"{a!r},{b!r}\n" for a, b in ROWS.tolist())


@pytest.mark.parametrize(
    "array",
    [
        np.float16(ROWS),
        ROWS.astype("g"),
        np.asfortranarray(ROWS),
        ROWS.astype(">f8"),
        ROWS > 0,
        np.uint8(ROWS > 0),
    ],
    ids=["half", "long", "Fortran", "big-endian", "bool", "bytes"],
)
def test_numbers_of_any_type_are_read_by_value(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    values = read_table(tmp_path / "a.npy").values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, array.astype(np.float32))


@pytest.mark.parametrize(
    "text",
    [TEXT, f"a,b\n{TEXT}", f"\ufeffa,b\n{TEXT}", TEXT.replace("\n", "\r\n")],
    ids=["no header", "header", "BOM", "CRLF"],
)
def test_a_text_is_read_by_value(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, newline="")
    np.testing.assert_array_equal(
        read_table(tmp_path / "a.csv").values, np.float32(ROWS)
    )


def test_decimals_and_dictionaries_are_numbers(tmp_path):
    whole = pa.array(range(40))
    exact = pa.array([decimal.Decimal(i) / 4 for i in range(40)], pa.decimal128(9, 2))
    table = pa.table({"a": exact, "b": whole.dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert found.names == ("a", "b")
    np.testing.assert_array_equal(found.values[:, 0], np.arange(40) / 4)
    np.testing.assert_array_equal(found.values[:, 1], np.arange(40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,\n2,3\n4,5\n", r"1 in b \(of 3 rows\)"),
        ("a,b\n1,x\n2,y\n", "real numbers"),
        ("a\n1700000000\n1700000007\n1700000011\n", "Subtract an offset"),
        ("a\n1e300\n1\n", "finite in float32"),
    ],
)
def test_what_float32_cannot_hold_is_named(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        read_table(tmp_path / "t.csv")
    assert "t.csv" in str(error.value)


def test_a_constant_that_float32_rounds_is_a_constant(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n0.1,1\n0.1,2\n")
    found = read_table(tmp_path / "t.csv").values[:, 0]
    np.testing.assert_array_equal(found, np.float32([0.1, 0.1]))


def test_options_are_those_of_read_frame(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\n1,5;2\n2,5;3\n")
    found = read_table(tmp_path / "t.csv", columns=["a"], sep=";", decimal=",")
    np.testing.assert_array_equal(found.values, [[1.5], [2.5]])
