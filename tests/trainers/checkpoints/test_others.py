"""Checkpoints of others, models that were never allocated, parts and other names."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, traverse_util

import rbig_nnx as rn
from tests.golden.regenerate import HERE as GOLDEN
from tests.slow import slow
from trainers import CheckpointError, load_flow, restore, save
from trainers.checkpoints.variables import arrays_of


def build(seed=0, **change):
    arguments = {"num_components": 2, "hidden": (8,)} | change
    return rn.coupling_flow(2, 1, **arguments, rngs=nnx.Rngs(seed))


class Tower(nnx.Module):
    """Somebody's model: an encoder, a flow, and a random stream."""

    def __init__(self, seed=0):
        self.encoder = nnx.Linear(3, 2, rngs=nnx.Rngs(seed))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))
        self.flow = build(seed)


def assert_same(one, two):
    one, two = arrays_of(one), arrays_of(two)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "flow"
    save(path, build(seed=3))
    return path


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tower"
    save(path, Tower(seed=3))
    return path


def over(count=8):
    return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


def test_a_model_that_was_never_allocated_says_what_to_restore(saved, tower):
    assert_same(restore(saved, nnx.eval_shape(build)), build(seed=3))
    found = restore(tower, nnx.eval_shape(Tower))
    assert_same(found, Tower(seed=3))
    np.testing.assert_array_equal(
        found.dropout(jnp.ones(9)), Tower(3).dropout(jnp.ones(9))
    )


def test_it_may_say_where_arrays_lie(saved):
    mesh = over()
    abstract = nnx.eval_shape(build)
    place = jax.NamedSharding(mesh, jax.P())
    kernels = jax.NamedSharding(mesh, jax.P("data"))
    graphdef, state = nnx.split(abstract)

    def placed(path, leaf):
        there = kernels if leaf.shape == (8, 6) else place
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there)

    state = jax.tree_util.tree_map_with_path(placed, state)
    found = restore(saved, nnx.merge(graphdef, state))
    assert_same(found, build(seed=3))
    assert found.layers[2].conditioner.out.kernel.get_value().sharding == kernels
    assert found.layers[1].vectors.get_value().sharding == place
    # What lies on several devices stays there.
    again = restore(saved, jax.tree.map(jnp.zeros_like, found))
    assert again.layers[2].conditioner.out.kernel.get_value().sharding == kernels


@pytest.mark.parametrize("form", ["one", "state", "dictionary", "names"])
def test_shardings_of_several_forms(saved, form):
    one = jax.NamedSharding(over(2), jax.P())
    tree = {
        "one": lambda: one,
        "state": lambda: jax.tree.map(lambda _: one, nnx.state(build())),
        "dictionary": lambda: {"layers": {1: {"vectors": one}}},
        "names": lambda: {"layers.1.vectors": one},
    }[form]()
    found = restore(saved, nnx.eval_shape(build), shardings=tree)
    assert_same(found, build(seed=3))
    where = {
        n.get_value().sharding == one
        for n in jax.tree.leaves(
            found, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable)
        )
    }
    assert where == ({True} if form in ("one", "state") else {True, False})


def test_shardings_that_fit_nothing_are_named(saved):
    mesh = over(4)
    for shardings, message in (
        (jax.NamedSharding(mesh, jax.P("data")), r"must divide layers\.0\.log_scale"),
        ({"layer": jax.NamedSharding(mesh, jax.P())}, "`shardings` must have names of"),
        ({"layers": jax.P()}, "got P for layers. Use jax.NamedSharding"),
    ):
        with pytest.raises(ValueError, match=message):
            restore(saved, build(), shardings=shardings)


def linear(seed=0, **options):
    return nnx.Linear(2, 8, rngs=nnx.Rngs(seed), **options)


def test_a_model_under_an_abstract_mesh(tmp_path):
    save(tmp_path / "linear", linear(3))
    mesh = over()
    with jax.set_mesh(mesh):
        metadata = {"out_sharding": (None, "data")}
        abstract = nnx.eval_shape(lambda: linear(kernel_metadata=metadata))
        found = restore(tmp_path / "linear", abstract)
    sharding = jax.NamedSharding(mesh, jax.P(None, "data"))
    assert found.kernel.get_value().sharding == sharding
    assert_same(found, linear(3))
    with pytest.raises(ValueError, match=r"`jax.set_mesh\(mesh\)`, pass `shardings`"):
        restore(tmp_path / "linear", abstract)


def test_what_is_missing_cannot_stay_abstract(saved, tower):
    abstract = nnx.eval_shape(Tower)
    with pytest.raises(
        CheckpointError, match=r"only the shape of dropout\.rngs\.count"
    ):
        restore(tower, abstract, only=["flow.*"])
    with pytest.raises(CheckpointError, match="only the shape of"):
        restore(saved, nnx.eval_shape(lambda: build(hidden=(9,))), strict=False)


def test_only_arrays_are_saved(tmp_path):
    with pytest.raises(ValueError, match=r"`model` must hold arrays; .* dropout\.rngs"):
        save(tmp_path / "abstract", nnx.eval_shape(Tower))


def test_types_are_those_of_the_model(saved):
    abstract = nnx.eval_shape(lambda: build(param_dtype=jnp.bfloat16))
    wanted = [a.dtype.name for a in jax.tree.leaves(nnx.state(abstract))]
    narrow = restore(saved, abstract)
    assert [a.dtype.name for a in jax.tree.leaves(nnx.state(narrow))] == wanted
    assert set(wanted) == {"bfloat16", "float32"}  # what is fixed is exact
    np.testing.assert_array_equal(
        narrow.layers[1].vectors[...],
        build(3).layers[1].vectors[...].astype("bfloat16"),
    )


def test_64_bits_are_cut_after_they_were_checked(tmp_path):
    with jax.enable_x64(True):
        save(tmp_path / "linear", linear(param_dtype=jnp.float64))
    one = jax.NamedSharding(over(2), jax.P())
    found = restore(tmp_path / "linear", nnx.eval_shape(linear), shardings=one)
    assert found.kernel.get_value().sharding == one
    assert found.kernel.dtype == jnp.float32


def test_arrays_are_not_held_twice(tmp_path, monkeypatch):
    class Wide(nnx.Module):
        def __init__(self):
            self.layers = nnx.List(
                [nnx.Linear(64, 64, rngs=nnx.Rngs(0)) for _ in "abcd"]
            )

    save(tmp_path / "wide", Wide())
    held = []
    asarray = jnp.asarray

    def counting(array, *args, **options):
        held.append(sum(a.size for a in jax.live_arrays() if a.shape == (64, 64)))
        return asarray(array, *args, **options)

    before = sum(a.size for a in jax.live_arrays() if a.shape == (64, 64))
    monkeypatch.setattr("trainers.checkpoints.variables.jnp.asarray", counting)
    found = restore(tmp_path / "wide", nnx.eval_shape(Wide))
    assert held[0] == before
    assert len(found.layers) == 4


def test_a_golden_checkpoint_restores_into_a_model_without_arrays():
    (folder,) = GOLDEN.glob("version_2")
    flow = load_flow(folder)
    config = rn.to_config(flow)
    abstract = nnx.eval_shape(lambda: rn.from_config(config, rngs=nnx.Rngs(0)))
    assert_same(restore(folder, abstract), flow)


def plainly(path, tree, *, kind="standard"):
    """Writes a tree as users of Orbax do."""
    if kind == "standard":
        with ocp.StandardCheckpointer() as plain:
            plain.save(path, tree)
    elif kind == "pytree":
        with ocp.PyTreeCheckpointer() as plain:
            plain.save(path, tree)
    else:
        items = tree if isinstance(tree, dict) else {"default": tree}
        with ocp.CheckpointManager(path) as manager:
            for step in (1, 3):
                saves = {n: ocp.args.StandardSave(t) for n, t in items.items()}
                extra = (
                    {"extra": ocp.args.JsonSave({"step": step})}
                    if "opt" in items
                    else {}
                )
                args = ocp.args.Composite(**saves, **extra)
                if kind == "manager" and len(items) == 1:
                    args = ocp.args.StandardSave(tree)
                manager.save(step, args=args)


@pytest.mark.parametrize("kind", ["standard", slow("pytree"), "manager"])
def test_a_tree_of_orbax_alone_is_restored(tmp_path, kind):
    plainly(tmp_path / "state", nnx.state(Tower(3)), kind=kind)
    assert_same(restore(tmp_path / "state", nnx.eval_shape(Tower)), Tower(3))
    plainly(tmp_path / "pure", nnx.to_pure_dict(nnx.state(build(3))), kind=kind)
    assert_same(restore(tmp_path / "pure", build()), build(3))
    if kind == "manager":
        assert_same(restore(tmp_path / "pure", build(), step=1), build(3))
        assert_same(restore(tmp_path / "pure" / "3", build()), build(3))
        assert_same(restore(tmp_path / "pure" / "3" / "default", build()), build(3))
        with pytest.raises(CheckpointError, match=r"`step` must be .* \[1, 3\] in"):
            restore(tmp_path / "pure", build(), step=2)


def test_the_flow_of_a_larger_model_is_restored_alone(tmp_path, tower):
    assert_same(restore(tower, build(), prefix="flow"), build(3))
    plainly(tmp_path / "plain", nnx.state(Tower(3)))
    assert_same(restore(tmp_path / "plain", build(), prefix="flow"), build(3))
    with pytest.raises(
        CheckpointError, match=r"no array in common .*Pass prefix='flow'\."
    ):
        restore(tmp_path / "plain", build())
    with pytest.raises(ValueError, match="begin with dropout, encoder, flow"):
        restore(tmp_path / "plain", build(), prefix="flows")


def test_optimizer_states_beside_the_parameters_do_not_count(tmp_path):
    flow = build(3)
    moments = optax.adam(1e-3).init(nnx.state(flow, nnx.Param))
    tree = {"params": nnx.state(flow), "opt": moments}
    plainly(tmp_path / "one", tree)
    assert_same(restore(tmp_path / "one", build(), prefix="params"), flow)
    plainly(tmp_path / "items", tree, kind="items")
    assert_same(restore(tmp_path / "items", build(), prefix="params"), flow)
    first = restore(
        tmp_path / "one", build(), prefix="opt.0.mu", strict=False, only=["*.vectors"]
    )
    np.testing.assert_array_equal(first.layers[1].vectors[...], 0)


def test_other_names_are_mapped(tmp_path, saved):
    plainly(
        tmp_path / "plain",
        {
            "backbone": {"dense": nnx.to_pure_dict(nnx.state(Tower(3).encoder))},
            "model": nnx.state(build(3)),
        },
    )
    renamed = {"backbone.dense": "encoder", "model": "flow"}
    only = ("encoder.*", "flow.*")
    found = restore(tmp_path / "plain", Tower(), rename=renamed, only=only)
    assert_same(found.flow, build(3))
    assert_same(found.encoder, Tower(3).encoder)
    inside = restore(saved, Tower(), rename={"": "flow"}, only=["flow.*"])
    assert_same(inside.flow, build(3))
    with pytest.raises(ValueError, match=r"`rename` must map .* got 'layer', and they"):
        restore(saved, build(), rename={"layer": "layers"})
    with pytest.raises(
        ValueError, match=r"a name of its own; got layers\.3\.\S+ for layers\.2"
    ):
        restore(saved, build(), rename={"layers.2": "layers.3"})


def test_what_a_plain_tree_lacks_is_named(tmp_path):
    state = nnx.to_pure_dict(nnx.state(build(3)))
    del state["layers"][1]["vectors"]
    plainly(tmp_path / "plain", state | {"other": np.ones(2)})
    message = (
        r"missing in the checkpoint: layers\.1\.vectors; unexpected in the model: other"
    )
    with pytest.raises(CheckpointError, match=message):
        restore(tmp_path / "plain", build())
    with pytest.raises(
        CheckpointError, match=r"no checkpoint of this library.*restore\("
    ):
        load_flow(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="`weights` must be 'ema'"):
        restore(tmp_path / "plain", build(), weights="raw")
    (tmp_path / "plain" / "_METADATA").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        restore(tmp_path / "plain", build())


def test_ours_load_in_plain_orbax(saved):
    with ocp.StandardCheckpointer() as plain:
        arrays = plain.restore(pathlib.Path(saved).absolute() / "0" / "arrays")
    flow = build()
    names = {tuple(n.split(".")[1:]): array for n, array in arrays.items()}
    nnx.update(flow, nnx.restore_int_paths(traverse_util.unflatten_dict(names)))
    assert_same(flow, build(3))


CHANGES = {
    "num_components": (4, r"rbig_nnx\.widen\(flow, num_components=4\)"),
    "context_features": (2, r"rbig_nnx\.widen\(flow, context_features=2\)"),
    "hidden": ((16,), r"rbig_nnx\.widen\(flow, hidden=\(16,\), rngs=rngs\)"),
    "scan_blocks": (True, r"rbig_nnx\.stack_blocks\(flow\)"),
}


@pytest.mark.parametrize("argument", CHANGES)
def test_another_architecture_is_named_with_what_converts_it(saved, tower, argument):
    value, way_out = CHANGES[argument]
    other = build(**{argument: value})
    with pytest.raises(CheckpointError, match=rf"{argument} \(.* {way_out}") as caught:
        restore(saved, other)
    assert "strict" not in str(caught.value)
    larger = Tower()
    larger.flow = other
    with pytest.raises(CheckpointError, match=rf"{argument} \(.* {way_out}"):
        restore(tower, larger)
    if argument != "scan_blocks":
        with pytest.warns(UserWarning, match=rf"not restored: {argument} \("):
            restore(saved, other, strict=False)


def test_a_narrower_model_is_told_to_be_built_anew(saved):
    message = r"num_components \(2 in the checkpoint, 1 in the model\).*built with the"
    with pytest.raises(CheckpointError, match=message) as caught:
        restore(saved, build(num_components=1))
    assert "widen" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"family": "logistic"}, {"anchor_weight": 0.1}, {"activation": jax.nn.tanh}],
    ids=lambda change: next(iter(change)),
)
def test_arrays_of_the_same_shapes_of_another_map_are_refused(saved, change):
    (name,) = change
    with pytest.raises(CheckpointError, match=rf"they differ: {name} \("):
        restore(saved, build(**change))


def test_the_function_that_the_error_names_keeps_the_density(saved, tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    wide = rn.widen(load_flow(saved), num_components=3, hidden=(9,), rngs=nnx.Rngs(1))
    save(tmp_path / "wide", wide)
    loaded = load_flow(tmp_path / "wide")
    assert_same(loaded, wide)
    np.testing.assert_allclose(
        loaded.log_prob(x), build(3).log_prob(x), rtol=1e-5, atol=1e-5
    )
    into = restore(tmp_path / "wide", build(num_components=3, hidden=(9,)))
    assert_same(into, wide)
