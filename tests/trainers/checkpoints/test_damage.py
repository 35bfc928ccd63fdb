"""Bits, ends and parts of a checkpoint that are no longer what was written."""

import json
import logging
import shutil

import pytest

from tests.trainers.checkpoints.test_model import assert_same, build
from trainers import CheckpointError, load_flow, save
from trainers.checkpoints.failures import without_echoes

# On a loaded machine Orbax's abandoned reads can outlive the error of the first one.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def damaged(tmp_path):
    save(tmp_path / "flow", build(seed=3))
    return tmp_path / "flow"


def test_an_unfinished_write_is_not_a_checkpoint(damaged):
    (damaged / "9").mkdir()
    shutil.copytree(damaged / "0", damaged / "8.orbax-checkpoint-tmp")
    assert_same(load_flow(damaged), build(seed=3))
    assert_same(load_flow(damaged, step="last"), build(seed=3))


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_flipped_bits_are_found(damaged, part):
    # Orbax finds some of these itself; the others would come back as other numbers.
    for file in (damaged / "0" / "arrays").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[int(len(content) * part)] ^= 0x40
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_flow(damaged)


def test_changed_arrays_are_named_by_their_checksums(damaged):
    # A whole checkpoint of other numbers beside the description of these.
    other = damaged.parent / "other"
    save(other, build(seed=4))
    shutil.rmtree(damaged / "0" / "arrays")
    shutil.copytree(other / "0" / "arrays", damaged / "0" / "arrays")
    with pytest.raises(CheckpointError, match=r"checksum does not match for model\."):
        load_flow(damaged)


def test_a_changed_description_is_found(damaged):
    file = damaged / "0" / "meta" / "metadata"
    text = file.read_text()
    assert '"num_features": 2' in text
    file.write_text(text.replace('"num_features": 2', '"num_features": 3'))
    with pytest.raises(CheckpointError, match="checksum of its `meta` item"):
        load_flow(damaged)


def test_truncated_arrays_are_found(damaged):
    for file in (damaged / "0" / "arrays").rglob("d/*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_flow(damaged)


def test_truncated_meta_is_found(damaged):
    file = damaged / "0" / "meta" / "metadata"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(CheckpointError, match="does not parse"):
        load_flow(damaged)


def test_a_later_format_is_refused(damaged):
    file = damaged / "0" / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 99}))
    with pytest.raises(CheckpointError, match=r"format version 99.*reads version 2"):
        load_flow(damaged)


def test_reads_that_end_after_the_error_are_not_told(caplog):
    with pytest.raises(OSError, match="gone"), without_echoes():
        raise OSError("gone")
    logger, lost = logging.getLogger("asyncio"), "Task exception was never retrieved"
    logger.error("%s: NOT_FOUND [tensorstore_spec={}]", lost)
    logger.error("%s: mine", lost)
    assert [record.getMessage() for record in caplog.records] == [f"{lost}: mine"]
