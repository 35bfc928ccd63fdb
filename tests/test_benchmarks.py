import itertools
import math
import time

from benchmarks import check, report, timing

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

    def call():
        times.append(0.02 if is_far else 0.002)
        time.sleep(times[-1])

    assert timing.interleaved({"call": call}, seconds=0)["call"] < 0.01
    assert len(times) < 40  # until the near ones were three in four it would take 50
