"""A command that is started again: the same line goes on, another is refused at once."""

import dataclasses
import pathlib

import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.trainers.tiny import Tiny
from trainers import CheckpointError, TrainConfig, fit
from trainers.checkpoints.identity import digest, file_digest
from trainers.checkpoints.start import find_start, keep_start
from trainers.checkpoints.variables import arrays_of

X = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
TRAIN = TrainConfig(num_steps=4, batch_size=32, eval_every=2)
WAYS_OUT = r".*`workdir` \(--workdir\), or pass `resume=False` \(--no-resume\)"


def flow(seed=0):
    return rn.coupling_flow(2, 1, num_components=2, hidden=(4,), rngs=nnx.Rngs(seed))


def identity(tmp_path, content="a,b\n1,2\n", **settings):
    """What a command decides: a file, settings of its own and those of the training."""
    file = tmp_path / "rows.csv"
    file.write_text(content)
    found = {"file": file_digest(file), "rotation": "pca", "hidden": (4,)}
    return found | {"train": vars(TRAIN)} | settings


@pytest.fixture
def workdir(tmp_path):
    """The folder of a run that is over."""
    folder, found = tmp_path / "run", identity(tmp_path)
    assert find_start(folder, found) is None
    assert not folder.exists()
    keep_start(folder, flow(), found, about={"seconds": 1.5})
    fit(flow(), X, config=TRAIN, workdir=folder, identity=found)
    return folder


def test_the_same_line_gets_its_start_back(workdir, tmp_path):
    start = find_start(workdir, identity(tmp_path))
    assert start.about == {"seconds": 1.5}
    loaded = arrays_of(start.load())
    for name, array in arrays_of(flow()).items():
        np.testing.assert_array_equal(loaded[name], array, name)
    again = fit(
        start.load(), X, config=TRAIN, workdir=workdir, identity=identity(tmp_path)
    )
    assert again.stop_reason == "completed"
    more = dataclasses.replace(TRAIN, checkpoint_every=7, max_to_keep=9)
    assert find_start(workdir, identity(tmp_path, train=vars(more))) is not None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rotation": "ica"}, r"`rotation` \('pca' there, 'ica' here\)"),
        ({"content": "a,b\n1,3\n"}, "the content of `file`"),
        ({"hidden": (4, 4)}, r"`hidden` \(\[4\] there, \[4, 4\] here\)"),
        ({"kinds": {"a": "positive"}}, r"`kinds` \(None there, .*'positive'"),
        (
            {"train": vars(dataclasses.replace(TRAIN, seed=3))},
            r"`train.seed` \(0 there, 3 here\)",
        ),
    ],
)
def test_another_line_is_refused_in_one(workdir, tmp_path, change, named):
    other = identity(tmp_path, **change)
    before = sorted(workdir.rglob("*"))
    with pytest.raises(CheckpointError, match=named + WAYS_OUT) as caught:
        find_start(workdir, other)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(CheckpointError, match=named + WAYS_OUT):
        fit(flow(), X, config=TRAIN, workdir=workdir, identity=other)
    assert sorted(workdir.rglob("*")) == before
    assert find_start(workdir, other, resume=False) is None


def test_a_new_start_replaces_the_one_before(workdir, tmp_path):
    other = identity(tmp_path, rotation="ica")
    keep_start(workdir, flow(1), other)
    with pytest.raises(CheckpointError, match="`rotation`"):
        find_start(workdir, identity(tmp_path))
    start = find_start(workdir, other)
    options = {"config": TRAIN, "workdir": workdir, "identity": other}
    with pytest.raises(CheckpointError, match="`rotation`"):
        fit(start.load(), X, **options)
    assert fit(start.load(), X, resume=False, **options).stop_reason == "completed"
    assert fit(start.load(), X, **options).stop_reason == "completed"


def test_a_run_without_a_start_is_another_one(tmp_path):
    fit(Tiny(), X, config=TRAIN, workdir=tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=r"start, which would tell .* is not there\." + WAYS_OUT
    ):
        find_start(tmp_path / "run", identity(tmp_path))


def test_a_start_that_is_damaged_says_the_ways_out(workdir, tmp_path):
    (meta,) = (workdir / "start").glob("*/meta/metadata")
    meta.write_text(meta.read_text()[:-9])
    with pytest.raises(CheckpointError, match="damaged" + WAYS_OUT):
        find_start(workdir, identity(tmp_path))


def test_digests_tell_contents_and_settings_apart(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * 1_000_000)
    other.write_bytes(b"x" * 1_000_000)
    assert file_digest(one) == file_digest(other)
    other.write_bytes(b"x" * 999_999 + b"y")
    assert file_digest(one) != file_digest(other)
    assert digest({"a": (1, 2), "b": 3}) == digest({"b": 3, "a": [1, 2]})
    assert digest({"a": pathlib.Path("x")}) != digest({"a": pathlib.Path("y")})
