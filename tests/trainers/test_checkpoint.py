import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import rbig_nnx as rn
from trainers import CheckpointError, load_flow, restore, save
from trainers.checkpoint import CheckpointWriter, arrays_of

# On a loaded machine Orbax's abandoned reads can outlive the error of the first one.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def build(seed=0, **change):
    arguments = {"num_components": 2, "hidden": (4,)} | change
    return rn.coupling_flow(2, 1, **arguments, rngs=nnx.Rngs(seed))


class Tower(nnx.Module):
    """Somebody's model: a flow inside, dropout, and a list of layers."""

    def __init__(self, width, *, rngs):
        self.layers = nnx.List([nnx.Linear(3, width, rngs=rngs) for _ in range(11)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.flow = build()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "flow"
    save(path, build(seed=3))
    return path


@pytest.fixture
def damaged(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "flow")


def assert_same(one, two):
    one, two = arrays_of(one), arrays_of(two)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_a_flow_comes_back_bit_for_bit(saved):
    flow = load_flow(saved)
    assert_same(flow, build(seed=3))
    x = jnp.array([[0.3, -1.0]])
    np.testing.assert_array_equal(flow.log_prob(x), build(seed=3).log_prob(x))


def test_a_restored_model_is_bound_to_no_device(saved):
    flow = load_flow(saved)
    other = jax.device_put(jnp.ones((1, 2)), jax.devices()[-1])
    assert flow.log_prob(other).devices() == {jax.devices()[-1]}


def test_any_module_restores_into_its_like(tmp_path):
    model = Tower(2, rngs=nnx.Rngs(1))
    save(tmp_path / "tower", model)
    like = Tower(2, rngs=nnx.Rngs(2))
    before = arrays_of(like)
    assert_same(restore(tmp_path / "tower", like), model)
    for name, array in before.items():
        np.testing.assert_array_equal(array, arrays_of(like)[name])
    with pytest.raises(CheckpointError, match=r"is of a Tower.*trainers.restore"):
        load_flow(tmp_path / "tower")


def test_another_shape_is_named(saved):
    with pytest.raises(CheckpointError, match=r"shape .* in the checkpoint and"):
        restore(saved, build(hidden=(5,)))


def test_part_of_a_model_restores_with_a_list_of_the_rest(saved):
    other = build(seed=1, hidden=(5,))
    with pytest.warns(UserWarning, match="not restored: .*kernel: shape"):
        mixed = restore(saved, other, strict=False)
    stored, mine, result = map(arrays_of, (build(seed=3), other, mixed))
    fits = [k for k in mine if mine[k].shape == stored[k].shape]
    assert 0 < len(fits) < len(mine)
    for name in mine:
        expected = stored if name in fits else mine
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)


def test_a_model_with_nothing_in_common_is_refused(saved):
    with pytest.raises(CheckpointError, match="no array in common"):
        restore(saved, nnx.Linear(2, 2, rngs=nnx.Rngs(0)), strict=False)


def test_saving_again_replaces(tmp_path):
    save(tmp_path / "flow", build(seed=1))
    save(tmp_path / "flow", build(seed=2))
    assert_same(load_flow(tmp_path / "flow"), build(seed=2))
    assert [p.name for p in tmp_path.iterdir()] == ["flow"]


def test_saving_over_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        save(tmp_path, build())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_keeps_the_best_and_the_last(tmp_path):
    with CheckpointWriter(tmp_path) as writer:
        for step, score in ((1, -3.0), (2, -1.0), (3, float("nan")), (4, -2.0)):
            writer.write(step, build(seed=step), score=score)
    assert_same(load_flow(tmp_path), build(seed=2))
    assert_same(load_flow(tmp_path, step="last"), build(seed=4))
    assert_same(load_flow(tmp_path, step=4), build(seed=4))
    with pytest.raises(CheckpointError, match=r"`step` must be one of \[2, 4\]"):
        load_flow(tmp_path, step=1)


def test_an_unfinished_write_is_not_a_checkpoint(damaged):
    (damaged / "9").mkdir()
    shutil.copytree(damaged / "0", damaged / "8.orbax-checkpoint-tmp")
    assert_same(load_flow(damaged), build(seed=3))
    assert_same(load_flow(damaged, step="last"), build(seed=3))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="which is not there"):
        load_flow(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="which is a file"):
        load_flow(tmp_path / "file")
    with pytest.raises(CheckpointError, match="which holds none"):
        load_flow(tmp_path)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_flipped_bits_are_found(damaged, part):
    # Orbax finds some of these itself; the others would come back as other numbers.
    for file in (damaged / "0" / "model").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[int(len(content) * part)] ^= 0x40
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_flow(damaged)


def test_a_wrong_checksum_is_found(damaged):
    file = damaged / "0" / "meta" / "metadata"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps(meta | {"checksum": meta["checksum"] ^ 1}))
    with pytest.raises(CheckpointError, match="checksum of its arrays"):
        load_flow(damaged)


def test_truncated_arrays_are_found(damaged):
    for file in (damaged / "0" / "model").rglob("d/*"):
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
    with pytest.raises(CheckpointError, match=r"format version 99.*reads version 1"):
        load_flow(damaged)


def test_somebody_elses_checkpoint_is_refused(tmp_path):
    with ocp.CheckpointManager(tmp_path / "theirs") as manager:
        manager.save(0, args=ocp.args.StandardSave({"a": np.ones(3)}))
    with pytest.raises(CheckpointError, match="no checkpoint of this library"):
        load_flow(tmp_path / "theirs")
