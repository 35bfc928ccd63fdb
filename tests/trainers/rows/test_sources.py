"""What counts as a file that is read by parts, and what as rows in memory."""

import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from trainers import RowFiles, TrainConfig, fit
from trainers.rows.sources import as_source

X = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)


def test_rows_of_a_map_that_was_changed_in_memory_are_those(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped *= 10
    assert as_source(mapped, seed=0) is None
    shared = np.load(tmp_path / "x.npy", mmap_mode="r+")
    shared *= 10
    source = as_source(shared, seed=0)
    assert isinstance(source, RowFiles)
    np.testing.assert_array_equal(
        np.sort(source.sample(100, seed=0), 0)[-1], (X * 10).max(0)
    )


def test_files_are_not_read_for_a_part_of_a_map(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert RowFiles(mapped).num_rows == 100
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    for part in (mapped[:50], mapped[::-1], changed):
        with pytest.raises(
            ValueError, match=r"`path` must be a map of a whole \.npy file"
        ):
            RowFiles(part)


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_map_of_a_file_without_a_header_is_an_array(tmp_path, start):
    (tmp_path / "x.bin").write_bytes(start.ljust(8, b"\0") + X.tobytes())
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "r", offset=8, shape=X.shape)
    assert as_source(mapped, seed=0) is None


def test_a_flow_trains_on_a_map_of_a_file_without_a_header(tmp_path):
    X.tofile(tmp_path / "x.bin")
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "r", shape=X.shape)
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    config = TrainConfig(num_steps=1, eval_every=1, batch_size=32)
    one, two = (fit(flow, x, config=config, progress=False) for x in (mapped, X))
    np.testing.assert_array_equal(one.history["train"], two.history["train"])
