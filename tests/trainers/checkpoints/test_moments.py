"""Every moment at which a write can be cut off, and clocks that jump between the starts."""

import contextlib
import filecmp
import os
import pathlib
import shutil
import sys
import threading
import time

import numpy as np
import pytest
from flax import nnx

from tests.trainers.checkpoints.test_run import (
    CONFIG,
    Noisy,
    assert_same_run,
    flow,
    interrupt_at,
    run,
)
from trainers import load_flow, restore, save

_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink"}
_DAY = 86_400
_FEW = 6  # moments from which a run is started again


class Moments:
    """Copies of a folder as it is before each file operation in it: what a kill leaves."""

    def __init__(self, folder: pathlib.Path, copies: pathlib.Path):
        self.folder, self.copies = folder, copies
        self.found: list[pathlib.Path] = []
        self._lock, self._active = threading.Lock(), False
        sys.addaudithook(self._before)  # there is no way to remove one

    @contextlib.contextmanager
    def watched(self):
        """Copies in the block, and once at its end."""
        self._active = True
        try:
            yield
        finally:
            self._active = False
        self._copy()

    def _before(self, event, args):
        if not self._active:
            return
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in _CHANGES):
            return
        paths = [os.fspath(a) for a in args[:2] if isinstance(a, str | os.PathLike)]
        if not any(str(path).startswith(str(self.folder)) for path in paths):
            return
        with self._lock:  # what other threads are about to do waits
            self._copy()

    def _copy(self):
        copy = self.copies / f"{len(self.found):04}"
        try:
            shutil.copytree(self.folder, copy, symlinks=True)
        except (shutil.Error, FileNotFoundError):  # TensorStore's, which tell no hook
            shutil.rmtree(copy, ignore_errors=True)
            return
        if self.found and _are_same(self.found[-1], copy):
            shutil.rmtree(copy)
        else:
            self.found.append(copy)


def _are_same(one, other):
    names = [sorted(str(p.relative_to(x)) for p in x.rglob("*")) for x in (one, other)]
    files = [name for name in names[0] if (one / name).is_file()]
    if names[0] != names[1]:
        return False
    return len(filecmp.cmpfiles(one, other, files, shallow=False)[0]) == len(files)


@pytest.mark.parametrize("steps", [(0, 0), (3, 7), (7, 3)])
def test_a_save_leaves_the_old_or_the_new_model_at_every_moment(tmp_path, steps):
    place = tmp_path / "model"
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    models = [flow(seed) for seed in (0, 1)]
    old, new = (np.asarray(model.log_prob(x)) for model in models)
    assert not np.array_equal(old, new)
    save(place, models[0], step=steps[0])
    moments = Moments(place, tmp_path / "copies")
    with moments.watched():
        save(place, models[1], step=steps[1])
    assert len(moments.found) > 10
    values = [np.asarray(load_flow(copy).log_prob(x)) for copy in moments.found]
    are_new = [np.array_equal(v, new) for v in values]
    assert all(
        is_new or np.array_equal(v, old)
        for v, is_new in zip(values, are_new, strict=True)
    )
    assert are_new == sorted(are_new)
    assert {are_new[0], are_new[-1]} == {False, True}
    for copy in moments.found[:: len(moments.found) // _FEW]:
        save(copy, models[1])
        np.testing.assert_array_equal(load_flow(copy).log_prob(x), new)


def test_a_run_loses_no_step_at_any_moment(tmp_path):
    expected = run(tmp_path / "whole")
    folder, like = tmp_path / "run", Noisy(rngs=nnx.Rngs(1))
    folder.mkdir()
    moments = Moments(folder, tmp_path / "copies")
    with moments.watched():
        run(folder)
    whole = [_steps(copy) for copy in moments.found]
    assert len(whole) > 20
    last = [max(steps, default=-1) for steps in whole]
    assert last == sorted(last)
    assert last[-1] == CONFIG.num_steps
    for copy, steps in zip(moments.found, whole, strict=True):
        if steps:
            restore(copy, like, step="last")
    for copy in moments.found[:: len(moments.found) // _FEW]:
        assert_same_run(run(copy), expected, (copy, tmp_path / "whole"))


def _steps(folder):
    return [int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit()]


@pytest.mark.parametrize("days", [-1, 1, -700, 7_000])
def test_a_clock_that_jumps_between_starts_changes_nothing(tmp_path, monkeypatch, days):
    whole = run(tmp_path / "whole")
    folder, jump = tmp_path / "run", days * _DAY
    run(folder, callback=interrupt_at(8))
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + jump * 10**9)
    for path in folder.rglob("*"):
        os.utime(path, (now() - jump, now() - jump))
    assert_same_run(run(folder), whole, (folder, tmp_path / "whole"))


@pytest.mark.parametrize("days", [-1, 1, 20_000])
def test_a_clock_that_jumps_while_a_step_is_written_changes_nothing(
    tmp_path, monkeypatch, days
):
    whole = run(tmp_path / "whole")
    now = time.time

    def jump(step, model):
        if step == CONFIG.eval_every:
            monkeypatch.setattr(time, "time", lambda: now() + days * _DAY)

    result = run(tmp_path / "run", callback=jump)
    assert_same_run(result, whole, (tmp_path / "run", tmp_path / "whole"))
    assert np.diff(result.history["seconds"]).min() >= 0
