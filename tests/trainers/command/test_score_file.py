import numpy as np
import pytest

from tests.trainers.command.conftest import QUICK, command, mixed_lines
from trainers.command import score_file
from trainers.tables.door import frame_of
from trainers.tables.reading import read_frame


def mean_of(out):
    return float(out.partition("mean log p ")[2].split()[0])


def test_scores_are_those_of_the_rows_whatever_the_parts(mixed, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole.npy", tmp_path / "parts.parquet"
    first = command("score", mixed.run, mixed.file, "--out", whole)
    assert first.code == 0, first.err
    monkeypatch.setattr(score_file, "_ROWS", 70)
    second = command("score", mixed.run, mixed.file, "--out", parts)
    log_prob = np.load(whole)[:, 0]
    assert log_prob.shape == (300,)
    np.testing.assert_allclose(
        read_frame(parts)["log_prob"].values, log_prob, rtol=1e-6
    )
    assert mean_of(first.out) == pytest.approx(log_prob.mean(), abs=1e-4)
    assert mean_of(second.out) == pytest.approx(log_prob.mean(), abs=1e-4)
    error = log_prob.std(ddof=1) / np.sqrt(300)
    assert f"± {error:.4f} nats over 300 rows" in second.out


def test_outliers_are_shown_and_flagged(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(score_file, "_ROWS", 70)
    lines = mixed_lines()
    lines[6] = "9e7,red,3,2024-02-01"
    file, out = tmp_path / "new.csv", tmp_path / "scores.csv"
    file.write_text("\n".join(lines) + "\n")
    ended = command("score", mixed.run, file, "--outliers", 3, "--out", out)
    assert ended.code == 0, ended.err
    first = next(x for x in ended.out.splitlines() if x.startswith("│    1"))
    assert first.split("│")[2].strip() == "5"
    assert float(first.split("│")[4]) == 0
    assert "price 9e+07, color red, count 3," in first
    frame = read_frame(out)
    assert frame.names == ("log_prob", "quantile", "outlier")
    flagged = np.flatnonzero(frame["outlier"].values)
    lowest = np.argsort(frame["log_prob"].values)[:3]
    assert set(flagged) == set(lowest)
    inside = frame["quantile"].values
    assert inside.min() == 0
    assert 0.3 < np.median(inside) < 0.7


@pytest.mark.slow
def test_a_constant_that_is_another_now_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(score_file, "_ROWS", 50)
    x = np.random.default_rng(0).normal(size=120)
    head = "x,k,twice,y"
    lines = [f"{a},3,{2 * a},{b:.6f}" for a, b in np.round([x, x[::-1]], 3).T]
    old, new, run = tmp_path / "old.csv", tmp_path / "new.csv", tmp_path / "run"
    old.write_text("\n".join([head, *lines]))
    lines[0] = lines[0].replace(",3,", ",4,")
    lines[-1] = lines[-1].replace(",3,", ",4,")
    lines[1] = f"0.5,3,7,{x[0]:.6f}"
    new.write_text("\n".join([head, *lines]))
    assert command("fit", old, "--workdir", run, *QUICK).code == 0
    assert "left out of the fit" not in command("score", run, old).out
    said = command("score", run, new).out
    assert "column 'k' was left out of the fit (always 3)," in said
    assert "it differs in 2 rows." in said
    assert "column 'twice' was left out of the fit (a multiple of x)," in said
    assert "it differs in 1 row." in said


def test_rows_with_holes_have_an_empty_score(mixed, tmp_path):
    lines = mixed_lines()
    lines[3] = lines[3].replace("red", "").replace("green", "").replace("blue", "")
    lines[4] = "," + lines[4].partition(",")[2]
    lines[5] = "violet".join(lines[5].split(lines[5].split(",")[1]))
    file, out = tmp_path / "new.csv", tmp_path / "scores.csv"
    file.write_text("\n".join(lines) + "\n")
    ended = command("score", mixed.run, file, "--out", out)
    assert ended.code == 0, ended.err
    assert "over 297 rows" in ended.out
    assert "2 of 300 rows have missing values" in ended.out
    assert "1 of 300 rows hold values that have no mass" in ended.out
    scores = read_frame(out)["log_prob"]
    assert np.flatnonzero(scores.missing).tolist() == [2, 3]
    assert scores.values[4] == -np.inf


def test_what_becomes_of_the_rows_is_told_also_if_quiet(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(score_file, "_ROWS", 100)
    lines = mixed_lines()
    lines[5] = "1.5,red,3.4,2024-02-01"
    file = tmp_path / "new.csv"
    file.write_text("\n".join(lines) + "\n")
    ended = command("score", mixed.run, file, "--quiet", "--na", "-9998", "1.5")
    assert ended.code == 0, ended.err
    assert "--na -9998 matches no cell" in ended.out
    assert "--na 1.5" not in ended.out
    assert "count: 1 between the whole numbers that the fit had" in ended.out
    file.write_text("\n".join(lines).replace("red", '"red', 1) + "\n")
    ended = command("score", mixed.run, file, "--quiet")
    assert (ended.code, ended.out) == (2, "")
    assert "must close every quote" in ended.err


def test_columns_are_matched_by_name_and_others_are_told(mixed, tmp_path):
    rows = [line.split(",") for line in mixed_lines()]
    turned = [",".join([row[3], f"{i}x", *row[:3]]) for i, row in enumerate(rows)]
    turned[0] = "day,extra,price,color,count"
    file = tmp_path / "new.csv"
    file.write_text("\n".join(turned) + "\n")
    right = command("score", mixed.run, mixed.file)
    ended = command("score", mixed.run, file)
    assert "did not have: extra" in ended.out
    assert mean_of(ended.out) == mean_of(right.out)
    renamed = tmp_path / "renamed.csv"
    renamed.write_text("\n".join(["cost,color,count,day", *mixed_lines()[1:]]) + "\n")
    refused = command("score", mixed.run, renamed)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "price not among" in refused.err
    names = ("--columns", "cost", "color", "count", "day")
    assert mean_of(command("score", mixed.run, renamed, *names).out) == mean_of(
        right.out
    )


def test_without_names_the_number_of_columns_counts(bare, tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((9, 3)))
    ended = command("score", bare.run, tmp_path / "three.npy")
    assert ended.code == 2
    assert "the 2 columns of the fit" in ended.err
    assert "it has 3" in ended.err
    chosen = command("score", bare.run, tmp_path / "three.npy", "--columns", "x0", "x2")
    assert chosen.code == 0, chosen.err
    (tmp_path / "named.csv").write_text("x1,x0\n0.5,0.25\n0.5,0.5\n")
    assert command("score", bare.run, tmp_path / "named.csv").code == 0


def test_another_type_than_in_the_fit_is_refused(mixed, tmp_path):
    lines = [line.split(",") for line in mixed_lines()]
    swapped = [",".join([a, c, b, d]) for a, b, c, d in lines]
    swapped[0] = "price,color,count,day"
    file = tmp_path / "new.csv"
    file.write_text("\n".join(swapped) + "\n")
    ended = command("score", mixed.run, file)
    assert ended.code == 2
    assert "'color' must hold words, as 'red' in the fit; got numbers" in ended.err


def test_outputs_are_checked_before_any_work(mixed, tmp_path):
    cases = {
        tmp_path / "no.xlsx": "--out to write must end in one of",
        tmp_path / "nowhere" / "x.csv": "existing folder",
        mixed.file: "another file than the one that is read",
    }
    for out, words in cases.items():
        ended = command("score", mixed.run, mixed.file, "--out", out)
        assert ended.code == 2
        assert ended.out == ""
        assert words in ended.err
    nothing = command("score", tmp_path, mixed.file)
    assert "holds no report.json" in nothing.err


@pytest.mark.parametrize("spelling", ["itself", "symlink", "hardlink", "dots"])
def test_a_file_is_never_scored_over_itself(mixed, tmp_path, spelling):
    file, other = tmp_path / "own.csv", tmp_path / "other.csv"
    file.write_bytes(before := mixed.file.read_bytes())
    if spelling in ("symlink", "hardlink"):
        getattr(other, f"{spelling}_to")(file)
    out = {"itself": file, "dots": f"{tmp_path}/../{tmp_path.name}/own.csv"}
    ended = command("score", mixed.run, file, "--out", out.get(spelling, other))
    assert ended.code == 2
    assert "--out to write must be another file than the one that is read" in ended.err
    assert file.read_bytes() == before


def test_given_values_that_are_new_have_an_empty_score(conditional, tmp_path):
    lines = mixed_lines()
    lines[1] = lines[1].replace(lines[1].split(",")[1], "violet")
    file, out = tmp_path / "new.csv", tmp_path / "scores.csv"
    file.write_text("\n".join(lines) + "\n")
    ended = command("score", conditional.run, file, "--out", out)
    assert ended.code == 0, ended.err
    assert "over 299 rows" in ended.out
    assert read_frame(out)["log_prob"].missing.tolist() == [True] + [False] * 299


def test_moments_of_parts_are_those_of_the_whole():
    x = np.random.default_rng(0).normal(5, 2, size=1_000)
    tally = score_file._Tally(2)
    for part in np.split(x, (10, 500, 501)):
        tally.add(part, frame_of(part[:, None]))
    mean, error = tally.moments()
    assert mean == pytest.approx(x.mean())
    assert error == pytest.approx(x.std(ddof=1) / np.sqrt(1_000))
    assert tally.lowest.tolist() == np.argsort(x)[:2].tolist()
    assert tally.lowest_values == [f"x0 {value:.6g}" for value in np.sort(x)[:2]]
