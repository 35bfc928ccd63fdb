import json

import numpy as np
import pytest

from trainers import cli

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
    assert cli.main(["fit", str(file), "--out", str(out), *FAST]) == 0
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
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_text("a,b\n" + "1,x\n" * 50)
    return {
        "nan.npy": "NaN",
        "constant.npy": "constant",
        "empty.csv": "0 bytes",
        "words.csv": "b",
        "missing.csv": "existing file",
        "rows.xlsx": "must end in one of",
    }


def test_mistakes_end_with_one_line_and_exit_code_2(tmp_path, capsys):
    for name, words in bad_files(tmp_path).items():
        code = cli.main(["fit", str(tmp_path / name), "--out", str(tmp_path / "run")])
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
