import json
import re

import numpy as np
import pandas
import pytest

from tests.trainers.command.conftest import QUICK, command, mixed_lines
from trainers.checkpoints.model import read_about
from trainers.command import fit_file
from trainers.command.steps import large
from trainers.tables import PartWriter
from trainers.tables.door import frame_of


def test_a_fit_tells_kinds_figures_and_the_verdict(mixed):
    out = mixed.ended.out
    for words in (
        "positive",
        "3 words",
        "date",
        "integer",
        "240 train, 30 valid, 30 test",
    ):
        assert words in out
    rows = [line for line in out.splitlines() if line.startswith(("│ flow", "│ Gauss"))]
    assert len(rows) == 4
    assert all("±" in row for row in rows)
    assert "On 30 test rows the flow is" in out
    assert max(map(len, (x for x in out.splitlines() if "│" in x))) <= 80
    report = json.loads((mixed.run / "report.json").read_text())
    assert report["columns"] == ["price", "color", "count", "day"]
    assert report["rows"] == {"train": 240, "valid": 30, "test": 30}
    assert set(report["held_out_log_prob"]) >= {"Gaussian", "flow, trained"}
    assert set(report["standard_error"]) == set(report["held_out_log_prob"])
    assert report["over_mixture"]["flow, trained"]["standard_error"] > 0
    assert "a mass of color, count, day" in report["unit"]
    assert report["verdict"][0] in out
    assert report["versions"]["jax"]
    assert report["seconds"]["warm_start"] > 0
    assert report["chosen"]["--train.eval-every"] == 10
    assert "settings: --num-blocks 1 --num-components 2 --hidden 8 " in out
    assert report["candidates"][0]["name"] == "the warm start"
    assert re.search("Chosen by the rows held out: (weight decay|the warm start)", out)


def test_the_flow_and_the_baselines_are_scored_alike(mixed):
    """Single columns: the flow of one block can hardly differ from a Gaussian."""
    report = json.loads((mixed.run / "report.json").read_text())
    scores = report["held_out_log_prob"]
    assert abs(scores["flow, trained"] - scores["Gaussian"]) < 0.5


def test_the_same_line_gives_its_report_at_once(mixed, monkeypatch):
    monkeypatch.setattr(fit_file, "open_table", None)  # not even read
    again = command("fit", mixed.file, "--workdir", mixed.run, *QUICK)
    assert again.code == 0
    assert "has been run before" in again.out
    assert "On 30 test rows" in again.out
    assert again.err == ""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--rotation", "random"), "--rotation"),
        (("--seed", "1"), "--seed"),
        (("--train.num-steps", "21"), "--train.num-steps"),
        (("--kinds", "price=continuous"), "--kinds"),
    ],
)
def test_another_line_in_the_folder_is_refused_before_any_work(mixed, more, words):
    ended = command("fit", mixed.file, "--workdir", mixed.run, *QUICK, *more)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    for word in (words, "--workdir", "--no-resume"):
        assert word in ended.err


def test_other_rows_in_the_folder_are_refused(mixed, tmp_path):
    file = tmp_path / "shop.csv"
    file.write_text("\n".join(mixed_lines(seed=1)) + "\n")
    ended = command("fit", file, "--workdir", mixed.run, *QUICK)
    assert ended.code == 2
    assert "the content of FILE" in ended.err


def test_a_fit_that_was_stopped_goes_on_without_another_warm_start(
    tmp_path, monkeypatch
):
    file, run = tmp_path / "rows.csv", tmp_path / "run"
    file.write_text("\n".join(mixed_lines(seed=2)) + "\n")

    def stopped(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(fit_file, "train_rungs", stopped)
        assert command("fit", file, "--workdir", run, *QUICK).code == 130
    assert not (run / "report.json").exists()
    monkeypatch.setattr(fit_file.starts, "start", None)
    ended = command("fit", file, "--workdir", run, *QUICK)
    assert ended.code == 0, ended.err
    assert "warm start of an earlier call" in ended.out
    assert (run / "report.json").exists()


@pytest.mark.slow
def test_what_a_budget_allows_is_found_once(tmp_path, monkeypatch):
    file, run = tmp_path / "rows.csv", tmp_path / "run"
    file.write_text("\n".join(mixed_lines(seed=2)) + "\n")
    line = ("fit", file, "--workdir", run, *QUICK[:8], "--budget", "1m")
    found = iter([30])  # steps, of the first call alone
    monkeypatch.setattr(fit_file, "steps_within", lambda *_, **__: next(found))

    def stopped(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(fit_file, "train_rungs", stopped)
        assert command(*line).code == 130
    ended = command(*line)
    assert ended.code == 0, ended.err
    report = json.loads((run / "report.json").read_text())
    assert report["chosen"]["--train.num-steps"] == 30
    assert report["settings"]["--budget"] == "1m"
    assert "--train.num-steps 30 " in ended.out
    assert re.search(r"Of --budget 1m this call took \d+ s .* \d+ s more\.", ended.out)


@pytest.mark.slow
def test_a_start_that_uses_up_the_budget_is_told(tmp_path, monkeypatch):
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(mixed_lines(seed=2)) + "\n")
    monkeypatch.setattr(fit_file, "steps_within", lambda *_, **__: 10)
    ended = command(
        "fit", file, "--workdir", tmp_path / "run", *QUICK[:8], "--budget=.1s"
    )
    assert ended.code == 0, ended.err
    told = "Of --budget .1s the start left 0 s for training: give more time, or steps"
    assert told in ended.out
    decisions = json.loads((tmp_path / "run/report.json").read_text())["decisions"]
    assert decisions[1].startswith(told)
    assert decisions[2].startswith("Of --budget .1s this call took")


@pytest.mark.slow
def test_no_resume_starts_anew_and_profiles(mixed, tmp_path):
    file, run = tmp_path / "rows.csv", tmp_path / "run"
    file.write_text("\n".join(mixed_lines(seed=2)) + "\n")
    assert command("fit", file, "--workdir", run, *QUICK).code == 0
    other = ("--seed", "1", "--no-resume", "--profile", "2", "--quiet")
    ended = command("fit", file, "--workdir", run, *QUICK, *other)
    assert ended.code == 0, ended.err
    assert any((run / "profile").rglob("*.xplane.pb"))
    assert (run / "previous.report.json").exists()
    report = json.loads((run / "report.json").read_text())
    assert report["settings"]["--seed"] == 1
    assert ended.err == ""  # quiet
    assert "│" not in ended.out
    assert "test rows the flow is" in ended.out


def test_a_folder_of_its_own_for_each_file_and_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from trainers.command.settings import FitFile
    from trainers.command.steps.runs import default_workdir

    a, b = (tmp_path / folder / "my rows.csv.gz" for folder in "ab")
    names = {str(default_workdir(FitFile(), path)) for path in (a, b)}
    names.add(str(default_workdir(FitFile(num_blocks=1), a)))
    names.add(str(default_workdir(FitFile(quiet=True), a)))
    assert len(names) == 3
    assert all(name.startswith("runs/my_rows-") for name in names)


def test_the_folder_is_checked_before_the_file_is_read(mixed, tmp_path):
    ended = command("fit", mixed.file, "--workdir", mixed.file, *QUICK)
    assert ended.code == 2
    assert "--workdir must be a folder" in ended.err
    ended = command("fit", mixed.file, "--workdir", "/proc/nowhere", *QUICK)
    assert "--workdir must be a folder that you may write to" in ended.err
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    ended = command("fit", mixed.file, "--workdir", link, *QUICK)
    assert (ended.code, ended.err.count("is a link to none")) == (2, 1)


@pytest.mark.parametrize("pattern", ["*.vektors", "layers.3.vektors"])
def test_rates_of_nothing_are_refused_before_the_start(mixed, tmp_path, pattern):
    run, rates = tmp_path / "run", ("--train.learning-rates", pattern, ".1")
    ended = command("fit", mixed.file, "--workdir", run, *QUICK[:8], *rates)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"--train.learning-rates must match a variable; '{pattern}'" in ended.err
    assert not run.exists()


@pytest.mark.slow
def test_a_conditional_fit(conditional):
    assert "columns that are given" in conditional.ended.out
    report = json.loads((conditional.run / "report.json").read_text())
    assert report["columns"] == ["price", "count", "day"]
    assert report["given"] == ["color"]
    scores = report["held_out_log_prob"]
    assert all(np.isfinite(list(scores.values())))


def test_what_is_kept_with_the_model(mixed):
    kept = read_about(mixed.run / "flow")["fit"]
    assert kept["columns"] == ["price", "color", "count", "day"]
    assert kept["is_named"]
    assert np.all(np.diff(kept["train_log_prob"]) >= 0)


def test_bad_files_end_with_one_line(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((100, 2), np.nan))
    np.save(tmp_path / "constant.npy", np.ones((100, 2)))
    np.save(tmp_path / "cube.npy", np.ones((100, 2, 2)))
    (tmp_path / "empty.csv").write_text("")
    expected = {
        "nan.npy": "must have a column to model",
        "constant.npy": "constant|always",
        "cube.npy": r"\[n, d\]",
        "[/red]rows.csv": r"\[/red\]rows.csv",  # not a mark-up of rich
        "empty.csv": "0 bytes",
        "missing.csv": "existing file",
        "rows.xlsx": "must end in one of|existing",
    }
    for name, words in expected.items():
        ended = command("fit", tmp_path / name, "--workdir", tmp_path / "run")
        assert ended.code == 2, name
        assert ended.err.startswith("rbig-nnx: "), name
        assert ended.err.count("\n") == 1
        assert re.search(words, ended.err), (name, ended.err)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_table_larger_than_a_quarter_of_the_memory_is_streamed(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    file, run = tmp_path / "rows.parquet", tmp_path / "run"
    columns = {
        "a": random.normal(1e7, 1, 3_000),
        "q": np.array(["u", "v"] * 1_500),
        "n": random.poisson(3, 3_000),
    }
    with PartWriter(file) as writer:
        for start in range(0, 3_000, 300):
            part = {k: v[start : start + 300] for k, v in columns.items()}
            writer.write(frame_of(pandas.DataFrame(part)))
    monkeypatch.setattr(large, "memory_bytes", lambda: 200_000)
    ended = command("fit", file, "--workdir", run, *QUICK)
    assert ended.code == 0, ended.err
    assert "is read by parts; the kinds are those of 3,000 rows" in ended.out
    report = json.loads((run / "report.json").read_text())
    assert sum(report["rows"].values()) == 3_000
    assert np.isfinite(report["held_out_log_prob"]["flow, trained"])
    assert command("score", run, file).code == 0
    refused = command("fit", file, "--given", "q", *QUICK)
    assert "--given must be left out" in refused.err
    text = tmp_path / "rows.csv"
    text.write_text("a,b\n" + "1.5,2.5\n" * 30_000)
    assert "Write it as .parquet" in command("fit", text, *QUICK).err
