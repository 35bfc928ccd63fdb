"""What a job shows: a line that fits a terminal, or lines; nothing on request."""

import dataclasses
import io
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from rich.console import Console

from tests.trainers.layouts import QUICK, VALID, X
from tests.trainers.tiny import Tiny
from trainers import fit
from trainers.run import progress as module
from trainers.run.progress import Progress, as_progress, show_progress

LAYER = types.SimpleNamespace(index=2, name="MixtureCDFCoupling", log_prob=-1.23456)


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


def job(display, clock):
    with display:
        display.phase("reading rows.csv")
        clock.seconds += 2
        display.phase("warm start", total=9)
        clock.seconds += 1
        display.layer(LAYER)
        display.phase("training", total=20_000)
        display.evaluated(0, {"train": -1.0, "valid": -1.5}, best=-1.5)
        for step, seconds in ((1_000, 61), (2_000, 59)):
            clock.seconds += seconds
            display.advance(step)
            display.evaluated(step, {"train": -0.5, "valid": -1.75}, best=-1.5)
        display.say("a line that stays")


def test_lines_where_nobody_watches(clock, capsys):
    job(show_progress(), clock)
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [
        "step 1000/20000  valid -1.7500  best -1.5000  16/s  0:19:19 left",
        "a line that stays",
    ]


class Timer:
    """Waits when it is told to."""

    def __init__(self, seconds, call, words=()):
        assert seconds == 1
        self.call, self.words, self.is_over = call, words, False

    def start(self):
        assert self.daemon
        assert not self.is_over

    def cancel(self):
        self.is_over = True

    def wait(self):
        self.call(*self.words)


def test_where_nobody_watches_a_phase_has_a_line_if_it_lasts(monkeypatch, capsys):
    monkeypatch.setattr(module.threading, "Timer", Timer)
    with show_progress() as display:
        for name in ("short", "long", "shorter"):
            display.phase(name)
            if name == "long":
                display._soon.wait()
    assert display._soon.is_over
    assert capsys.readouterr().err == "long\n"


def screen(width=80):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    return module._Screen(console), file


def test_a_terminal_keeps_a_line_for_each_phase_that_is_over(clock):
    display, file = screen()
    job(display, clock)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert "reading rows.csv  2.0 s" in text
    assert "warm start  MixtureCDFCoupling, log p -1.2346  1.0 s" in text
    ended = "training  step 2000/20000  valid -1.7500  best -1.5000  120.0 s"
    assert ended in text
    assert text.index("a line that stays") < text.index(ended)


def drawn(display, width=80):
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(display)
    return file.getvalue().rstrip("\n")


@pytest.mark.parametrize("total", [20, 1_000, 999_999])
@pytest.mark.parametrize("score", [-1.5, -123.45678, 1e25, -np.inf])
def test_a_line_of_training_fits_80_columns(total, score, clock):
    display, _ = screen()
    display.phase("training", total=total)
    clock.seconds = 3_600 * 30
    display.evaluated(total // 2, {"valid": score}, best=score)
    line = drawn(display)
    assert "\n" not in line
    assert len(line) <= 80
    assert all(word in line for word in ("step", "valid", "best", "/s", "left"))


def test_long_names_are_cut_and_narrow_terminals_hold():
    display, _ = screen(40)
    display.phase("reading " + "x" * 100, total=3)
    display.advance(1, "a long note on the part that is over")
    assert len(drawn(display, 40)) <= 40


def test_a_bar_fills_the_room_that_is_left():
    display, _ = screen()
    display.phase("baselines", total=4)
    display.advance(2, "8 components")
    line = drawn(display)
    assert "baselines 2/4  8 components" in line
    assert "━" in line
    assert len(line) <= 80


def test_a_run_that_goes_on_tells_its_own_rate(clock):
    with show_progress() as display:
        display.phase("training", total=100, done=80)
        clock.seconds = 5
        display.evaluated(90, {"train": -1.0})
        line = display._phase.line()
    assert line == "step 90/100  train -1.0000  2.0/s  0:00:05 left"


class Recorder(Progress):
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def __exit__(self, *_):
        self.told.append("closed")

    def phase(self, name, *, total=None, done=0):
        self.told.append((name, total, done))

    def advance(self, done, note=""):
        self.told.append(done)

    def evaluated(self, step, scores, *, best=None):
        self.told.append((step, sorted(scores), best))


def test_fit_tells_the_display_of_a_larger_job(capsys):
    recorder = Recorder()
    result = fit(Tiny(), X, VALID, config=QUICK, progress=recorder)
    phases = [told for told in recorder.told if isinstance(told, tuple)]
    valid = result.history["valid"]
    assert phases == [
        ("checking rows", None, 0),
        ("compiling", None, 0),
        ("training", 8, 0),
        (0, ["train", "valid"], valid[0]),
        (4, ["train", "valid"], valid[:2].max()),
        (8, ["train", "valid"], valid.max()),
    ]
    assert [told for told in recorder.told if isinstance(told, int)] == [3, 4, 7, 8]
    assert "closed" not in recorder.told  # its owner does that
    assert not capsys.readouterr().err


def test_a_run_that_went_on_tells_where_from(tmp_path):
    half = dataclasses.replace(QUICK, patience=0)

    def stop(step, model):
        if step == 4:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fit(
            Tiny(),
            X,
            VALID,
            config=dataclasses.replace(half, checkpoint_every=2),
            workdir=tmp_path,
            callback=stop,
        )
    recorder = Recorder()
    fit(Tiny(), X, VALID, config=half, workdir=tmp_path, progress=recorder)
    assert ("training", 8, 3) in recorder.told


def test_fit_is_quiet_on_request(capsys):
    fit(Tiny(), X, VALID, config=QUICK, progress=False)
    assert not capsys.readouterr().err
    assert type(as_progress(True, enabled=False)) is Progress


def test_the_display_is_there_before_jax():
    code = (
        "import sys; from trainers.run.progress import show_progress;"
        "display = show_progress(); display.phase('reading'); display._soon.join();"
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "reading\n")
