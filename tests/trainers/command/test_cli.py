import json
import pathlib

import numpy as np
import pytest

from trainers.command import cli

FAST = (
    *("--train.num-steps", "20", "--train.eval-every", "10"),
    *("--num-blocks", "1", "--num-components", "3", "--hidden", "8"),
)


def write_csv(path, n=300):
    rng = np.random.default_rng(0)
    rows = np.stack([rng.exponential(size=n), rng.normal(size=n)], axis=1)
    np.savetxt(path, rows, delimiter=",", header="wait,shift", comments="")


def test_fit_score_sample_report(tmp_path, capsys):
    file, out = tmp_path / "rows.csv", tmp_path / "run"
    write_csv(file)
    assert cli.main(["fit", str(file), "--workdir", str(out), *FAST]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["columns"] == ["wait", "shift"]
    assert report["rows"] == {"train": 240, "valid": 30, "held_out": 30}
    assert set(report["held_out_log_prob"]) >= {"Gaussian", "flow, trained"}

    assert (
        cli.main(["score", str(out), str(file), "--out", str(tmp_path / "p.npy")]) == 0
    )
    assert np.load(tmp_path / "p.npy").shape == (300, 1)
    new = tmp_path / "new.csv"
    assert cli.main(["sample", str(out), str(new), "--num-rows", "7"]) == 0
    assert new.read_text().splitlines()[0].replace('"', "") == "wait,shift"
    assert len(new.read_text().splitlines()) == 8
    assert cli.main(["report", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "over the Gaussian" in printed
    assert "mean log p" in printed


def bad_files(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((100, 2), np.nan))
    np.save(tmp_path / "constant.npy", np.ones((100, 2)))
    np.save(tmp_path / "cube.npy", np.ones((100, 2, 2)))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_text("a,b\n" + "1,x\n" * 50)
    return {
        "nan.npy": "NaN",
        "constant.npy": "constant",
        "cube.npy": "rows and columns, [n, d]",
        "[/red]rows.csv": "[/red]rows.csv",  # not a mark-up of rich
        "empty.csv": "0 bytes",
        "words.csv": "b",
        "missing.csv": "existing file",
        "rows.xlsx": "must end in one of",
    }


def test_mistakes_end_with_one_line_and_exit_code_2(tmp_path, capsys):
    for name, words in bad_files(tmp_path).items():
        code = cli.main(
            ["fit", str(tmp_path / name), "--workdir", str(tmp_path / "run")]
        )
        captured = capsys.readouterr()
        assert code == 2, name
        assert captured.err.startswith("rbig-nnx: "), name
        assert words in captured.err, (name, captured.err)
        assert "Traceback" not in captured.err


def test_report_of_something_else_is_refused(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no report.json" in capsys.readouterr().err


def test_unknown_command_exits_with_2():
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["paint"])
    assert exit_info.value.code == 2


def test_settings_come_from_a_file_and_options_override_it(tmp_path, monkeypatch):
    seen = []
    run = "trainers.command.fit_file.run"
    monkeypatch.setattr(run, lambda file, s, console: seen.append(s))
    config = tmp_path / "run.yaml"
    config.write_text(
        "num_blocks: 3\nhidden: [16, 16]\ntrain:\n  learning_rate: 1e-4\n"
        "  num_steps: 7\nworkdir: elsewhere\n"
    )
    args = ["fit", "x.csv", "--config", str(config), "--train.num-steps", "9"]
    assert cli.main(args) == 0
    (settings,) = seen
    assert (settings.num_blocks, settings.hidden) == (3, (16, 16))
    assert (settings.train.learning_rate, settings.train.num_steps) == (1e-4, 9)
    assert settings.workdir == pathlib.Path("elsewhere")
    assert settings.train.batch_size == 512


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_blocs: 3", "no setting ['num_blocs']"),
        ("train: {steps: 3}", "no setting ['steps']"),
        ("num_blocks: many", "num_blocks must be a int, like 4; got 'many'"),
        ("- 1", "must be a mapping"),
        ("a: [", "must be YAML"),
    ],
)
def test_mistakes_in_the_file_of_settings(tmp_path, capsys, text, words):
    config = tmp_path / "run.yaml"
    config.write_text(text)
    assert cli.main(["fit", "x.csv", "--config", str(config)]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_the_same_line_again_trains_nothing_and_another_file_is_refused(
    tmp_path, capsys
):
    file, out = tmp_path / "rows.csv", tmp_path / "run"
    write_csv(file)
    args = ["fit", str(file), "--workdir", str(out), *FAST]
    assert cli.main([*args, "--profile", "2"]) == 0
    assert any((out / "profile").rglob("*.xplane.pb"))
    first = capsys.readouterr()
    assert "step " in first.err
    assert "step " not in first.out
    steps = (out / "metrics.jsonl").read_text()
    assert cli.main(args) == 0
    assert (out / "metrics.jsonl").read_text() == steps
    assert "steps/s" not in capsys.readouterr().err
    write_csv(file, n=299)
    assert cli.main(args) == 2
    assert "workdir" in capsys.readouterr().err
