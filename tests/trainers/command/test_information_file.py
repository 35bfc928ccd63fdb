import json

import numpy as np
import pytest

from tests.trainers.command.conftest import SETTINGS, command
from trainers.command.output import Printer
from trainers.command.settings import FitFile
from trainers.command.steps.entrance import open_table
from trainers.command.steps.pairs import Densities
from trainers.tables.files.sources import find


def write(path, **columns):
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(
            ",".join(f"{x:.5f}" if isinstance(x, float) else str(x) for x in row)
        )
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_mutual_information_of_known_pairs(tmp_path):
    random = np.random.default_rng(0)
    z = random.normal(size=3_000)
    near = 0.8 * z + 0.6 * random.normal(size=3_000)
    digit = random.integers(0, 10, 3_000)
    size = np.array(["small", "middle", "large"])[(z > -0.5).astype(int) + (z > 0.5)]
    write(tmp_path / "rows.csv", z=z, near=near, digit=digit, twin=9 - digit, size=size)
    settings = FitFile(kinds=("twin=integer",))
    table = open_table(find(tmp_path / "rows.csv"), settings, Printer(silent=True))
    densities = Densities(table, 0, 16)

    def mutual(a, b):
        apart = densities.of_column(a)["test"] + densities.of_column(b)["test"]
        return float(np.mean(densities.of_pair(a, b)["test"] - apart))

    assert mutual("z", "near") == pytest.approx(-0.5 * np.log(1 - 0.64), abs=0.08)
    assert mutual("digit", "twin") == pytest.approx(np.log(10), abs=0.15)
    assert mutual("z", "size") == pytest.approx(1.095, abs=0.1)
    assert mutual("z", "digit") == pytest.approx(0, abs=0.03)
    entropy = -densities.of_column("digit")["test"].mean()
    assert entropy == pytest.approx(np.log(10), abs=0.02)


@pytest.mark.slow
def test_the_command_on_a_run_and_on_a_file(mixed, tmp_path):
    ended = command("information", mixed.run)
    assert ended.code == 0, ended.err
    found = json.loads((mixed.run / "information.json").read_text())
    assert set(found["entropy_of_columns"]) == {"price", "color", "count", "day"}
    assert len(found["mutual_information"]) == 6
    assert found["total_correlation"]["standard_error"] > 0
    report = json.loads((mixed.run / "report.json").read_text())
    score = report["held_out_log_prob"]["flow, trained"]
    assert found["entropy"]["mean"] == pytest.approx(-score, abs=1e-4)
    assert "price" in ended.out
    # The same options name the same folder, which is finished.
    line = ("information", mixed.file, "--workdir", mixed.run, *SETTINGS, "--json")
    again = command(*line)
    assert json.loads(again.out) == found


@pytest.mark.slow
def test_one_column_shares_nothing(tmp_path):
    file = tmp_path / "rows.csv"
    write(file, a=np.random.default_rng(0).normal(size=200).round(4))
    line = ("information", file, "--workdir", tmp_path / "run", *SETTINGS, "--json")
    found = json.loads(command(*line).out)
    assert found["total_correlation"] == {"mean": 0, "standard_error": 0}
    assert found["entropy"]["mean"] > 0


@pytest.mark.slow
def test_a_run_whose_file_has_changed_is_refused(tmp_path, conditional):
    moved = conditional.file.with_name("moved.csv")
    conditional.file.rename(moved)
    try:
        ended = command("information", conditional.run)
    finally:
        moved.rename(conditional.file)
    assert ended.code == 2
    assert "gone or has changed" in ended.err
    ended = command("information", conditional.run)
    assert "given color" in ended.out
