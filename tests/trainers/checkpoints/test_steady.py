"""Readers beside another process that saves to the same folder."""

import functools

import pytest

from tests.trainers.checkpoints.test_model import assert_same, build
from trainers import CheckpointError, load_flow, restore, save
from trainers.checkpoints import format as on_disk
from trainers.checkpoints import model as models
from trainers.checkpoints.steps import steady

# On a loaded machine Orbax's abandoned reads can outlive the error of the first one.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


class Others:
    """Others who save, at most `times`, when a reader has come to a function of `format`."""

    def __init__(self, monkeypatch, name, saving, *, times=1, after=False):
        self.left, self._saving, self._after = times, saving, after
        self._original = getattr(on_disk, name)
        monkeypatch.setattr(on_disk, name, self)

    def __call__(self, *args, **kwargs):
        call = functools.partial(self._original, *args, **kwargs)
        if not self.left:
            return call()
        if not self._after:
            self._save()
            return call()
        result = call()
        self._save()
        return result

    def _save(self):
        left, self.left = self.left, 0  # what `save` itself calls
        self._saving()
        self.left = left - 1


READERS = {
    "load_flow": load_flow,
    "restore": lambda path: restore(path, build(seed=9)),
    "about": lambda path: models.load_with_about(path)[0],
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("moment", ["is_finished", "read_meta", "read_arrays"])
@pytest.mark.parametrize("steps", [(0, 0), (0, 3)])
def test_a_save_between_two_reads_is_no_damage(
    tmp_path, monkeypatch, moment, steps, read
):
    save(tmp_path, build(seed=1), step=steps[0], about={"n": 1})
    new = build(seed=2, num_components=3 if read is not READERS["restore"] else 2)
    Others(monkeypatch, moment, lambda: save(tmp_path, new, step=steps[1]))
    assert_same(read(tmp_path), new)


@pytest.mark.parametrize("moment", ["read_meta", "read_arrays"])
def test_what_was_kept_is_that_of_the_flow(tmp_path, monkeypatch, moment):
    save(tmp_path, build(seed=1), about={"seed": 1})
    other = functools.partial(save, tmp_path, build(seed=2), about={"seed": 2})
    Others(monkeypatch, moment, other, after=True)
    flow, about = models.load_with_about(tmp_path)
    assert_same(flow, build(seed=about["seed"]))
    assert models.read_about(tmp_path) == {"seed": 2}


def test_who_never_finds_one_that_stays_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(steady, "_TRIES", 2)
    save(tmp_path, build(seed=1))
    models_in_turn = iter([build(seed=2), build(seed=3)])

    def again():
        save(tmp_path, next(models_in_turn))

    others = Others(monkeypatch, "read_arrays", again, times=2)
    told = r"`path` must hold a checkpoint that stays .* at each of 2 tries\. Try again"
    with pytest.raises(CheckpointError, match=told):
        load_flow(tmp_path)
    assert others.left == 0
    assert_same(load_flow(tmp_path), build(seed=3))


@pytest.fixture
def count(monkeypatch):
    """How often a checkpoint was looked for."""
    seen, find = [], models.find_source

    def found(*args, **kwargs):
        seen.append(args)
        return find(*args, **kwargs)

    monkeypatch.setattr(models, "find_source", found)
    return lambda: len(seen)


def test_what_stays_damaged_is_read_once(tmp_path, count):
    save(tmp_path, build(seed=1))
    file = tmp_path / "0" / "meta" / "metadata"
    file.write_text(file.read_text().replace('"num_features": 2', '"num_features": 3'))
    with pytest.raises(CheckpointError, match="checksum of its `meta` item"):
        load_flow(tmp_path)
    assert count() == 1


def test_a_later_step_beside_costs_a_reader_nothing(tmp_path, monkeypatch, count):
    save(tmp_path, build(seed=1))
    Others(monkeypatch, "read_arrays", (tmp_path / "5").mkdir)
    assert_same(load_flow(tmp_path), build(seed=1))
    assert count() == 1
