"""Files of a run that somebody damaged: one line that names them, and nothing else."""

import json
import shutil

import pytest

from tests.trainers.command.conftest import QUICK, command


@pytest.fixture
def run(bare, tmp_path):
    """A copy of a finished run, and its file."""
    return shutil.copytree(bare.run, tmp_path / "run"), bare.file


def told(ended, *words):
    assert ended.code == 2, ended
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


TEXTS = {
    "cut": lambda text: text[:200],
    "empty": lambda text: "",
    "list": lambda text: "[1]",
    "deep": lambda text: "[" * 10**5,
    "columns": lambda text: json.dumps(json.loads(text) | {"columns": 3}),
    "scores": lambda text: json.dumps(
        json.loads(text) | {"held_out_log_prob": {"a": 1}}
    ),
    "rows": lambda text: json.dumps(json.loads(text) | {"rows": {"test": "many"}}),
}


@pytest.mark.parametrize("damage", TEXTS)
def test_a_damaged_report_is_named(run, damage, tmp_path):
    folder, file = run
    report = folder / "report.json"
    report.write_text(TEXTS[damage](report.read_text()))
    told(command("report", folder), "report.json is damaged")
    out = tmp_path / "scores.csv"
    told(command("score", folder, file, "--out", out), "report.json is damaged")
    assert not out.exists()


def test_settings_that_are_none_are_named(run):
    folder, _ = run
    report = folder / "report.json"
    found = json.loads(report.read_text()) | {"settings": {"num_blocks": [[]]}}
    report.write_text(json.dumps(found))
    told(command("report", folder, "--html"), "report.json", "settings")


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about["fit"].pop("columns"),
        lambda about: about["fit"].update(width="wide"),
        lambda about: about["fit"].update(probabilities=[1.0]),
        lambda about: about["table"].update(num_draws=10**12),
        lambda about: about["table"].update(schema=[]),
        lambda about: about["table"]["schema"].clear(),
    ],
)
def test_what_lies_with_the_flow_is_checked(run, change):
    from trainers.checkpoints.format import json_checksum

    folder, file = run
    meta = folder / "flow" / "0" / "meta" / "metadata"
    found = json.loads(meta.read_text())
    found.pop("checksum")
    change(found["about"])
    meta.write_text(json.dumps(found | {"checksum": json_checksum(found)}))
    told(command("score", folder, file), str(folder / "flow"), "damaged")


def test_control_characters_of_a_file_are_shown_escaped(run, tmp_path):
    folder, _ = run
    report = folder / "report.json"
    found = json.loads(report.read_text())
    found["notes"], found["verdict"] = ["a\x1b[2Jnote"], ["ver\x07dict\x9b"]
    found["kinds"][0]["column"] = "x\x1b]0;title\x07"
    report.write_text(json.dumps(found))
    ended = command("report", folder)
    assert ended.code == 0, ended.err
    for shown in (r"a\x1b[2Jnote", r"ver\x07dict\x9b", r"x\x1b]0"):
        assert shown in ended.out
    assert not set("\x1b\x07\x9b") & set(ended.out)
    missing = command("fit", tmp_path / "a\x1b[2Jb.csv", "--workdir", tmp_path / "w")
    told(missing, r"\x1b[2J")
    assert "\x1b" not in missing.err


@pytest.mark.parametrize(
    "text",
    ["garbage\n", "\0\0\n", "[1]\n", '{"step": "x"}\n', '{"step": nul\n', "\xe9\n"],
)
def test_lines_of_metrics_that_are_none_stay_as_they_are(tmp_path, text):
    from trainers.run.writers import JsonlWriter

    path = tmp_path / "metrics.jsonl"
    lines = '{"step": 1}\n' + text + '{"step": 9}\n'
    path.write_text(lines, encoding="latin-1")
    with JsonlWriter(path, up_to=5) as writer:
        writer.write_scalars(9, {"loss": 1.0})
    first, other, last = path.read_text(errors="replace").splitlines()
    assert first == '{"step": 1}'
    assert other == (text.strip("\n") if text != "\xe9\n" else "�")
    assert json.loads(last)["loss"] == 1


def test_the_first_line_goes_on_after_the_report_was_removed(run):
    folder, file = run
    (folder / "report.json").unlink()
    ended = command("fit", file, "--workdir", folder, *QUICK)
    assert ended.code == 0, ended.err
    assert (folder / "report.json").exists()


def test_a_damaged_flow_is_written_anew_as_its_message_says(run):
    folder, file = run
    before = command("score", folder, file)
    meta = folder / "flow" / "0" / "meta" / "metadata"
    meta.write_bytes(meta.read_bytes()[::-1])
    anew = "writes it anew where flow and report.json are removed"
    told(command("score", folder, file), str(folder / "flow"), anew)
    shutil.rmtree(folder / "flow")
    told(command("score", folder, file), "RUN must have its flow", anew)
    (folder / "report.json").unlink()
    ended = command("fit", file, "--workdir", folder, *QUICK)
    assert ended.code == 0, ended.err
    assert command("score", folder, file).out == before.out
    shutil.rmtree(folder / "flow")  # the report alone is not enough
    assert command("fit", file, "--workdir", folder, *QUICK).code == 0
    assert command("score", folder, file).out == before.out
