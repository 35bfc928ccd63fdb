"""Models and runs in a bucket: a storage emulator on this machine stands for it."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import time
from unittest import mock

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from tests.slow import slow
from tests.trainers.checkpoints.test_kill import finish, start
from tests.trainers.command.conftest import QUICK as OPTIONS
from tests.trainers.command.conftest import SETTINGS, command, mixed_lines
from tests.trainers.layouts import QUICK, VALID, X, assert_same_run, flow, mesh_of
from tests.trainers.tiny import Tiny
from trainers import CheckpointError, fit, load_flow, paths, restore, save
from trainers.checkpoints.variables import arrays_of

CONFIG = dataclasses.replace(QUICK, checkpoint_every=2)


def weights(model):
    return np.concatenate([np.ravel(a) for _, a in sorted(arrays_of(model).items())])


@pytest.mark.parametrize("kind", [slow(str), epath.Path, slow(pathlib.Path)])
def test_a_model_is_replaced_by_a_whole_one(bucket, kind):
    place = kind(str(bucket))
    for blocks in (1, 2):
        saved = flow(num_blocks=blocks)
        save(place, saved, step=3)
        np.testing.assert_array_equal(weights(load_flow(place, step=3)), weights(saved))
    assert len(list(bucket.iterdir())) == 1


@pytest.mark.slow
def test_a_killed_save_leaves_the_earlier_model(bucket, monkeypatch):
    save(bucket, flow(num_blocks=2), step=1)
    whole = "trainers.checkpoints.model.replace_others"
    with (
        mock.patch(whole, side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        save(bucket, flow(), step=1)
    (step,) = (p for p in bucket.iterdir() if p.name == "2")
    (step / "commit_success.txt").unlink()  # as if it had been killed before
    assert len(load_flow(bucket).layers) == len(flow(num_blocks=2).layers)
    save(bucket, flow(), step=1)
    assert len(load_flow(bucket).layers) == len(flow().layers)
    assert len(list(bucket.iterdir())) == 1


def test_flipped_bits_are_found(bucket):
    save(bucket, Tiny())
    flip(bucket / "0")
    with pytest.raises(CheckpointError, match="damaged"):
        restore(bucket, Tiny())


def test_what_is_not_read_back_is_no_success(bucket):
    with mock.patch("trainers.checkpoints.model.on_disk.read_arrays") as read:
        read.side_effect = CheckpointError("damaged")
        with pytest.raises(CheckpointError, match="damaged"):
            save(bucket, Tiny())


def flip(step):
    """Damages the numbers of a step."""
    for array in (step / "arrays").iterdir():
        for file in array.iterdir() if array.is_dir() else ():
            if not file.name.startswith("."):  # as its description does
                content = bytearray(file.read_bytes())
                content[len(content) // 2] ^= 255
                file.write_bytes(bytes(content))


@pytest.mark.slow
def test_a_run_goes_on_without_its_damaged_step_and_on_another_layout(bucket, tmp_path):
    def stop(step, model):
        if step == 8:
            raise RuntimeError("stopped")

    run = functools.partial(fit, Tiny(), X, VALID, config=CONFIG)
    whole = run()
    with pytest.raises(RuntimeError, match="stopped"):
        run(workdir=bucket, callback=stop)
    lines = (bucket / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 4, 8]
    steps = sorted(int(p.name) for p in (bucket / "checkpoints").iterdir())
    flip(bucket / "checkpoints" / str(steps[-1]))
    with pytest.warns(RuntimeWarning, match=r"checkpoints\.damaged"):
        result = run(workdir=bucket, mesh=mesh_of(8))
    assert (bucket / "checkpoints.damaged" / str(steps[-1])).is_dir()
    assert_same_run(result.history, whole.history, rtol=2e-5, atol=2e-5)
    lines = (bucket / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 4, 8]
    everywhere = jax.NamedSharding(mesh_of(8), jax.P())
    spread = restore(bucket, nnx.eval_shape(Tiny), shardings=everywhere)
    np.testing.assert_array_equal(weights(spread), weights(result.model))
    assert len(spread.vectors[...].devices()) == 8
    run(workdir=bucket, resume=False)
    assert (bucket / "checkpoints.previous").is_dir()


@pytest.mark.slow
def test_the_command_keeps_its_run_in_a_bucket(bucket, tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    file.write_text("\n".join(mixed_lines()))
    fit_file = ("fit", file, "--workdir", bucket, *OPTIONS, "--quiet")
    first, again = command(*fit_file), command(*fit_file)
    assert (first.code, again.code) == (0, 0), first.err + again.err
    scores, drawn = bucket / "tables/scores.npy", bucket / "tables/drawn.csv.gz"
    for job in (
        ("report", bucket),
        ("info", bucket),
        ("score", bucket, file, "--out", scores),
        ("sample", bucket, drawn, "-n", 20),
        ("score", bucket, drawn),
    ):
        ended = command(*job)
        assert ended.code == 0, ended.err
    with scores.open("rb") as written:
        assert np.isfinite(np.load(written)).any()
    itself = command("score", bucket, drawn, "--out", drawn)
    assert itself.code == 2
    assert "--out to write must be another file" in itself.err
    measured = command("information", drawn, *SETTINGS, "--workdir", bucket / "again")
    assert measured.code == 0, measured.err
    nowhere = command("score", bucket, file, "--out", "gs://no-bucket/scores.csv")
    assert nowhere.code == 2
    assert "--out must be in a bucket that you may write to" in nowhere.err
    names = {p.name for p in bucket.iterdir()}
    assert {"report.json", "flow", "start", "checkpoints", "metrics.jsonl"} <= names


@pytest.mark.slow
def test_kills_change_nothing(bucket, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    run = functools.partial(start, cache=folder / "cache", every=400)
    expected = finish(run(folder / "whole"))
    for _ in range(3):
        with run(bucket) as process:
            reached = newest(bucket)
            while newest(bucket) <= reached and process.poll() is None:
                time.sleep(0.02)
            assert process.poll() is None, "it ended before the kill"
            process.kill()
    assert finish(run(bucket)) == expected


def newest(bucket):
    paths.look_again(bucket)
    folder = bucket / "checkpoints"
    with contextlib.suppress(FileNotFoundError):  # it may be between two looks
        return max((int(p.name) for p in folder.iterdir()), default=-1)
    return -1


def test_a_bucket_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(mixed_lines(20)))
    place = "gs://some-bucket/model"
    calls = (
        lambda: save(place, Tiny()),
        lambda: save(epath.Path(place), Tiny()),
        lambda: load_flow(place),
        lambda: fit(Tiny(), X, config=CONFIG, workdir=place),
    )
    with mock.patch("importlib.util.find_spec", return_value=None):
        for call in calls:
            with pytest.raises(ImportError, match=r"pip install 'rbig-nnx\[gcs\]'"):
                call()
        ended = command("fit", file, "--workdir", place)
    assert ended.code == 2
    assert "rbig-nnx[gcs]" in ended.err
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("place", ["http://some/model", "gcs://some/model"])
def test_other_addresses_are_no_folders(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"\(gs:// and s3://\); got"):
        save(place, Tiny())
    assert not list(tmp_path.iterdir())
