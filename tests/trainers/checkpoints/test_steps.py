"""Folders of steps: renamed ones are what they say themselves; full disks cost none."""

import contextlib
import errno
import os
import resource
import sys
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.trainers.command.conftest import QUICK, command, mixed_lines
from trainers import CheckpointError, restore, save
from trainers.checkpoints.run import RunCheckpoints


class Model(nnx.Module):
    def __init__(self, value=0.0):
        self.mean = nnx.Param(jnp.full(2, value))


def tree(value):
    state = {"mean": np.full(2, value, np.float32)}
    return {"best": {"ema": state}, "state": {"ema": state, "params": state}}


def checkpoints(folder):
    identity = {"model": {"model": "Model", "config": None}}
    return RunCheckpoints(folder, identity=identity, keep=9, resume=True)


@pytest.fixture
def folder(tmp_path):
    with checkpoints(tmp_path) as run:
        for step in (5, 10, 15):
            run.write(step, tree(step), {"history": []})
    return tmp_path / "checkpoints"


def test_a_renamed_step_does_not_load_as_that_step(folder):
    (folder / "10").rename(folder / "999")
    for step in ("best", "last", 999):
        with pytest.raises(
            CheckpointError, match=r"999 .*it is step 10 .*renamed"
        ) as e:
            restore(folder, Model(), step=step)
        assert "Step 15 is whole: pass `step=15`." in str(e.value)
    assert restore(folder, Model(), step=15).mean[0] == 15


@contextlib.contextmanager
def no_room():
    """Files end after a few bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_step_that_cannot_be_written_is_one_error_and_costs_no_other(folder, caplog):
    told = rf"no step can be written to {folder}: .*File too large"
    with (
        pytest.raises(CheckpointError, match=told),
        no_room(),
        checkpoints(folder.parent) as run,
    ):
        run.write(20, tree(20), {"history": []})
    assert not [record for record in caplog.records if record.exc_info]
    assert restore(folder, Model()).mean[0] == 15
    with checkpoints(folder.parent) as run:
        run.write(20, tree(20), {"history": []})
    assert restore(folder, Model()).mean[0] == 20


def test_a_model_that_cannot_be_saved_is_one_error_and_costs_no_other(tmp_path, capfd):
    save(tmp_path / "flow", Model(3.0))
    told = (
        rf"no checkpoint can be written to {tmp_path / 'flow'}: File too large\. What"
    )
    with pytest.raises(CheckpointError, match=told), no_room():
        save(tmp_path / "flow", Model(4.0))
    assert "Traceback" not in capfd.readouterr().err
    assert restore(tmp_path / "flow", Model()).mean[0] == 3
    save(tmp_path / "flow", Model(4.0))
    assert restore(tmp_path / "flow", Model()).mean[0] == 4


def test_what_threads_of_orbax_say_of_closed_loops_is_not_shown(folder, capfd):
    """By `sys.excepthook`, as TensorStore does; another error is shown."""
    with checkpoints(folder.parent):
        for words in ("Event loop is closed", "this one counts"):
            error = RuntimeError(words)
            sys.excepthook(RuntimeError, error, None)
    assert capfd.readouterr().err == "RuntimeError: this one counts\n"
    assert sys.excepthook is sys.__excepthook__


def test_a_run_on_a_full_disk_goes_on_with_room(tmp_path):
    file, workdir = tmp_path / "rows.csv", tmp_path / "run"
    file.write_text("\n".join(mixed_lines()))
    line = ("fit", file, "--workdir", workdir, *QUICK, "--quiet")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    written = "trainers.checkpoints.run.on_disk.write_step"
    with mock.patch(written, side_effect=full):
        ended = command(*line)
    told = f"rbig-nnx: no step can be written to {workdir / 'checkpoints'}: "
    assert ended.code == 2, ended.err
    assert ended.err.startswith(f"{told}No space left on device. What was")
    assert ended.err.count("\n") == 1
    assert command(*line).code == 0


def test_exchanged_steps_do_not_load_as_each_other(folder):
    for old, new in (("15", "aside"), ("10", "15"), ("aside", "10")):
        (folder / old).rename(folder / new)
    for step in (15, 10):
        with pytest.raises(CheckpointError, match="renamed"):
            restore(folder, Model(), step=step)


def test_arrays_of_another_step_are_found_out(folder):
    (folder / "15" / "arrays").rename(folder / "aside")
    (folder / "10" / "arrays").rename(folder / "15" / "arrays")
    with pytest.raises(CheckpointError, match="the checksum does not match"):
        restore(folder, Model())


def test_a_run_goes_on_before_a_renamed_step(folder):
    (folder / "15").rename(folder / "18")
    with (
        pytest.warns(RuntimeWarning, match="it is step 15 .*goes on from step 10"),
        checkpoints(folder.parent) as run,
    ):
        saved = run.newest(tree(0))
    assert (saved.step, saved.tree["best"]["ema"]["mean"][0]) == (10, 10)
    assert (folder.with_name("checkpoints.damaged") / "18").is_dir()


def test_what_orbax_misses_of_a_step_that_was_cut_off_is_not_shown(folder, caplog):
    (folder / "15" / "_CHECKPOINT_METADATA").unlink()
    with checkpoints(folder.parent) as run:
        run.write(20, tree(20), {"history": []})
    assert restore(folder, Model(), step=15).mean[0] == 15
    assert not caplog.records


def test_a_saved_model_has_the_step_it_says(tmp_path):
    save(tmp_path, Model(3.0), step=7)
    (tmp_path / "7").rename(tmp_path / "8")  # also what a `save` that was killed leaves
    assert restore(tmp_path, Model(), step=7).mean[0] == 3
    with pytest.raises(CheckpointError, match=r"`step` must be .*; got 8"):
        restore(tmp_path, Model(), step=8)


def test_what_is_no_step_is_passed_over(folder):
    (folder / "999").touch()
    (folder / "998").symlink_to("998")
    (folder / "997").symlink_to("none")
    (folder / "996").mkdir()
    (folder / "²").mkdir()
    (folder / "²" / "a").touch()
    assert restore(folder, Model()).mean[0] == 15
    with checkpoints(folder.parent) as run:
        run.check()
