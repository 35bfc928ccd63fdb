"""Texts that look like tables of numbers and are not quite."""

import re

import numpy as np
import pytest

from trainers.tables import InputError, frames_of, read_frame

pytest.importorskip("pyarrow")
ROWS = 1_200  # more than what is looked at first


def write(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def column(tmp_path, cells):
    """A file with these cells beside numbers."""
    lines = (f"{i}.5,{cell}\n" for i, cell in enumerate(cells))
    return write(tmp_path, "x,y\n" + "".join(lines))


@pytest.mark.parametrize("last", ["0x1F", "0X1f", "-0x1F"])
@pytest.mark.parametrize("early", [True, False])
def test_hexadecimal_numbers_are_words(tmp_path, last, early):
    cells = [str(i) for i in range(ROWS)]
    cells[3 if early else -3 :: 7] = [last] * len(cells[3 if early else -3 :: 7])
    frame = read_frame(column(tmp_path, cells))
    if early:
        assert frame["y"].values.tolist() == cells
    else:  # one word is a hole
        assert frame["y"].missing.sum() == 1
        assert any(f"'{last}'" in note for note in frame.notes)


@pytest.mark.parametrize("rows", [None, 500])
def test_leading_zeros_far_below_are_told(tmp_path, rows):
    cells = [f"{i:05d}" if i > ROWS - 5 else str(10_000 + i) for i in range(ROWS)]
    path = column(tmp_path, cells)
    if rows is None:
        (note,) = read_frame(path).notes
        assert note == (
            "leading zeros of y are not kept (--kinds y=categorical keeps them)"
        )
    else:
        notes = [part.notes for part in frames_of(path, rows=rows)]
        assert "leading zeros of y" in notes[-1][-1]


@pytest.mark.parametrize("end", [",\n", " , \n,\n", ",\r\n", ","])
def test_rows_of_empty_cells_at_the_end_are_left_out(tmp_path, end):
    path = write(tmp_path, "a,b\n1,2\n,\n3,\n" + end)
    frame = read_frame(path)
    assert frame["a"].missing.tolist() == [False, True, False]
    assert re.search(r"lines? of empty cells at the end left out", frame.notes[0])
    parts = list(frames_of(path, rows=2))
    assert [len(part) for part in parts] == [2, 1]


def test_the_end_may_be_longer_than_a_chunk(tmp_path):
    path = write(
        tmp_path, "a,b\n" + "1,2\n" * 9 + ",\n" * 2**20 + "3,4\n" + ",\n" * 2**20
    )
    frame = read_frame(path)
    assert len(frame) == 10 + 2**20
    assert "1,048,576 lines of empty cells" in frame.notes[-1]


SPLIT = {
    "two names": ("a,b", [f"{i},5,{i},25" for i in range(9)]),
    "some are whole": ("a,b", [f"{i},5,{i}" + ",25" * (i % 2) for i in range(9)]),
    "beside dates": ("day,price", [f"2020-01-0{i + 1},{i},5" for i in range(9)]),
}


@pytest.mark.parametrize("name", SPLIT)
def test_decimal_commas_between_commas_are_refused(tmp_path, name):
    header, rows = SPLIT[name]
    path = write(tmp_path, "\n".join([header, *rows]) + "\n")
    with pytest.raises(InputError, match=r"names 2 columns.*--sep ';' --decimal ,"):
        read_frame(path)


def test_names_of_rows_are_no_decimal_commas(tmp_path):
    frame = read_frame(write(tmp_path, "a,b\n1,5,2\n2,7,1\n3,6,4\n"))
    assert frame["a"].values.tolist() == [5, 7, 6]


FORMATS = {
    "JSON": '[{"a": 1, "b": 2},\n{"a": 3, "b": 4}]\n',
    "holds JSON": '{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n',
    "ARFF": "@relation r\n@attribute a numeric\n@data\n1,2\n3,4\n",
    "LIBSVM": "".join(f"{i % 2} 1:{i}.5 7:2\n" for i in range(9)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats_are_named(tmp_path, name):
    with pytest.raises(InputError, match=name):
        read_frame(write(tmp_path, FORMATS[name], "rows.txt"))


def test_a_zero_byte_is_named_with_its_line(tmp_path):
    path = write(tmp_path, "a,b\n" + "1,2\n" * 40_000 + "3,\0\n")
    with pytest.raises(InputError, match="zero byte in line 40,002"):
        read_frame(path)


LIKE_NUMBERS = {
    "below a limit": lambda i: f"<{i}" if i % 6 == 0 else f"{i}.5",
    "in brackets": lambda i: f"($ {i})" if i % 2 else f"$ {i}",
    "a unit with signs": lambda i: f"{i}.5 \N{MICRO SIGN}g/m\N{SUPERSCRIPT THREE}",
    "two signs": lambda i: f"{i}.5{'NS'[i % 2]}",
    "an error": lambda i: f"{i}.5\N{PLUS-MINUS SIGN}0.2",
    "a dash": lambda i: f"\N{EN DASH}{i}.5",
    "other groups": lambda i: f'"1,{i + 10},000"',
    "a fraction": lambda i: f"{i}/3",
    "hexadecimal": lambda i: f"0x{i:X}",
}


@pytest.mark.parametrize("name", LIKE_NUMBERS)
def test_words_that_look_like_numbers_are_told(tmp_path, name):
    frame = read_frame(column(tmp_path, map(LIKE_NUMBERS[name], range(30))))
    assert frame["y"].values.dtype == object
    assert "`y` looks like numbers, as " in frame.notes[-1]


@pytest.mark.parametrize("form", ["A{}", "1.2.{}", "10.0.0.{}", "Q{} x"])
def test_names_with_digits_are_not(tmp_path, form):
    assert not read_frame(column(tmp_path, map(form.format, range(30)))).notes


def test_times_of_which_some_have_a_zone_are_told(tmp_path):
    cells = [f"2020-01-{i + 1:02d}T0{i % 9}:30:00" + "Z" * (i % 2) for i in range(28)]
    frame = read_frame(column(tmp_path, cells))
    assert frame["y"].values.tolist() == cells
    assert "some with a time zone, as '2020-01-02T01:30:00Z'" in frame.notes[0]


def test_times_before_and_after_noon_are_told(tmp_path):
    frame = read_frame(column(tmp_path, [f"{i % 12 + 1}:30 PM" for i in range(30)]))
    assert "looks like times, as '1:30 PM'" in frame.notes[0]


def test_two_signs_before_a_number_make_none(tmp_path):
    frame = read_frame(column(tmp_path, [*map(str, range(60)), "+-26", "+7"]))
    assert frame["y"].missing.tolist() == [False] * 60 + [True, False]
    assert frame["y"].values[-1] == 7
    assert "'+-26' (1 of 62 cells) is no number" in frame.notes[0]


def test_integers_that_float64_rounds_are_told(tmp_path):
    frame = read_frame(column(tmp_path, [str(10**25 + i) for i in range(30)]))
    assert frame.notes == ("`y`: integers beyond 2^53 are rounded (--drop y)",)
    few = read_frame(column(tmp_path, [str(10**25 + i * 10**18) for i in range(30)]))
    assert not few.notes
    np.testing.assert_array_equal(
        few["y"].values, [float(10**25 + i * 10**18) for i in range(30)]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"x"1e400"y"\n"1","2"\n3,4\n', "separator behind every quote .* line 1"),
        ('"x.,"y"\n"1","2"\n3,4\n', "separator behind every quote .* line 1"),
        (
            'a,b\n1,2\n"3"4,5\n6,7\n',
            r"separator behind every quote .* line 3, '\"3\"4,5'",
        ),
        ("\N{COPYRIGHT SIGN}1,2\n3'\n4\n5\n", "--header .* line 1 has 2 cells, not 1"),
        ("1\n2x\n3,4\n5,6\n7.5,8\n", "--header .* line 1 has 1 cells, not 2"),
        ("a,b\n1.5NA2\n-3e2,4.25\n0.1,7\n", "2 cells in every line.* line 2 has 1"),
    ],
)
def test_a_damaged_line_near_the_top_is_no_report_and_no_units(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_frame(write(tmp_path, text))


@pytest.mark.parametrize(
    "cell", ["w", "1'", "19NA9", "\N{MICRO SIGN}", ";1", "1\x14-1"]
)
def test_a_damaged_cell_above_few_numbers_stays(tmp_path, cell):
    frame = read_frame(write(tmp_path, f"a\n{cell}\n2\n300\n"))
    assert frame["a"].values.tolist() == [cell, "2", "300"]


@pytest.mark.parametrize(
    ("cell", "units"), [("w", True), ("m/s", True), ("1'", False), ("+x", False)]
)
def test_units_of_one_column_need_rows_and_signs(tmp_path, cell, units):
    rows = [str(i) for i in range(9)]
    frame = read_frame(write(tmp_path, "\n".join(["a", cell, *rows])))
    assert len(frame) == 9 + (not units)
    assert any("holds units" in note for note in frame.notes) == units


def test_a_sign_of_comments_in_quotes_is_none(tmp_path):
    text = '"#","y"\n' + '"1","2"\n3,4\n' * 9
    frame = read_frame(write(tmp_path, text))
    assert frame.names == ("#", "y")
    assert len(frame) == 18


BESIDE = {
    "a hole": lambda i: "bad" if i == 30 else str(2**64 + 1 + 2 * i),
    "smaller ones": lambda i: str(2**64 + 1 + 2 * i if i % 2 else i),
    "negative ones": lambda i: str(2**64 - 1 - i if i % 2 else -i),
    "a fraction": lambda i: "1.5" if i == 30 else str(2**53 + 1 + 2 * i),
}


@pytest.mark.parametrize("name", BESIDE)
def test_rounded_integers_beside_other_cells_are_told(tmp_path, name):
    frame = read_frame(column(tmp_path, map(BESIDE[name], range(60))))
    assert frame["y"].values.dtype == np.float64
    assert "`y`: integers beyond 2^53 are rounded (--drop y)" in frame.notes


def test_how_numbers_beside_a_hole_are_read_is_told(tmp_path):
    cells = [f'"{i + 1},134,046"' for i in range(59)]
    frame = read_frame(column(tmp_path, [*cells, "bad"]))
    assert frame["y"].values[0] == 1_134_046
    assert "`y`: ',' groups the digits of numbers (--decimal)" in frame.notes
    frame = read_frame(
        column(tmp_path, [*[f"\N{MINUS SIGN}{i}.5" for i in range(59)], "b"])
    )
    assert frame["y"].values[1] == -1.5
    assert "`y`: '\N{MINUS SIGN}' is read as minus" in frame.notes


def test_groups_that_another_cell_contradicts_are_words(tmp_path):
    cells = [f"{i},5" if i % 2 else f"{i + 10}.557" for i in range(1, 60)]
    lines = [f"{cell};{i}" for i, cell in enumerate(cells)]
    text = "x;y\n" + "\n".join(lines)
    grouped = read_frame(write(tmp_path, text))
    assert grouped["x"].values[1] == 12_557
    assert "`x`: '.' groups the digits of numbers (--decimal)" in grouped.notes
    frame = read_frame(write(tmp_path, f"{text}\n-0.527;60"))
    assert frame["x"].values[1] == "12.557"
    assert any("`x` looks like numbers" in note for note in frame.notes)


@pytest.mark.parametrize(
    "last", [("13/02/2020", "02/13/2020"), ("02/13/2020", "13/02/2020")]
)
def test_as_many_cells_for_one_order_of_dates_as_for_the_other(tmp_path, last):
    cells = [f"{i % 12 + 1:02d}/{i % 7 + 1:02d}/2020" for i in range(58)]
    frame = read_frame(column(tmp_path, [*cells, *last]))
    assert frame["y"].values[0] == "01/01/2020"
    assert frame.notes[-1].startswith(
        "`y` holds dates as day/month/year or month/day/year,"
    )
    assert "dates as" in read_frame(column(tmp_path, [*cells, last[0]])).notes[-1]
