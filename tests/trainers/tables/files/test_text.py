"""Texts of every kind, whole and by parts."""

import re

import numpy as np
import pytest

from tests.trainers.tables.files.texts import TEXTS
from trainers.tables import InputError, frames_of, read_frame

pytest.importorskip("pyarrow")


def values_of(column):
    """What a column holds, None where it holds nothing."""
    values = column.values
    if values.dtype.kind == "M":
        values = values.astype(str)
    elif values.dtype.kind == "m":
        values = values.astype("timedelta64[s]").astype(int)
    return [
        None if gone else value
        for value, gone in zip(values.tolist(), column.missing, strict=True)
    ]


def write(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", TEXTS)
def test_texts_as_they_are(tmp_path, name):
    case = TEXTS[name]
    frame = read_frame(write(tmp_path, case.text), **case.options)
    assert {c.name: values_of(c) for c in frame.columns} == case.columns
    for column, wanted in zip(frame.columns, case.columns.values(), strict=True):
        kinds = {type(v) for v in wanted if v is not None}
        if kinds <= {int, float, bool}:  # 1 is 1.0 and True to Python
            assert {type(v) for v in values_of(column) if v is not None} == kinds or (
                column.values.dtype.kind == "m"
            )
    if case.sources:
        assert tuple(c.source for c in frame.columns) == case.sources
    for note, pattern in zip(frame.notes, case.notes, strict=True):
        assert re.search(pattern, note), note
        assert note.isprintable()


@pytest.mark.parametrize("name", [n for n in TEXTS if "far below" not in n])
def test_parts_are_the_whole(tmp_path, name):
    case = TEXTS[name]
    path = write(tmp_path, case.text)
    whole = read_frame(path, **case.options)
    parts = list(frames_of(path, rows=len(whole), **case.options))
    assert [len(part) for part in parts] == [len(whole)]
    assert parts[0].names == whole.names
    assert parts[0].notes == whole.notes
    for a, b in zip(parts[0].columns, whole.columns, strict=True):
        assert (a.source, values_of(a)) == (b.source, values_of(b))
    limited = read_frame(path, limit=1, **case.options)
    assert [values_of(c)[0] is None for c in limited.columns] == [
        values_of(c)[0] is None for c in whole.columns
    ]


BAD = {
    "empty": ("", "a file with rows, got .*rows.csv' of 0 bytes"),
    "header alone": ("a,b\n", "got .* with 0 rows of 2 columns"),
    "one line without an end": (
        "a,b",
        "must hold rows; it has no line below its header",
    ),
    "blank lines": ("\n\n \n", "only blank lines and comments"),
    "comments alone": ("a,b\n# x\n", "with 0 rows of 2 columns"),
    "a short line": (
        "a,b\n1,2\n3\n5,6\n",
        "2 cells in every line.* line 3 has 1: '3'.*--sep",
    ),
    "a long line": ("a,b\n1,2\n3,4\n5,6,7\n", "line 4 has 3: '5,6,7'"),
    "no text": (b"a,b\n1,\0\0\n", "must be text; it holds zero bytes"),
    "markup": ("<!DOCTYPE html>\n<p>", "a page of markup"),
    "an archive": (
        b"PK\x03\x04 ...",
        "zip archive or an Excel file. Save its table as",
    ),
    "torn gzip": (b"\x1f\x8b\x08\0 ...", "no whole gzip file"),
    "torn zstd": (b"\x28\xb5\x2f\xfd\xff\xff", "no whole zstd file"),
    "an open quote": (
        'x,city\n9.5,Bern\n9.5,"Bern\n9.5,Bern\n',
        r"""close every quote "; that of line 3, '9\.5,"Bern', does not.*none follows""",
    ),
    "an open quote above others": (
        'x,city\n9.5,"Bern\n9.5,"a ""b"""\n9.5,Bern\n',
        "that of line 2, .*the next is in line 3",
    ),
    "a name of two lines": ('"a\nb",c\n1,2\n3\n', "2 cells in every line"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused_in_a_line(tmp_path, name):
    text, message = BAD[name]
    path = write(tmp_path, text)
    for read in (read_frame, lambda p: list(frames_of(p))):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert str(caught.value).isprintable()
        assert "rows.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sep": ",", "decimal": ","},
            "--sep and --decimal must differ; got ',' twice",
        ),
        ({"sep": "ab"}, "--sep must be one character, tab or space, got 'ab'"),
        ({"decimal": "x"}, "--decimal must be '.' or ',', got 'x'"),
        ({"header": "x"}, "--header must be none, or the number of the line"),
        ({"header": 0}, "the line, counted from 1, that names the columns, got '0'"),
        ({"header": 9}, "--header must name a line with words, got line 9"),
        (
            {"encoding": "utf-9"},
            "--encoding must be one of text that Python knows, .* 'utf-9'",
        ),
        ({"encoding": "rot13"}, "--encoding must be one of text .* 'rot13'"),
        ({"encoding": "zip"}, "--encoding must be one of text .* 'zip'"),
        ({"encoding": "utf-16"}, "not in the --encoding utf-16"),
        (
            {"columns": ["prise"]},
            "--columns must be .* price, b; got prise. Near: price",
        ),
        ({"drop": ["c"]}, "--drop must be among the columns of .*rows.csv'"),
        ({"drop": ["price", "b"]}, "keep at least one column, got --drop price, b"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    path = write(tmp_path, "price,b\n1,2\n3,4\n")
    with pytest.raises(InputError, match=message):
        read_frame(path, **options)


def test_columns_are_chosen_by_name(tmp_path):
    path = write(tmp_path, 'a,b,"c,d"\n1,2,3\n4,5,6\n')
    assert read_frame(path, columns=["c,d", "a"]).names == ("c,d", "a")
    assert read_frame(path, columns="b,a").names == ("b", "a")
    assert read_frame(path, drop="b").names == ("a", "c,d")
    assert read_frame(path, columns=["a", "b"], drop=["b"]).names == ("a",)
    for option in ("columns", "drop"):
        with pytest.raises(
            InputError, match=f"--{option} must name a column once; got a"
        ):
            read_frame(path, **{option: ["a", "b,a"]})


def test_types_may_widen_from_part_to_part(tmp_path):
    path = write(
        tmp_path, "a,b,c\n1,2024-01-01,\n2,2024-01-02,\n3.5,2024-01-03 10:00,x\n"
    )
    first, second = frames_of(path, rows=2)
    assert [c.source[:8] for c in first.columns] == ["Int64", "Date", "Float64"]
    assert [c.source[:8] for c in second.columns] == ["Float64", "Datetime", "String"]
    assert [values_of(c) for c in second.columns] == [
        [3.5],
        ["2024-01-03T10:00:00"],
        ["x"],
    ]


def test_words_below_numbers_are_refused_by_parts(tmp_path):
    path = write(tmp_path, "a,b\n1,2\n3,4\nx,5\n")
    parts = frames_of(path, rows=2)
    assert len(next(parts)) == 2
    with pytest.raises(
        InputError, match=r"column a: integer .*'x' after row 2.*--drop a"
    ):
        next(parts)


def test_a_few_words_below_numbers_are_holes_by_parts(tmp_path):
    rows = "".join(f"{i / 4},1\n" for i in range(100))
    path = write(tmp_path, "a,b\n" + rows + "0.5,1\n" * 50 + "n.d.,1\n")
    first, second = frames_of(path, rows=100)
    assert not first.notes
    assert second["a"].missing.sum() == 1
    assert re.search(r"`a`: 'n\.d\.' \(1 of 51 cells\)", second.notes[0])


def test_a_late_surprise_is_read_again(tmp_path):
    """Beyond the first megabyte, whose types pyarrow would keep."""
    rows = "1,000000000000000000000000002\n" * 50_000
    frame = read_frame(write(tmp_path, "a,b\n" + rows + "0.5,x\n3,y\n"))
    assert frame["a"].source == "Float64"
    assert frame["b"].source == "String"  # two levels are no number and a hole
    assert values_of(frame["b"])[-2:] == ["x", "y"]


def test_rows_longer_than_a_block(tmp_path):
    long = "word " * 300_000
    frame = read_frame(write(tmp_path, f"a,b\n{long},2\n{long},4\n"))
    assert values_of(frame["b"]) == [2, 4]
    assert frame["a"].values[0] == long.strip()


def test_many_columns(tmp_path):
    names = [f"column{j}" for j in range(3_000)]
    row = ",".join(["1.25"] * 3_000)
    frame = read_frame(write(tmp_path, "\n".join([",".join(names), row, row])))
    assert frame.names == tuple(names)
    assert values_of(frame["column2999"]) == [1.25, 1.25]


@pytest.mark.parametrize("seed", range(60))
def test_what_pandas_writes_is_read_as_pandas_reads_it(tmp_path, seed):
    pd = pytest.importorskip("pandas")
    random = np.random.default_rng(seed)
    n = int(random.choice([3, 20, 500]))
    makers = {
        "int": lambda: random.integers(-50, 50, n),
        "large": lambda: random.integers(-(2**62), 2**62, n),
        "float": lambda: random.normal(size=n) * 10.0 ** random.integers(-99, 99, n),
        "rounded": lambda: random.normal(size=n).round(1),
        "holes": lambda: np.where(
            random.random(n) < 0.2, np.nan, random.normal(size=n)
        ),
        "words": lambda: random.choice(["red", "light blue", "x,y", 'a "b"', "ä;|"], n),
        "truth": lambda: random.random(n) < 0.5,
        "days": lambda: np.datetime64("2020-01-01") + random.integers(0, 999, n),
    }
    kinds = random.choice(list(makers), int(random.integers(2, 7)))
    table = pd.DataFrame({f"{k}{j}": makers[k]() for j, k in enumerate(kinds)})
    sep = str(random.choice([",", ";", "\t", "|"]))
    options = {
        "sep": sep,
        "decimal": "," if sep != "," and random.random() < 0.5 else ".",
        "encoding": str(random.choice(["utf-8", "utf-8-sig", "cp1252"])),
    }
    index, header = random.random() < 0.3, random.random() < 0.8
    path = tmp_path / f"rows.csv{random.choice(['', '.gz', '.zst'])}"
    table.to_csv(
        path,
        index=index,
        header=header,
        na_rep=str(random.choice(["", "NA", "null"])),
        lineterminator=str(random.choice(["\n", "\r\n"])),
        **options,
    )
    # To the last bit, which pandas does by itself since version 3.
    exactly = {} if pd.__version__ >= "3" else {"float_precision": "round_trip"}
    wanted = pd.read_csv(
        path,
        header=0 if header else None,
        index_col=0 if index else None,
        **options,
        **exactly,
    )
    frame = read_frame(path)
    columns = frame.columns[index and not header :]
    if header:
        assert frame.names == tuple(table.columns)
    for column, (_, series) in zip(columns, wanted.items(), strict=True):
        missing = series.isna().to_numpy()
        np.testing.assert_array_equal(column.missing, missing)
        values, other = column.values[~missing], series.to_numpy()[~missing]
        if values.dtype.kind == "M":
            other = other.astype("datetime64[D]")
        np.testing.assert_array_equal(values, other)
        assert (
            values.dtype == other.dtype
            or values.dtype.kind in "OM"
            or (series.isna().any() and values.dtype.kind in "iuf")
        )


@pytest.mark.parametrize("sep", [", ", ";\t"])
def test_blanks_before_a_quote_are_no_part_of_a_cell(tmp_path, sep):
    cells = ['"a"', '"b"'], *([f'"{i}.5"', f'"x{sep}""{i % 2}"'] for i in range(20))
    path = tmp_path / "loose.csv"
    path.write_text("\n".join(map(sep.join, cells)))
    frame = read_frame(path)
    assert frame["a"].values.tolist() == [i + 0.5 for i in range(20)]
    assert frame["b"].values[:2].tolist() == [f'x{sep}"0', f'x{sep}"1']


def test_a_minus_behind_numbers_is_told(tmp_path):
    path = tmp_path / "minus.csv"
    path.write_text("a\n" + "\n".join(f"{i}.5" + "-" * (i % 2) for i in range(20)))
    assert read_frame(path).notes[-1] == (
        "`a` looks like numbers, as '1.5-', and is left as words: write - before negative"
        " ones"
    )


def test_options_that_say_nothing_of_a_file_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3,5\n")
    with pytest.raises(InputError, match=r"--array is for \.npz files; got .*rows"):
        read_frame(path, array="x")
    np.save(tmp_path / "rows.npy", np.eye(3))
    with pytest.raises(InputError, match="--header is for tables in text"):
        read_frame(tmp_path / "rows.npy", header=1)
