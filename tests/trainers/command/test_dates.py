"""Dates as the fitted file has them, in scores, samples and given values."""

import numpy as np
import pytest

from tests.trainers.command.conftest import QUICK, Fitted, command

DAYS = np.datetime64("1995-11-09") + 3 * np.random.default_rng(0).integers(0, 200, 300)


def told(day):
    return f"{day.month}/{day.day}/{day.year}"


@pytest.fixture(scope="module")
def polls(tmp_path_factory) -> Fitted:
    """Of dates as month/day/year, given another such date."""
    folder = tmp_path_factory.mktemp("polls")
    file, run = folder / "polls.csv", folder / "run"
    rows = zip(DAYS.tolist(), (DAYS + np.timedelta64(7, "D")).tolist(), strict=True)
    lines = (f"{told(a)},{told(b)},{i % 7}.5" for i, (a, b) in enumerate(rows))
    file.write_text("\n".join(["held,told,share", *lines]) + "\n")
    ended = command("fit", file, "--workdir", run, "--given", "told", *QUICK)
    assert ended.code == 0, ended.err
    return Fitted(run, file, ended)


@pytest.mark.slow
def test_one_row_of_the_fitted_file_is_scored(polls, tmp_path):
    lines = polls.file.read_text().splitlines()
    one, renamed = tmp_path / "one.csv", tmp_path / "renamed.csv"
    one.write_text("held,told,share\n1/2/1996,1/9/1996,1.5\n")
    renamed.write_text("a,b,c\n1/2/1996,1/9/1996,1.5\n")
    first = command("score", polls.run, one)
    second = command("score", polls.run, renamed, "--columns", "a,b,c")
    assert "over 1 rows" in first.out, first.err
    assert "dates as month/day/year, as in the fit" in first.out
    figure = first.out.partition("mean log p ")[2].split()[0]
    assert f"mean log p {figure} " in second.out, second.err
    assert len(lines) == 301


@pytest.mark.parametrize("in_file", [False, True])
def test_samples_and_given_values_have_the_dates_of_the_fit(polls, tmp_path, in_file):
    values, out = "told=2/3/1996", tmp_path / "drawn.csv"
    if in_file:
        values = tmp_path / "given.csv"
        values.write_text("told\n2/3/1996\n")
    ended = command("sample", polls.run, out, "-n", 3, "--given-values", values)
    assert ended.code == 0, ended.err
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert len(rows) == 3
    for held, _, _ in rows:
        month, day, year = map(int, held.strip('"').split("/"))
        assert np.datetime64(f"{year}-{month:02}-{day:02}") in DAYS.min() + np.arange(
            600
        )
    assert {row[1].strip('"') for row in rows} == {"2/3/1996"}


def test_a_cell_that_is_no_date_leaves_its_score_empty(polls, tmp_path):
    rows, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    lines = polls.file.read_text().splitlines()[:20]
    rows.write_text("\n".join([*lines, "31/31/1996,1/9/1996,1.5"]) + "\n")
    ended = command("score", polls.run, rows, "--out", out)
    assert ended.code == 0, ended.err
    assert "'31/31/1996' (1 of 20 cells) is no date and counts as missing" in ended.out
    scores = out.read_text().splitlines()[1:]
    assert [score in ("", "NA") for score in scores] == [False] * 19 + [True]
