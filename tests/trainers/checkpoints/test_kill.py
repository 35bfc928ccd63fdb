"""Kill -9 at random moments, and the same line again."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.trainers.checkpoints.resumable import CONFIG

_ROOT = pathlib.Path(__file__).parents[3]
_KILLS = 50
_KINDS = ("after a checkpoint", "while it writes", "after a checkpoint", "any moment")
_LIMIT = 300  # seconds of one start


def start(folder, cache, every=CONFIG.checkpoint_every):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.trainers.checkpoints.resumable",
            str(folder),
            str(cache),
            str(every),
        ],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=_LIMIT)
    assert process.returncode == 0, err
    return out.split()[-1]


def steps(folder):
    names = [p.name for p in (folder / "checkpoints").glob("*")]
    whole = [int(n) for n in names if n.isdigit()]
    half = [n for n in names if not n.isdigit()]
    return max(whole, default=-1), half


def wait_until(happened, process):
    end = time.monotonic() + _LIMIT
    while not happened() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path, capsys):
    cache = tmp_path / "cache"
    expected = finish(start(tmp_path / "whole", cache))
    folder, moments = tmp_path / "killed", random.Random(0)
    log = []
    while len(log) < _KILLS:
        kind = _KINDS[len(log) % len(_KINDS)]
        reached, _ = steps(folder)
        process = start(folder, cache)
        if kind == "any moment":  # during start and compilation as well
            end = time.monotonic() + moments.uniform(0.0, 10.0)
            ahead = reached + 3 * CONFIG.checkpoint_every
            wait_until(
                lambda e=end, a=ahead: time.monotonic() > e or steps(folder)[0] >= a,
                process,
            )
        else:
            wait_until(lambda at=reached: steps(folder)[0] > at, process)
            if kind == "while it writes":
                wait_until(lambda: steps(folder)[1], process)
                time.sleep(moments.uniform(0.0, 0.02))
            else:
                time.sleep(moments.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before the kill"
        step, half = steps(folder)
        assert step >= reached
        log.append(
            {"kill": len(log) + 1, "when": kind, "step": step, "half_written": half}
        )
    found = finish(start(folder, cache))
    with capsys.disabled():
        sys.stdout.writelines(f"{json.dumps(entry)}\n" for entry in log)
    assert any(entry["half_written"] for entry in log)
    assert found == expected


@pytest.mark.slow
def test_sigterm_saves_and_ends_without_an_error(tmp_path):
    cache = tmp_path / "cache"
    process = start(tmp_path / "run", cache)
    wait_until(lambda: steps(tmp_path / "run")[0] > 0, process)
    reached = steps(tmp_path / "run")[0]
    process.send_signal(signal.SIGTERM)
    finish(process)
    last, half = steps(tmp_path / "run")
    assert reached <= last < CONFIG.num_steps
    assert not half
