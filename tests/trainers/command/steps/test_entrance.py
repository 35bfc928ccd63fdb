import numpy as np
import pytest

from trainers.command.output import Printer
from trainers.command.settings import FitFile
from trainers.command.steps.entrance import (
    names_in,
    open_table,
    parsed_kinds,
)
from trainers.command.steps.holes import with_missing
from trainers.tables.checks import InputError
from trainers.tables.door import frame_of_columns
from trainers.tables.files.sources import find


def frame(**columns):
    return frame_of_columns(columns)


def opened(tmp_path, lines, *, quiet=False, **settings):
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(lines) + "\n")
    return open_table(find(file), FitFile(**settings), Printer(quiet=quiet))


def numbers(n=100):
    return [f"{a:.6f},{b:.6f}" for a, b in np.random.default_rng(0).normal(size=(n, 2))]


def test_names_and_kinds_may_hold_commas():
    table = ["a", "b", "a,b", "x=y"]
    assert names_in(["a,b"], table, "--given") == ["a,b"]
    assert names_in(["b,a", "x=y"], table, "--given") == ["b", "a", "x=y"]
    with pytest.raises(
        InputError, match="--given must name a column once; got a twice"
    ):
        names_in(["b,a", "a"], table, "--given")
    with pytest.raises(InputError, match=r"--given must name columns .*; got c"):
        names_in(["a,c"], table, "--given")
    with pytest.raises(InputError, match=r"; got cities\. Near: city\.$"):
        names_in(["cities"], ["city", "rent"], "--given")
    words = ["a=bounded(0, 1),b=positive", "a,b=skipped", "x=y=rounded(0.5)"]
    assert parsed_kinds(words, table) == {
        "a": "bounded(0, 1)",
        "b": "positive",
        "a,b": "skipped",
        "x=y": "rounded(0.5)",
    }
    with pytest.raises(InputError, match=r"--kinds must be pairs.*'a'"):
        parsed_kinds(["a"], table)


def test_values_that_stand_for_missing_ones():
    table = frame(a=np.array([1.5, -9999, 2]), b=np.array([-9999, 3, 4]))
    marked, notes, unmatched = with_missing(table, ["-9999", "none", "NA"])
    assert marked["a"].missing.tolist() == [False, True, False]
    assert marked["b"].missing.tolist() == [True, False, False]
    assert notes[0] == "a: 1 cells count as missing (--na -9999 none NA)"
    assert unmatched == {"none"}  # NA is missing anyway
    table = frame(d=np.array(["2024-01-31", "9999-12-31"], "datetime64[s]"))
    marked, _, unmatched = with_missing(table, ["9999-12-31"])
    assert marked["d"].missing.tolist() == [False, True]
    assert not unmatched


def test_a_value_of_na_that_no_cell_has_is_told(tmp_path, capsys):
    opened(tmp_path, ["a,b", *numbers()], na=("-9998",), quiet=True)
    assert capsys.readouterr().out == "--na -9998 matches no cell\n"


def test_rows_keep_their_numbers_of_the_file(tmp_path):
    lines = ["a,b", "1.5,", *numbers(), ",2.5", *numbers()]
    table = opened(tmp_path, lines, missing="drop-rows")
    assert table.numbers.tolist() == [*range(1, 101), *range(102, 202)]
    assert sorted(np.concatenate(list(table.parts.values()))) == list(range(200))
    whole = opened(tmp_path, ["a,b", *numbers()])
    assert whole.numbers.tolist() == list(range(100))


def test_quiet_tells_what_was_decided_about_the_rows_and_columns(tmp_path, capsys):
    rows = [x.replace(",", ";").replace(".", ",") for x in numbers()]
    lines = ["a;b;c", *(f"{row};7" for row in rows), "1,5;;7"]
    opened(tmp_path, lines, missing="drop-rows", quiet=True)
    assert capsys.readouterr().out.splitlines() == [
        "separator ';' (--sep)",
        "decimal comma (--decimal)",
        "1 of 101 rows have missing values and are left out: 1 in b (--missing drop-rows)",
        "skipped: c (always 7)",
    ]


def test_dates_as_whole_numbers_are_read_where_asked_for(tmp_path, capsys):
    days = np.datetime64("2019-12-01") + np.arange(100)
    lines = ["d,a", *(f"{str(d).replace('-', '')},{i % 7}" for i, d in enumerate(days))]
    assert opened(tmp_path, lines).schema.column("d").kind_name == "integer"
    assert "`d` looks like dates as 20200131" in capsys.readouterr().out
    table = opened(tmp_path, lines, kinds=("d=date",))
    assert table.schema.column("d").kind_name.startswith("date")
    assert table.schema.column("d").date_format == "%Y%m%d"
    with pytest.raises(
        InputError, match=r"asks for date; column 'a' holds 0, .*20240131"
    ):
        opened(tmp_path, lines, kinds=("a=date",))


def test_leading_zeros_of_categories_are_kept(tmp_path):
    lines = ["zip,a", *(f"00{9 + i % 3:03},{i % 7}" for i in range(99))]
    table = opened(tmp_path, lines, kinds=("zip=categorical",))
    assert set(table.schema.column("zip").kind.levels) == {"00009", "00010", "00011"}
    assert table.schema.column("zip").date_format == "words"  # for rows that are scored


def test_holes_are_refused_with_the_counts_and_the_ways_out(tmp_path):
    lines = ["a,b c", ",1.5", "2.5,x", "3.5,", *numbers()]
    words = (
        r"3 of 103 rows: 1 in a \(empty in line 2\), 2 in b c \('x' in line 3\)\."
        " Use --missing drop-rows, which leaves 100 rows"
    )
    with pytest.raises(InputError, match=words + ".*drop-columns, .* --drop a 'b c'"):
        opened(tmp_path, lines)


def test_rows_or_columns_with_holes_are_left_out_where_asked(tmp_path, capsys):
    lines = ["a,b", ",1.5", "2.5,", *numbers()]
    table = opened(tmp_path, lines, missing="drop-rows")
    assert len(table.frame) == 100
    said = capsys.readouterr().out
    assert "2 of 102 rows have missing values and are left out" in said
    lines = ["a,b", *(line.partition(",")[0] + "," for line in numbers()), *numbers()]
    table = opened(tmp_path, lines, missing="drop-columns")
    assert table.frame.names == ("a",)
    assert len(table.frame) == 200
    assert "100 in b" in capsys.readouterr().out
    every = ["a,b", *(f"{i}.5," if i % 2 else f",{i}.5" for i in range(50))]
    with pytest.raises(InputError, match="no row without missing values"):
        opened(tmp_path, every, missing="drop-rows")


def test_holes_in_a_column_that_is_skipped_do_not_matter(tmp_path, capsys):
    lines = ["a,b,note", *(f"{x},{f'text {i}' if i % 3 else ''}" for i, x in
             enumerate(numbers()))]  # fmt: skip
    table = opened(tmp_path, lines)
    assert [c.name for c in table.schema.kept] == ["a", "b"]
    assert len(table.frame) == 100
    row = next(x for x in capsys.readouterr().out.splitlines() if "note" in x)
    assert "free text" in row
    assert "34" in row  # missing


def test_the_kinds_tell_what_is_missing_in_the_rows_that_are_used(tmp_path, capsys):
    holed = (f"{x},text {i}" for i, x in enumerate([",1.5"] * 12))
    lines = ["a,b,note", *holed, *(f"{x}," for x in numbers())]
    table = opened(tmp_path, lines, missing="drop-rows")
    assert len(table.frame) == 100
    rows = [x for x in capsys.readouterr().out.splitlines() if x.startswith("│")]
    missing = {row.split("│")[1].strip(): row.split("│")[-2].strip() for row in rows}
    assert missing == {"a": "", "b": "", "note": "100"}


def test_a_split_of_few_rows_has_every_given_level_in_training(tmp_path):
    lines = ["y,q", *(f"{line[:8]},{'rare' if i == 7 else 'uv'[i % 2]}" for i, line in
             enumerate(numbers(20)))]  # fmt: skip
    for seed in range(10):
        table = opened(tmp_path, lines, given=("q",), seed=seed)
        assert [len(rows) for rows in table.parts.values()] == [16, 2, 2]
        together = np.sort(np.concatenate(list(table.parts.values())))
        np.testing.assert_array_equal(together, np.arange(20))
        _, context = table.part("train")
        assert set(context["q"].values) == {"rare", "u", "v"}
        assert np.ptp(table.encoded("train", seed=0).context, axis=0).min() > 0


def test_too_few_rows_and_nothing_to_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least 5 train, 1 valid, 2 test; got 7"):
        opened(tmp_path, ["a,b", *numbers(7)])
    assert len(opened(tmp_path, ["a,b", *numbers(8)]).frame) == 8
    with pytest.raises(InputError, match="--given must leave a column to model"):
        opened(tmp_path, ["a,b", *numbers()], given=("a,b",))
    constant = ["a,b", *(f"{line.partition(',')[0]},1" for line in numbers())]
    with pytest.raises(InputError, match="--given must name columns that vary"):
        opened(tmp_path, constant, given=("b",))


def test_parts_are_encoded_with_noise_of_their_own(tmp_path):
    lines = ["a", *(str(i % 2) for i in range(200))]
    table = opened(tmp_path, lines)
    parts = [table.encoded(name, seed=1).rows for name in table.parts]
    values = np.concatenate(parts)
    assert len(np.unique(values)) == 200
    again = table.encoded("valid", seed=1).rows
    np.testing.assert_array_equal(again, parts[1])


@pytest.mark.parametrize("value", ["23:59:00", "23:59", "2020-02-01"])
def test_dates_and_times_that_stand_for_missing_ones(value):
    kind = "datetime64[s]" if "-" in value else "timedelta64[s]"
    seconds = 86_340 if ":" in value else 1_580_515_200
    values = np.array([60, seconds, 120]).astype(kind)
    table, notes, unmatched = with_missing(frame(t=values), [value])
    assert table["t"].missing.tolist() == [False, True, False]
    assert "t: 1 cells count as missing" in notes[0]
    assert not unmatched
