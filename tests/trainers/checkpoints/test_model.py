import distrax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn import config
from tests.nn.users import Loud
from trainers import CheckpointError, FlowDensity, load_flow, restore, save
from trainers.checkpoints.variables import arrays_of

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


def test_scanned_blocks_come_back(tmp_path):
    scanned = build(seed=3, scan_blocks=True)
    save(tmp_path / "flow", scanned)
    assert_same(load_flow(tmp_path / "flow"), scanned)
    with pytest.raises(CheckpointError, match=r"layers\.1\.layers\.0\.vectors"):
        restore(tmp_path / "flow", build(scan_blocks=False))


class Shifted(rn.GaussianizationFlow):
    """Somebody's flow with another density."""

    def log_prob(self, x, context=None):
        return super().log_prob(x, context) - 1


def test_a_subclass_does_not_come_back_as_a_plain_flow(tmp_path, monkeypatch):
    flow = Shifted(list(build(seed=3).layers))
    save(tmp_path / "own", flow)
    # As earlier releases did, with the configuration of the plain flow.
    plain = rn.to_config(build())
    with monkeypatch.context() as patch:
        patch.setattr(rn, "to_config", lambda flow: plain)
        save(tmp_path / "earlier", flow)
    for name in ("own", "earlier"):
        message = r"is of a Shifted.*trainers.restore\(path, model\)"
        with pytest.raises(CheckpointError, match=message):
            load_flow(tmp_path / name)
        like = Shifted(list(build().layers))
        found = restore(tmp_path / name, like)
        assert type(found) is Shifted
        assert_same(found, flow)


class Scale(nnx.Module):
    """Somebody's layer, registered or not."""

    def __init__(self, width, *, rngs=None):
        self.log_scale = nnx.Param(jnp.ones(width))

    def bijector(self, context=None):
        return distrax.Block(
            distrax.ScalarAffine(0.0, log_scale=self.log_scale[...]), 1
        )

    def config(self):
        return {"width": len(self.log_scale)}


def test_a_layer_of_ones_own_comes_back_once_it_is_registered(tmp_path, monkeypatch):
    flow = rn.GaussianizationFlow([Scale(2), *build(seed=3).layers])
    save(tmp_path / "unknown", flow)
    with pytest.raises(CheckpointError, match=r"has layers of your own.*restore\("):
        load_flow(tmp_path / "unknown")
    with monkeypatch.context() as patch:
        patch.setattr(config, "_LAYERS", dict(config._LAYERS))
        rn.register_layer(Scale)
        save(tmp_path / "flow", flow)
        found = load_flow(tmp_path / "flow")
        assert type(found.layers[0]) is Scale
        assert_same(found, flow)
        halves = jax.tree.map(lambda a: a.astype(jnp.bfloat16), flow)
        save(tmp_path / "halves", halves)
        with pytest.raises(
            CheckpointError, match=r"log_scale \(bfloat16, not float32\)"
        ):
            load_flow(tmp_path / "halves")
    with pytest.raises(CheckpointError, match=r"got 'Scale'\. Register a layer"):
        load_flow(tmp_path / "flow")


def test_an_exchanged_network_does_not_come_back_as_the_default(tmp_path):
    flow = build(seed=3)
    flow.layers[2].conditioner.trunk.layers[0] = Loud(1, 4, rngs=nnx.Rngs(0))
    save(tmp_path / "flow", flow)  # the same arrays, another map
    with pytest.raises(CheckpointError, match=r"has layers of your own.*restore\("):
        load_flow(tmp_path / "flow")


def test_the_dtype_comes_back(tmp_path):
    with jax.enable_x64(True):
        flow = build(seed=3, param_dtype=jnp.float64, context_features=1)
        save(tmp_path / "flow", flow)
        found = load_flow(tmp_path / "flow")
        assert {a.dtype for a in arrays_of(found).values()} == {np.dtype(np.float64)}
        assert_same(found, flow)
    with pytest.raises(CheckpointError, match=r"holds float64.*JAX_ENABLE_X64=1, or"):
        load_flow(tmp_path / "flow")
    narrow = restore(tmp_path / "flow", build(context_features=1))
    assert {a.dtype for a in arrays_of(narrow).values()} == {np.dtype(np.float32)}


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


def test_a_variable_may_hold_a_tree(tmp_path):
    class Quantised(nnx.Module):
        def __init__(self, seed):
            steps = np.random.default_rng(seed).integers(-127, 127, (2, 3))
            steps = jnp.asarray(steps, jnp.int8)
            self.kernel = nnx.Param({"steps": steps, "scale": jnp.float32(seed)})

    save(tmp_path / "kernel", Quantised(1))
    for like in (Quantised(2), nnx.eval_shape(lambda: Quantised(2))):
        found = restore(tmp_path / "kernel", like).kernel.get_value()
        assert found["scale"] == 1.0
        assert found["steps"].dtype == jnp.int8
        wanted = Quantised(1).kernel.get_value()["steps"]
        np.testing.assert_array_equal(found["steps"], wanted)


def test_another_shape_is_named(saved):
    with pytest.raises(
        CheckpointError, match=r"mismatched: .*kernel: shape .* in the checkpoint and"
    ):
        restore(saved, build(hidden=(5,)))


class Parts(nnx.Module):
    """Arrays of ones by name, of the given widths."""

    def __init__(self, **widths):
        for name, width in widths.items():
            setattr(self, name, nnx.Param(jnp.ones(width)))


def test_what_does_not_agree_is_told_in_three_lists(tmp_path):
    save(tmp_path / "parts", Parts(same=2, wider=3, old=1))
    model = jax.tree.map(jnp.zeros_like, Parts(same=2, wider=4, new=1))
    lists = (
        r"not restored: missing in the checkpoint: new; unexpected in the model: old;"
        r" mismatched: wider: shape \(3,\) in the checkpoint and \(4,\) in the model$"
    )
    with pytest.warns(UserWarning, match=lists):
        mixed = restore(tmp_path / "parts", model, strict=False)
    found = {name: float(array.sum()) for name, array in arrays_of(mixed).items()}
    assert found == {"same": 2.0, "wider": 0.0, "new": 0.0}
    assert float(restore(tmp_path / "parts", model, only=["same"]).same.sum()) == 2.0


def test_a_model_with_nothing_in_common_is_refused(saved):
    with pytest.raises(CheckpointError, match="no array in common"):
        restore(saved, nnx.Linear(2, 2, rngs=nnx.Rngs(0)), strict=False)


def test_saving_again_replaces(tmp_path):
    save(tmp_path / "flow", build(seed=1))
    save(tmp_path / "flow", build(seed=2))
    assert_same(load_flow(tmp_path / "flow"), build(seed=2))
    assert [p.name for p in tmp_path.iterdir()] == ["flow"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": -1}, "`step` must be at least 0; got -1"),
        ({"step": 2.5}, "`step` must be a whole number; got 2.5"),
        ({"step": True}, "`step` must be a whole number; got True"),
        ({"step": 2**63}, "`step` must be at most 46116860184.*; got 92233720368"),
        ({"about": {"a": {1}}}, "`about` must be a mapping that JSON holds: .* set"),
        ({"about": [1]}, "`about` must be a mapping that JSON holds"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "flow", build(), **wrong)
    assert not list(tmp_path.iterdir())
    save(tmp_path / "flow", build(), step=np.int64(3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (np.ones(3), r"be an nnx\.Module; got a ndarray\. Build one first\."),
        (
            FlowDensity(),
            r"be an nnx\.Module; got a FlowDensity\. Call its own `save`\.",
        ),
        (Parts, r"be an nnx\.Module; got the class Parts\. Build one first\."),
        (Parts(), r"hold arrays; got a Parts without any\. Hold them in nnx\.Variable"),
        (Parts(none=0), r"hold arrays; got a Parts without any"),
        (None, "hold arrays; got a NoneType without any"),
    ],
)
def test_what_holds_no_arrays_is_refused_before_anything_is(tmp_path, model, message):
    with pytest.raises(ValueError, match=f"^`model` must {message}"):
        save(tmp_path / "flow", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file/flow", "file/a/b"])
def test_a_path_under_a_file_is_told(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    told = rf"^`path` must be a folder .*; got {tmp_path / name}: Not a directory\."
    with pytest.raises(ValueError, match=told):
        save(tmp_path / name, build())


def test_saving_over_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        save(tmp_path, build())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="which is not there"):
        load_flow(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="which is a file"):
        load_flow(tmp_path / "file")
    with pytest.raises(CheckpointError, match="which holds none"):
        load_flow(tmp_path)


def test_empty_arrays_are_saved(tmp_path):
    class Hollow(nnx.Module):
        def __init__(self, value):
            self.none = nnx.Param(jnp.zeros((0, 3)))
            self.some = nnx.Param(jnp.full(2, value))

    save(tmp_path / "hollow", Hollow(1.0))
    assert_same(restore(tmp_path / "hollow", Hollow(0.0)), Hollow(1.0))


def test_patterns_restore_a_subset(saved):
    other = build(seed=1)
    stored, mine = arrays_of(build(seed=3)), arrays_of(other)
    kernels = [name for name in mine if name.endswith(".kernel")]
    result = arrays_of(restore(saved, other, only=("*.kernel",)))
    assert 0 < len(kernels) < len(mine)
    for name in mine:
        expected = stored if name in kernels else mine
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)
    with pytest.raises(ValueError, match=r"`only` must match .*\['kernels'\]"):
        restore(saved, other, only=("kernels", "*.kernel"))


def test_one_pattern_may_be_a_text(saved):
    one, other = restore(saved, build(), only="*.kernel"), build()
    assert_same(one, restore(saved, other, only=("*.kernel",)))
    with pytest.raises(ValueError, match=r"`only` must match .* got \['\*\.mu'\]"):
        restore(saved, other, only="*.mu")


@pytest.mark.parametrize(
    ("model", "came"),
    [
        ("x", r"a str\. Build one first\."),
        (rn.GaussianizationFlow, r"the class GaussianizationFlow\. Build one first\."),
        (rn.coupling_flow, r"a function\. Build one first\."),
        (FlowDensity(), r"a FlowDensity\. Call its own `load`\."),
    ],
)
def test_what_cannot_be_restored_into_is_told(saved, model, came):
    with pytest.raises(ValueError, match=f"^`model` must be an nnx.Module; got {came}"):
        restore(saved, model)


def test_a_state_is_saved_as_its_module(tmp_path):
    save(tmp_path / "state", nnx.state(build(seed=3)))
    assert_same(restore(tmp_path / "state", build()), build(seed=3))


def test_a_saved_model_has_one_set_of_weights(saved):
    with pytest.raises(CheckpointError, match="`weights` must be 'ema'"):
        load_flow(saved, weights="raw")
    with pytest.raises(ValueError, match="`weights` must be 'ema' or 'raw'"):
        load_flow(saved, weights="mean")


def test_somebody_elses_checkpoint_is_refused(tmp_path):
    with ocp.CheckpointManager(tmp_path / "theirs") as manager:
        manager.save(0, args=ocp.args.StandardSave({"a": np.ones(3)}))
    with pytest.raises(CheckpointError, match="no checkpoint of this library"):
        load_flow(tmp_path / "theirs")


def test_a_save_that_was_killed_is_cleared_away(tmp_path):
    save(tmp_path / "model", build(), step=5)
    (tmp_path / "model" / "5.orbax-checkpoint-tmp").mkdir()
    save(tmp_path / "model", build(), step=5)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["5"]
