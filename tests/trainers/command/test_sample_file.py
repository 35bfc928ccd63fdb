import dataclasses

import numpy as np
import pandas
import pytest

from tests.trainers.command.conftest import QUICK, command
from trainers.command import sample_file
from trainers.command.steps.runs import Run
from trainers.tables.checks import InputError
from trainers.tables.reading import read_frame
from trainers.tables.schema import Schema
from trainers.tables.writing import PartWriter


def drawn(run, path, *options):
    ended = command("sample", run, path, *options)
    assert ended.code == 0, ended.err
    return read_frame(path)


def test_rows_come_as_those_of_the_fit(mixed, tmp_path):
    frame = drawn(mixed.run, tmp_path / "drawn.csv", "-n", 200)
    seen = read_frame(mixed.file)
    assert frame.names == seen.names
    assert set(frame["color"].values) == {"red", "green", "blue"}
    assert frame["count"].values.dtype.kind == "i"
    for name in ("count", "day"):
        assert frame[name].values.min() >= seen[name].values.min()
        assert frame[name].values.max() <= seen[name].values.max()
    assert (frame["price"].values > 0).all()
    assert len(frame) == 200


def test_a_time_of_the_day_is_given_as_the_file_has_it():
    times = np.array([20_700, 35_700, 38_760], "timedelta64[s]")
    schema = Schema.of({"t": times, "z": np.arange(3.0)}).columns[0]
    assert sample_file._value(schema, "5:45").values[0] == times[0]
    with pytest.raises(InputError, match="must give a time for t; got 'noon'"):
        sample_file._value(schema, "noon")


HOURS = pandas.date_range("2024-01-01", periods=60, freq="h")
GIVEN = pandas.DataFrame(
    {
        "t": HOURS.tz_localize("Europe/Berlin"),
        "u": HOURS,
        "n": np.arange(60, dtype=np.int16) % 7,
        "z": np.random.default_rng(0).normal(size=60),
    }
)


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("t=2024-01-03T02:00:00+02:00", ("2024-01-03T01:00+01:00", 0, 1, 0.5)),
        ("t=2024-01-03 00:00Z", ("2024-01-03T01:00+01:00", 0, 1, 0.5)),
        ("u=2024-01-03", (0, "2024-01-03", 1, 0.5)),
        ("u=2024-01-03T00:00:00.25", (0, "2024-01-03T00:00:00.25", 1, 0.5)),
        ("n=3.5", (0, 0, 3.5, 0.5)),
        ("n=70000", (0, 0, 70000.0, 0.5)),
        ("z=-1e-3", (0, 0, 1, -0.001)),
    ],
)
def test_a_word_is_what_it_is_in_a_table(words, row, tmp_path):
    given = Schema.of(GIVEN, given=True)
    names = [c.name for c in given.kept]
    usual = {
        "t": "t=2024-01-01 00:00+01:00", "u": "u=2024-01-01", "n": "n=1", "z": "z=0.5"
    }  # fmt: skip
    words = ",".join((usual | {words[0]: words})[name] for name in names)
    frame = sample_file._parsed(words, given)
    times = [pandas.Timestamp(w) if w else HOURS[0] for w in row[:2]]
    times[0] = times[0] if row[0] else times[0].tz_localize("Europe/Berlin")
    table = pandas.DataFrame([[*times, *row[2:]]], columns=list("tunz"))
    table["t"] = table["t"].dt.tz_convert("Europe/Berlin")
    np.testing.assert_array_equal(given.context(frame), given.context(table))
    with PartWriter(tmp_path / "given.csv") as writer:
        writer.write(frame)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("t=2024-01-03T00:00,u=2024-01-03,n=1,z=1", "'t' must hold times with a time"),
        ("t=2024-01-03,u=2024-01-03,n=1,z=1", "'t' must hold times with a time zone"),
        (
            "t=2024-01-03 00:00Z,u=2024-01-03 00:00Z,n=1,z=1",
            "'u' must hold times without",
        ),
        ("n=1_0", "must give a number for n; got '1_0'"),
        ("z=nan", "must give a number for z; got 'nan'"),
        ("u=soon", "must give a date for u; got 'soon'"),
    ],
)
def test_a_word_that_is_none_is_refused(words, message):
    given = Schema.of(GIVEN, given=True)
    with pytest.raises(InputError, match=message):
        given.context(sample_file._parsed(words, given))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows_whatever_the_parts(
    bare, tmp_path, monkeypatch
):
    first = drawn(bare.run, tmp_path / "a.npy", "-n", 3_000, "--seed", 4)
    other = drawn(bare.run, tmp_path / "b.npy", "-n", 3_000)
    monkeypatch.setattr(sample_file, "_ROWS", 1_024)
    again = drawn(bare.run, tmp_path / "c.npy", "-n", 3_000, "--seed", 4)
    np.testing.assert_array_equal(first["x0"].values, again["x0"].values)
    assert not np.array_equal(first["x0"].values, other["x0"].values)
    assert first.names == ("x0", "x1")


def test_a_conditional_density_needs_what_is_given(conditional, tmp_path):
    out = tmp_path / "drawn.csv"
    refused = command("sample", conditional.run, out)
    assert refused.code == 2
    assert "--given-values (setting given_values) must give color" in refused.err
    frame = drawn(conditional.run, out, "-n", 20, "--given-values", "color=red")
    assert frame.names == ("price", "color", "count", "day")
    assert set(frame["color"].values) == {"red"}
    contexts = tmp_path / "contexts.csv"
    contexts.write_text("color\n" + "blue\ngreen\n" * 10)
    frame = drawn(conditional.run, out, "--given-values", contexts)
    assert frame["color"].values.tolist() == ["blue", "green"] * 10
    scored = command("score", conditional.run, out)
    assert "over 20 rows" in scored.out


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("color=violet", "got 'violet' in color"),
        ("hue=red", "--given-values (setting given_values) must name color"),
        (
            "color=red,color=blue",
            "--given-values (setting given_values) must name a column once; got color",
        ),
        ("nowhere.csv", "existing file"),
    ],
)
def test_what_is_given_is_checked(conditional, tmp_path, values, words):
    out = tmp_path / "drawn.csv"
    ended = command("sample", conditional.run, out, "--given-values", values)
    assert ended.code == 2
    assert words in ended.err
    assert not out.exists()


def test_what_counted_as_missing_in_the_fit_is_not_given(
    conditional, tmp_path, monkeypatch
):
    file, out = tmp_path / "given.csv", tmp_path / "drawn.csv"
    file.write_text("color\nblue\nred\n")
    opened = dataclasses.replace(Run.open(conditional.run), na=("red",))
    monkeypatch.setattr(Run, "open", lambda _: opened)
    for values in ("color=red", file):
        ended = command("sample", conditional.run, out, "--given-values", values)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "missing" in ended.err
        assert not out.exists()


def test_mistakes_are_found_before_any_work(mixed, tmp_path):
    cases = [
        (("x.xlsx",), "must end in one of"),
        (
            ("x.csv", "-n", 0),
            "--num-rows (setting num_rows) must be 1 or more; got 0",
        ),
        (("x.csv", "-n", 10**15), "(setting num_rows) must fit on the disk of"),
        (("x.csv", "--given-values", "a=1"), "the fit was without --given"),
    ]
    for (name, *options), words in cases:
        ended = command("sample", mixed.run, tmp_path / name, *options)
        assert ended.code == 2
        assert words in ended.err


def test_the_fitted_file_is_never_written_over(mixed):
    before = mixed.file.read_bytes()
    ended = command("sample", mixed.run, mixed.file, "-n", 2)
    assert ended.code == 2
    assert "must be another file than the one that was fitted" in ended.err
    assert mixed.file.read_bytes() == before


@pytest.mark.slow
def test_columns_that_are_no_part_of_the_model_are_named(tmp_path):
    file, run = tmp_path / "names.csv", tmp_path / "run"
    numbers = np.random.default_rng(0).normal(size=(60, 2))
    rows = (f"row {i},{a},{b}" for i, (a, b) in enumerate(numbers))
    file.write_text("\n".join(["name,a,b", *rows]) + "\n")
    assert command("fit", file, "--workdir", run, *QUICK).code == 0
    ended = command("sample", run, tmp_path / "drawn.csv", "-n", 5)
    assert "left out, since the model does not hold them: name" in ended.out
