"""Dates in text: read once, and then read and written in the same format."""

import numpy as np
import pytest

from trainers.tables import InputError, frames_of, read_frame, write_frame
from trainers.tables.files.texts import cells
from trainers.tables.kinds.finding import declared
from trainers.tables.schema import Schema

pytest.importorskip("pyarrow")

FORMATS = {
    "%-m/%-d/%Y": ("11/9/1995", "11/13/1995"),
    "%m/%d/%Y": ("11/09/1995", "11/13/1995"),
    "%d.%m.%Y %-H:%M": ("31.01.2024 9:15", "01.02.2024 10:20"),
    "%-m/%-d/%Y %-I:%M %p": ("1/31/2024 9:15 PM", "2/1/2024 12:05 AM"),
    "%-H:%M:%S %e %b %Y": ("11:37:15  3 Sep 2020", "11:37:14 13 Sep 2020"),
    "%-d-%b-%y": ("3-Sep-20", "13-Oct-20"),
    "%Y-%-m-%-d": ("2024-1-31", "2024-12-1"),
    "%Y-%m-%dT%H:%M": ("2024-01-31T10:00", "2024-02-01T11:30"),
    "%Y-%m-%dT%H:%M:%SZ": ("2024-01-31T10:00:00Z", "2024-02-01T11:30:30Z"),
    "%Y-%m-%dT%H:%M:%S+01:00": (
        "2024-03-01T05:25:00+01:00",
        "2024-03-01T00:25:30+01:00",
    ),
    "%Y-%m-%d %H:%M-0330": ("2024-03-01 05:25-0330", "2024-03-01 23:25-0330"),
    "": ("2024-01-31", "2024-02-01"),
}


def write(tmp_path, *dates, name="rows.csv"):
    path = tmp_path / name
    path.write_text(
        "\n".join(["d,b", *(f"{d},{i}" for i, d in enumerate(dates))]) + "\n"
    )
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_dates_are_written_as_they_were_read(tmp_path, form):
    path, out = write(tmp_path, *FORMATS[form]), tmp_path / "out.csv"
    frame = read_frame(path)
    assert {cells.kind(cell) for cell in FORMATS[form]} == {"instant"}  # and no name
    assert frame["d"].values.dtype.kind == "M"
    assert frame["d"].date_format == form
    write_frame(out, frame.take([1, 0]))
    found = [line.split(",")[0].strip('"') for line in out.read_text().splitlines()]
    assert found == ["d", *FORMATS[form][::-1]]


@pytest.mark.parametrize(
    "words",
    [
        ("11:51", "02:24"),
        ("9:30", "10:45"),
        ("9:30:10", "10:45:00"),
        ("09:30:00", "10:45:00"),
        ("True", "False"),
        ("TRUE", "FALSE"),
        ("true", "false"),
    ],
)
def test_clocks_and_truth_are_written_as_they_were_read(tmp_path, words):
    path, out = write(tmp_path, *words), tmp_path / "out.csv"
    frame = read_frame(path)
    assert frame["d"].values.dtype.kind in "mb"
    write_frame(out, frame)
    found = [line.split(",")[0].strip('"') for line in out.read_text().splitlines()]
    assert found == ["d", *words]
    again = read_frame(path, date_formats={"d": frame["d"].date_format})
    np.testing.assert_array_equal(again["d"].values, frame["d"].values)


def test_instants_of_several_offsets_are_told(tmp_path):
    path = write(tmp_path, "2024-03-01T05:25:00+01:00", "2024-04-01T05:25:00+02:00")
    frame = read_frame(path)
    assert frame["d"].date_format == "%Y-%m-%dT%H:%M:%SZ"
    assert "`d`: offsets +01:00, +02:00 are read, and written, as UTC" in frame.notes


def test_whole_numbers_are_dates_where_that_is_known(tmp_path):
    path, out = write(tmp_path, "20200229", "20191231"), tmp_path / "out.csv"
    frame = read_frame(path)
    assert frame["d"].source == "Int64"
    assert any("`d` looks like dates as 20200131" in note for note in frame.notes)
    known = {"d": "%Y%m%d"}
    for frame in (
        read_frame(path, date_formats=known),
        *frames_of(path, date_formats=known),
    ):
        assert frame["d"].values.astype(str).tolist() == ["2020-02-29", "2019-12-31"]
    write_frame(out, frame)
    assert out.read_text().splitlines()[1] == '"20200229",0'
    for other in ("1583020800", "20200230", "2020111"):
        path = write(tmp_path, other, other)
        assert read_frame(path, date_formats=known)["d"].source == "Int64"


def test_a_known_format_is_not_guessed_again(tmp_path):
    """Alone, 11/9 may be a day of September."""
    path = write(tmp_path, "11/9/1995")
    assert read_frame(path)["d"].source == "String"
    for form in ("%m/%d/%Y", "%-m/%-d/%Y"):
        known = {"d": form}
        for frame in (
            read_frame(path, date_formats=known),
            *frames_of(path, date_formats=known),
        ):
            assert frame["d"].values.astype(str).tolist() == ["1995-11-09"]
            assert frame["d"].date_format == form
    other = read_frame(write(tmp_path, "13/9/1995"), date_formats=known)
    assert other["d"].source == "String"
    assert other.notes == (
        "`d`: '13/9/1995' is no date as month/day/year, as in the fit",
    )
    iso = read_frame(write(tmp_path, "1995-11-09"), date_formats=known)
    assert iso["d"].source == "Date"


def test_a_format_is_kept_from_part_to_part(tmp_path):
    path = write(tmp_path, "1/31/2024", "2/1/2024", "13/2/2024")
    parts = frames_of(path, rows=1)
    assert next(parts)["d"].date_format == "%-m/%-d/%Y"
    assert next(parts)["d"].values.astype(str).tolist() == ["2024-02-01"]
    with pytest.raises(InputError, match=r"column d: date .*'13/2/2024' after row 2"):
        next(parts)


def test_a_schema_keeps_the_format_and_old_ones_load_without(tmp_path):
    days = np.datetime64("1995-11-09") + np.arange(100)
    rows = [f"{d.month}/{d.day}/{d.year}" for d in days.tolist()]
    schema = Schema.of(read_frame(write(tmp_path, *rows)))
    config = schema.to_config()
    again = Schema.from_config(config)
    one = write(tmp_path, "11/9/1995", name="one.csv")
    assert len(again.encode(one).rows) == 1
    drawn = again.decode_frame(again.encode(one).rows)
    write_frame(tmp_path / "drawn.csv", drawn)
    assert read_frame(tmp_path / "drawn.csv", date_formats={"d": "%m/%d/%Y"}).names
    assert '"11/9/1995"' in (tmp_path / "drawn.csv").read_text()
    for column in config["columns"]:
        del column["date_format"]
    assert Schema.from_config(config).column("d").date_format == ""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("date", r"asks for date; column 'd' holds words, as '1/2/2024'. .*2024-01-31"),
        ("positive", r"needs numbers; column 'd' holds words, as '1/2/2024'"),
    ],
)
def test_words_where_a_date_or_a_number_was_asked_for(kind, message):
    words = np.array(["1/2/2024", "3/4/2024"], object)
    with pytest.raises(InputError, match=message):
        declared(words, kind, where="column 'd'")


def test_the_cell_that_is_no_date_is_blamed():
    words = np.array(["1/2/2024", "soon", "3/4/2024"] * 9, object)
    with pytest.raises(InputError, match="holds 'soon', which is no date"):
        declared(words, "date", where="column 'd'")


DAYS = (np.datetime64("2020-01-31") + np.arange(300)).tolist()
BAD = ("31.02.2020", "2020-02-30", "unknown", "2020/05/07", "0000-00-00")


def with_bad(form, *bad):
    cells = [day.strftime(form) for day in DAYS]
    return [*cells[:150], *bad, *cells[150:]]


@pytest.mark.parametrize(
    ("form", "bad", "kind"),
    [
        *(("%Y-%m-%d", (bad,), "Date") for bad in BAD),
        ("%Y-%m-%d", ("0000-00-00",) * 15, "Date"),
        ("%Y-%m-%dT10:00:00Z", ("2020-02-30T10:00:00Z", "later"), "Datetime"),
        ("%d/%m/%Y", ("30/2/2020",), "Date"),
        ("%m/%d/%Y", ("13/13/2020",), "Date"),
        ("%d.%m.%y", ("unknown",), "Date"),
    ],
)
def test_few_cells_among_dates_that_are_none_are_missing(tmp_path, form, bad, kind):
    path = write(tmp_path, *with_bad(form, *bad))
    frame = read_frame(path)
    assert frame["d"].source.startswith(kind)
    assert frame["d"].missing.sum() == len(bad)
    told = ", ".join(f"'{cell}'" for cell in dict.fromkeys(bad))
    count = f"({len(bad)} of {300 + len(bad)} cells)"
    note = next(n for n in frame.notes if "missing" in n)
    assert note.startswith(f"`d`: {told} {count} is no date and counts as missing")
    assert "--drop d leaves" in note
    known = {"d": Schema.of(frame, whole=False).column("d").known_format}
    parts = frames_of(path, rows=160, date_formats=known)
    assert sum(part["d"].missing.sum() for part in parts) == len(bad)


def test_clocks_with_a_bad_cell_and_names_of_hours(tmp_path):
    clocks = [f"{i // 12:02}:{i % 12 * 5:02}" for i in range(288)]
    frame = read_frame(write(tmp_path, *clocks, "25:00"))
    assert frame["d"].missing.sum() == 1
    assert any("'25:00' (1 of 289 cells) is no time" in n for n in frame.notes)
    hours = read_frame(write(tmp_path, *[*clocks[::24]] * 9, "closed"))
    assert hours["d"].source == "String"


@pytest.mark.parametrize("known", ["%m/%d/%Y", "%Y-%m-%d"])
def test_one_bad_date_among_twenty_rows_of_a_known_column(tmp_path, known):
    cells = [day.strftime(known) for day in DAYS[:10]] * 2
    path = write(tmp_path, *cells[:19], "33/33/2020")
    frame = read_frame(path, date_formats={"d": known})
    assert frame["d"].source == "Date"
    assert frame["d"].missing.sum() == 1


@pytest.mark.parametrize("sep", ["/", "-", "."])
def test_years_of_two_digits_in_front(tmp_path, sep):
    form = sep.join(("%y", "%m", "%d"))
    both = read_frame(write(tmp_path, *with_bad(form)))
    assert both["d"].source == "String"
    words = sep.join(("day", "month", "year")), sep.join(("year", "month", "day"))
    assert any(
        f"`d` holds dates as {' or '.join(words)}, and is left as words" in note
        for note in both.notes
    )
    old = [f"{99 if i % 2 else 98}{sep}{d:%m{sep}%d}" for i, d in enumerate(DAYS[:99])]
    read = read_frame(write(tmp_path, *old))["d"]
    assert read.date_format == form
    assert read.values[1].astype(str) == "1999-02-01"
    turned = sep.join(("%d", "%m", "%y"))
    assert read_frame(write(tmp_path, *with_bad(turned)))["d"].date_format == turned


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("Fri, {:%d %b %Y} 23:30:15 +0000", "dates"),
        ("Fri {:%b %d} 23:30:15 {:%Y}", "dates"),
        ("{} 23:30:15 UTC", "dates"),
        ("{} 23:30:15 CET", "dates"),
        ("{} 23:30:15,000", "dates"),
        ("{}t23:30:15z", "dates"),
        ("{:%Y-%j}", "dates"),
        ("{:%d}. Januar {:%Y}", "dates"),
        ("{:%d}. März {:%Y}", "dates"),
        ("{:%j}:15:00", "times"),
    ],
)
def test_words_that_look_like_dates_are_told(tmp_path, cell, what):
    words = [cell.format(day, day).replace(",", ";") for day in DAYS]
    path = tmp_path / "rows.tsv"
    path.write_text("d\tb\n" + "".join(f"{c.replace(';', ',')}\t1\n" for c in words))
    frame = read_frame(path)
    assert frame["d"].source == "String"
    assert any(f"`d` looks like {what}, as '" in note for note in frame.notes)


@pytest.mark.parametrize("numbers", [20_200_101, 1_700_000_000, 0.5])
def test_numbers_are_no_dates(numbers):
    x = {"d": numbers + np.arange(50)}
    with pytest.raises(InputError, match=f"asks for date; column 'd' holds {numbers}"):
        Schema.of(x, {"d": "date"})
