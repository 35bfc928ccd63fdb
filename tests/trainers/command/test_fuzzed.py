"""Damaged files of settings, reports and metrics: a value, or one line that names the file."""

import json
import pickle
import random
import shutil

import pytest
import yaml

from tests.slow import slow
from tests.trainers.command.conftest import command
from tests.trainers.tables.test_fuzzed import Bomb, damaged, within_seconds
from trainers.command.arguments import read_settings
from trainers.command.cli import Fit
from trainers.command.steps.runs import read_report
from trainers.run.writers import JsonlWriter
from trainers.tables import InputError

SETTINGS = {
    "num_blocks": 3,
    "hidden": [16, 8],
    "resume": False,
    "kinds": {"a": "positive"},
    "na": [-9999, "unknown"],
    "sep": ";",
    "test_fraction": 0.25,
    "train": {"learning_rate": 0.001, "num_steps": 7},
}
TEXTS = (yaml.safe_dump(SETTINGS), json.dumps(SETTINGS), json.dumps(SETTINGS, indent=1))
PIECES = (
    *(
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\n",
        "\n  ",
        "\t",
        '"',
        "'",
        "#",
        "|",
        ">",
        "&a ",
    ),
    *(
        "*a",
        "!!",
        "!!python/name:os.system ",
        "!!binary ",
        "<<: ",
        "---\n",
        "...\n",
        "%",
    ),
    *(
        "null",
        "~",
        "yes",
        "0x1F",
        "1_0",
        "1e999",
        ".inf",
        ".nan",
        "2020-01-01",
        "12:30:45",
    ),
    *(
        "\0",
        "\x1b[2J",
        "\x07",
        "\x9b",
        "\u2028",
        "\ud7ff",
        "\ufeff",
        "--help",
        "-",
        "=",
    ),
    *("9" * 30, "9" * 5_000, "[" * 2_000, "0", "1", "-1", "."),
)


def mutated(text, draw):
    for _ in range(draw.randint(1, 2)):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(PIECES) + text[at + draw.randrange(3) :]
    content = text.encode()
    return damaged(content, draw) if draw.random() < 0.3 else content


def told(ended, name):
    """Exit code 2, and one line that can be printed and names the file."""
    assert ended.code == 2, ended
    assert name in ended.err, ended
    assert ended.err.removesuffix("\n").isprintable(), ended


@pytest.mark.parametrize("number", [40, slow(1_000)])
def test_damaged_settings_are_those_of_the_file_or_are_named(tmp_path, number):
    draw, read = random.Random(number), 0
    # The first one imports what takes seconds.
    told(command("fit", tmp_path / "none.csv"), "none.csv")
    for i in range(number):
        file = tmp_path / f"run\x07.{'yaml' if i % len(TEXTS) == 0 else 'json'}"
        file.write_bytes(mutated(TEXTS[i % len(TEXTS)], draw))
        with within_seconds():
            ended = command("fit", tmp_path / "none.csv", "--config", file)
        if "none.csv" not in ended.err:
            told(ended, r"run\x07")
            continue
        told(ended, "none.csv")
        read += 1
        found = yaml.load(file.read_text(), Loader=yaml.BaseLoader) or {}
        settings = read_settings(file, Fit)
        for name in ("num_blocks", "test_fraction"):
            if found.get(name) is not None:
                assert getattr(settings, name) == float(found[name]), file.read_bytes()
        if isinstance(widths := found.get("hidden"), list):
            assert settings.hidden == tuple(map(int, widths)), file.read_bytes()
    assert number / 20 < read < number / 2


def test_nothing_in_settings_is_executed(tmp_path):
    mark = tmp_path / "executed"
    pickled = pickle.dumps(Bomb(mark))
    call = f"!!python/object/apply:os.mkdir [{mark}]"
    new = f"!!python/object/new:pathlib.Path {{args: [{mark}]}}"
    texts = {"call": f"num_blocks: {call}", "list": f"hidden: [{call}]", "new": new}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    for suffix in ("yaml", "json"):
        (tmp_path / f"raw.{suffix}").write_bytes(pickled)
        (tmp_path / f"text.{suffix}").write_text(repr(pickled))
    for file in list(tmp_path.iterdir()):
        told(command("fit", tmp_path / "none.csv", "--config", file), file.name)
    assert not mark.exists()
    pickle.loads(pickled)
    assert mark.exists()  # else nothing would have been seen above


@pytest.mark.parametrize("number", [150, slow(3_000)])
def test_damaged_reports_are_shown_or_named(bare, tmp_path, number):
    run = shutil.copytree(bare.run, tmp_path / "run")
    file = run / "report.json"
    whole, draw, shown = file.read_text(), random.Random(number), 0
    for i in range(number):
        content = damaged(whole.encode(), draw) if i % 2 else mutated(whole, draw)
        file.write_bytes(content)
        with within_seconds():
            try:
                read_report(run)
            except InputError:
                told(command("report", run), "report.json")
                continue
            ended = command("report", run)
        assert ended.code == 0, (content, ended)
        assert ended.out.replace("\n", "").isprintable(), content
        shown += 1
    assert 0 < shown < number / 2


@pytest.mark.parametrize("number", [200, slow(3_000)])
def test_damaged_lines_of_metrics_are_passed_over(tmp_path, number):
    lines = "".join(json.dumps({"step": i, "loss": i / 7}) + "\n" for i in range(9))
    draw, path = random.Random(number), tmp_path / "metrics.jsonl"
    for i in range(number):
        content = damaged(lines.encode(), draw) if i % 2 else mutated(lines, draw)
        path.write_bytes(content)
        with within_seconds(), JsonlWriter(path, up_to=5) as writer:
            writer.write_scalars(9, {"loss": 1.0})
        *_, last = path.read_bytes().splitlines()
        assert json.loads(last)["loss"] == 1.0, content
