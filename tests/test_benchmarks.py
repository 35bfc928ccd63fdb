import itertools
import math
import types

import pytest

from benchmarks import check, report, timing
from benchmarks.accelerator import __main__ as accelerator

ROWS = [
    {"what": "step", "d": 2, "batch": 512, "ratio": {"naive": 2.0, "spline": 1.0}},
    {"what": "step", "d": 8, "batch": 512, "ratio": {"naive": 2.0}},
]


def test_the_guard_names_the_ratios_that_fell_and_no_other():
    measured = [
        {"what": "step", "d": 2, "batch": 512, "ratio": {"naive": 1.2, "spline": 0.9}}
    ]
    (line,) = check.fallen(ROWS, measured)
    assert "naive" in line
    assert "2.00 -> 1.20" in line
    assert check.fallen(ROWS, ROWS) == []


def test_results_come_back_from_disk_and_make_a_table(tmp_path):
    environment = {
        "commit": "abc",
        "device": "cpu",
        "num_devices": 1,
        "python": "3.11",
        "versions": {"jax": "0.10"},
    }
    report.write(tmp_path / "cpu", environment, ROWS)
    assert report.load(tmp_path / "cpu.json") == [
        {"commit": environment["commit"]} | row for row in ROWS
    ]
    text = (tmp_path / "cpu.md").read_text()
    assert "| d | batch | ratio to naive | ratio to spline |" in text
    assert "| 8 | 512 | 2 |  |" in text
    assert "Measured at" not in text

    kept = report.load(tmp_path / "cpu.json")
    later = report.markdown(environment | {"commit": "abd"}, kept)
    assert "Commit abd" in later
    assert "Measured at commit abc." in later


def test_rounds_with_the_cores_far_apart_do_not_count(monkeypatch):
    # Near for three rounds, far for twelve, in which the call is slow, and near again.
    near, far = 50e-9, 300e-9  # two handovers a round
    handovers = itertools.chain([near] * 6, [far] * 24, itertools.repeat(near))
    is_far = False

    def handover():
        nonlocal is_far
        seconds = next(handovers)
        is_far = seconds == far
        timing._fastest_handover = min(timing._fastest_handover, seconds)
        return seconds

    monkeypatch.setattr(timing, "_fastest_handover", math.inf)
    monkeypatch.setattr(timing, "_handover", handover)
    times = []
    clock = types.SimpleNamespace(perf_counter=lambda: sum(times))
    monkeypatch.setattr(timing, "time", clock)

    def call():
        times.append(0.02 if is_far else 0.002)

    assert timing.interleaved({"call": call}, seconds=0)["call"] < 0.01
    assert len(times) < 40  # until the near ones were three in four it would take 50


@pytest.mark.slow
def test_the_benchmark_of_an_accelerator_runs_on_a_cpu(tmp_path):
    settings = accelerator.Accelerator(
        quick=True, only=("log_prob",), out=tmp_path / "cpu"
    )
    assert accelerator.main(settings) == 0
    ceilings, row = report.load(tmp_path / "cpu.json")
    assert ceilings["bytes"] > 1e8
    assert {"rbig-nnx", "Distrax spline"} <= set(row["rows_per_second"])
    assert row["percent_of_bandwidth"]["rbig-nnx"] > 0


@pytest.mark.slow
def test_every_section_of_it_does(tmp_path):
    pytest.importorskip("flowjax", reason="the extra `bench`")
    stem = tmp_path / "cpu"
    assert (
        accelerator.main(accelerator.Accelerator(quick=True, out=stem, minutes=60)) == 0
    )
    found = {row["what"] for row in report.load(stem.with_suffix(".json"))}
    assert {"training step", "warm start", "sampling", "end of these runs"} <= found


def test_an_unknown_section_is_named(capsys):
    settings = accelerator.Accelerator(quick=True, only=("nothing",))
    assert accelerator.main(settings) == 2
    assert "no section ['nothing']" in capsys.readouterr().out
