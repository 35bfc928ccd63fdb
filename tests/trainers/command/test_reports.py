import json

import numpy as np

from tests.trainers.command.conftest import command
from trainers import FlowDensity


def test_a_report_is_readable(mixed):
    ended = command("report", mixed.run)
    assert ended.code == 0
    assert "{" not in ended.out
    assert "shop.csv: 300 rows; 240 train, 30 valid, 30 test" in ended.out
    assert "a density per unit of price; a mass of color, count, day" in ended.out
    assert "On 30 test rows the flow is" in ended.out
    assert "warm start" in ended.out.splitlines()[-1]


def test_a_report_for_programs(mixed):
    ended = command("report", mixed.run, "--json")
    assert json.loads(ended.out) == json.loads((mixed.run / "report.json").read_text())


def test_a_report_of_something_else_is_refused(tmp_path):
    ended = command("report", tmp_path)
    assert ended.code == 2
    assert "holds no report.json" in ended.err
    (tmp_path / "start").mkdir()
    assert "its fit is not finished" in command("report", tmp_path).err


def test_what_a_run_is(mixed, conditional):
    ended = command("info", mixed.run)
    assert ended.code == 0, ended.err
    for words in ("price", "positive", "parameters", "MiB", "--num-blocks", "version"):
        assert words in ended.out
    assert "columns that are given" in command("info", conditional.run).out
    assert command("info", mixed.run.parent).code == 2


def test_a_run_is_an_estimator_in_python(bare):
    x = np.load(bare.file)
    model = FlowDensity.load(bare.run)
    assert model.n_features_in_ == 2
    assert np.isfinite(model.score_samples(x)).all()
