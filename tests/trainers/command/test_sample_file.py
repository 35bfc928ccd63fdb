import numpy as np
import pytest

from tests.trainers.command.conftest import QUICK, command
from trainers.command import sample_file
from trainers.tables.checks import InputError
from trainers.tables.columns import start
from trainers.tables.door import of_array
from trainers.tables.reading import read_frame


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
    schema, _ = start(of_array(times, "t", where="t"))
    assert sample_file._value(schema, "5:45").values[0] == times[0]
    with pytest.raises(InputError, match="must give a time for t; got 'noon'"):
        sample_file._value(schema, "noon")


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
