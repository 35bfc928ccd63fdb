"""One run, many layouts: the losses must be those of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import rbig_nnx as rn
from tests.slow import slow
from tests.trainers.layouts import (
    LAYOUTS,
    QUICK,
    SPLIT,
    STRATA,
    VALID,
    X,
    assert_same_run,
    flow,
    mesh_of,
    program_of,
)
from tests.trainers.tiny import Tiny
from trainers import TrainConfig, fit
from trainers.placement import sharding
from trainers.placement.strategy import make_strategy
from trainers.rows.feed import ResidentFeed, StreamFeed
from trainers.rows.memory import EpochOrder
from trainers.rows.resident import ResidentRows
from trainers.rows.sources import as_source

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")


@pytest.fixture(scope="module")
def tiny_run():
    return fit(Tiny(), X, VALID, config=QUICK)


@pytest.fixture(scope="module")
def one_device():
    return fit(flow(), X, VALID, config=QUICK)


@pytest.mark.parametrize(
    "layout", [slow("8 data"), "4 data x 2 model", slow("pmap on 8")]
)
def test_every_layout_gives_the_losses_of_one_device(layout, one_device):
    many = fit(flow(), X, VALID, config=QUICK, **LAYOUTS[layout]())
    assert_same_run(one_device.history, many.history, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(
        many.model.log_prob(VALID), one_device.model.log_prob(VALID), atol=1e-3
    )


@pytest.mark.parametrize("layout", ["4 data x 2 model", slow("pmap on 8")])
def test_strata_give_every_layout_the_batches_of_one_device(layout):
    one = fit(Tiny(), X, VALID, config=STRATA)
    many = fit(Tiny(), X, VALID, config=STRATA, **LAYOUTS[layout]())
    assert_same_run(one.history, many.history, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", [slow("4 data x 2 model"), "pmap on 8"])
def test_a_file_gives_every_layout_the_batches_of_one_device(layout, tmp_path):
    np.save(tmp_path / "x.npy", X)
    one = fit(Tiny(), tmp_path / "x.npy", VALID, config=QUICK)
    many = fit(Tiny(), tmp_path / "x.npy", VALID, config=QUICK, **LAYOUTS[layout]())
    assert_same_run(one.history, many.history, rtol=2e-5, atol=2e-5)


def specs(tree):
    """The partition of every array, by the end of its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.sharding.spec for path, leaf in leaves}


KERNEL = "['out']['kernel']"


def test_moments_and_averages_lie_with_their_parameters():
    program = program_of(mesh_of(4, 2), partition=SPLIT)
    program.advance(0, 2)
    found = {k: v for k, v in specs(program.state).items() if k.endswith(KERNEL)}
    assert len(found) == 4  # the parameter, two moments of Adam, the average
    assert set(found.values()) == {PartitionSpec(None, "model")}
    others = [v for k, v in specs(program.state).items() if "kernel" not in k]
    assert set(others) == {PartitionSpec()}
    kernel = program.state.params["out"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 2 == kernel.size


def test_metadata_of_the_modules_spread_them_like_a_pattern(tiny_run):
    annotated = {"out_sharding": (None, "model"), "eager_sharding": False}
    model = Tiny(**annotated)
    by_metadata = specs(program_of(mesh_of(4, 2), model=model).state.params)
    assert by_metadata == specs(program_of(mesh_of(4, 2), partition=SPLIT).state.params)
    # The same model on a mesh without that axis, and with a pattern that overrules.
    assert set(specs(program_of(mesh_of(8), model=model).state.params).values()) == {
        PartitionSpec()
    }
    whole = program_of(mesh_of(4, 2), model=model, partition=(("*", ()),))
    assert set(specs(whole.state.params).values()) == {PartitionSpec()}
    many = fit(model, X, VALID, config=QUICK, mesh=mesh_of(4, 2))
    assert_same_run(tiny_run.history, many.history, rtol=2e-5)


def test_flows_pass_the_metadata_on():
    mesh, _ = sharding.prepare_mesh(mesh_of(4, 2))
    annotated = {"out_sharding": (None, "model"), "eager_sharding": False}
    model = flow(kernel_metadata=annotated)
    found = sharding.variable_shardings(model, mesh)
    assert {n for n, s in found.items() if s.spec} == {
        n for n in found if n.endswith("kernel")
    }


@pytest.mark.slow
def test_scanned_blocks_train_like_a_list_on_any_mesh():
    listed, *scanned = (
        fit(flow(3, scan_blocks=scan), X, VALID, config=QUICK, mesh=mesh)
        for scan, mesh in ((False, None), (True, None), (True, mesh_of(4, 2)))
    )
    for run_ in scanned:
        assert_same_run(listed.history, run_.history, rtol=2e-5)


def test_parameters_can_lie_over_the_data_axis_too(tiny_run):
    everything = (("trunk.kernel", (None, "data")), ("*.bias", ("data",)))
    many = fit(Tiny(), X, VALID, config=QUICK, mesh=mesh_of(4), partition=everything)
    assert_same_run(tiny_run.history, many.history, rtol=2e-5)


def test_every_device_holds_its_part_of_the_rows_and_one_batch_moves():
    rows = np.zeros((8_003, 2), np.float32)
    program = program_of(mesh_of(8), rows=rows)
    held = {s.data.shape for s in program._feed._rows.addressable_shards}
    assert held == {(1_001, 2)}
    text = program._train_steps.wait().as_text()
    assert "reduce-scatter" in text
    assert "f32[8008" not in text  # nowhere in the program are all rows together


def test_rows_of_strata_stay_on_their_device():
    text = program_of(mesh_of(8), config=STRATA)._train_steps.wait().as_text()
    moves = ("reduce-scatter", "all-gather", "all-to-all", "collective-permute")
    assert not [name for name in moves if name in text]
    assert "all-reduce" in text  # of the gradients


@pytest.mark.parametrize("source", ["rows", "a file"])
def test_a_device_is_told_its_own_rows_alone(source, tmp_path):
    strategy, batch = make_strategy("jit", mesh_of(4, 2)), STRATA.batch_size
    if source == "rows":
        resident = ResidentRows(X, strategy.mesh)
        feed = ResidentFeed(resident, strategy, batch_size=batch, seed=0, strata=8)
    else:
        np.save(tmp_path / "x.npy", X)
        rows = as_source(tmp_path / "x.npy", seed=0)
        feed = StreamFeed(rows, X[:2], strategy, batch_size=batch)
    _, indices, _ = feed(0, 2, 3)
    assert indices.shape == (3, batch)
    assert indices.sharding.spec == PartitionSpec(None, "data")
    assert {s.data.shape for s in indices.addressable_shards} == {(3, batch // 4)}


def test_fewer_rows_than_devices_lie_where_they_are_looked_for():
    mesh, _ = sharding.prepare_mesh(mesh_of(8))
    resident = ResidentRows(np.arange(3.0)[:, None] + 1, mesh)
    padded = resident.padded()
    assert padded.shape == (8, 1)
    np.testing.assert_array_equal(
        padded[resident.positions(np.arange(3))], resident.own
    )


def test_rows_of_every_type_are_exchanged_exactly():
    mesh, _ = sharding.prepare_mesh(mesh_of(4, 2))
    n, rng = 13, np.random.default_rng(0)
    rows = {
        "x": rng.normal(size=(n, 2, 3)).astype(np.float32),
        "label": np.arange(n, dtype=np.int32) - 5,
        "flag": np.arange(n) % 3 == 0,
        "byte": np.arange(n, dtype=np.uint8) * 19,
    }
    resident = ResidentRows(rows, mesh)
    strategy = make_strategy("jit", mesh)
    index = rng.permutation(n)[:8]
    taken = jax.jit(strategy.take)(
        strategy.place_rows(resident.padded()), resident.positions(index)
    )
    for name, leaf in taken.items():
        assert leaf.dtype == rows[name].dtype
        np.testing.assert_array_equal(leaf, rows[name][index])


@pytest.mark.slow
@pytest.mark.parametrize("layout", [slow({}), {"strategy": "pmap"}])
def test_few_rows_train_on_many_devices_by_the_default_batch(layout, capsys):
    config = TrainConfig(num_steps=2, eval_every=2)
    many = fit(Tiny(), X, config=config, mesh=mesh_of(8), **layout)
    assert "batches of 96 rows, which divide into 8 parts" in capsys.readouterr().err
    one = fit(Tiny(), X, config=dataclasses.replace(config, batch_size=96))
    assert_same_run(one.history, many.history, rtol=2e-5)
    parts = dataclasses.replace(config, accumulate=3, strata=16)
    fit(Tiny(), X, config=parts, mesh=mesh_of(8))
    with pytest.raises(ValueError, match="divide over the 8 devices"):
        fit(Tiny(), X[:7], config=config, mesh=mesh_of(8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"partition": (("*.kernle", (None, "model")),)},
            "'\\*.kernle' matches none of",
        ),
        ({"partition": (("*.kernel", (None, "rows")),)}, "got \\['rows'\\] for"),
        ({"partition": (("*.bias", (None, "model")),)}, r"at most one mesh axis"),
        (
            {"partition": (("vectors", ("data",)),)},
            r"axis 0 of vectors, shape \(2, 2\), must divide over the 4",
        ),
        ({"config": dataclasses.replace(QUICK, batch_size=18)}, "Use 16"),
        ({"config": dataclasses.replace(QUICK, strata=6)}, "of the 4 devices .* or 4"),
        ({"config": dataclasses.replace(QUICK, strata=32)}, "divide the 16 rows"),
        (
            {"config": dataclasses.replace(QUICK, accumulate=8)},
            "the 4 devices .* and `accumulate`=8 parts",
        ),
        ({"strategy": "pmap"}, "`mesh` must have the one axis 'data'"),
        ({"strategy": "xmap"}, "`strategy` must be one of"),
    ],
)
def test_layouts_that_cannot_be_are_refused(options, message):
    arguments = {"config": QUICK, "mesh": mesh_of(4, 2)} | options
    with pytest.raises(ValueError, match=message):
        fit(Tiny(), X, VALID, **arguments)


BAD_STEP_LAYOUTS = {
    "one device, in parts": lambda: {"accumulate": 2},
    "4 data x 2 model": lambda: {"mesh": mesh_of(4, 2), "partition": SPLIT},
    "pmap on 8, in parts": lambda: LAYOUTS["pmap on 8"]() | {"accumulate": 2},
}


def poisoned_loss(model, batch, key):
    """Not finite for one row, which lies on one device: all must skip the step."""
    x, poison = batch
    return -model.log_prob(x) + jnp.where(poison[:, 0] > 0, jnp.nan, 0.0)


def fit_poisoned(poison, *, accumulate=1, **layout):
    config = dataclasses.replace(
        QUICK, num_steps=24, max_bad_steps=3, accumulate=accumulate
    )
    rows = (X, poison[:, None].astype(np.float32))
    return fit(Tiny(), rows, loss_fn=poisoned_loss, config=config, **layout)


@pytest.mark.parametrize(
    "name",
    ["4 data x 2 model", slow("one device, in parts"), slow("pmap on 8, in parts")],
)
def test_bad_steps_are_skipped_and_counted_in_every_layout(name):
    poison = np.arange(101) == 17
    batches = EpochOrder(101, 16, seed=0).indices(0, 24)
    expected = np.sum(np.any(batches == 17, axis=1))
    assert 0 < expected < 6
    result = fit_poisoned(poison, **BAD_STEP_LAYOUTS[name]())
    assert result.bad_steps == expected
    assert result.stop_reason == "completed"
    one = fit_poisoned(poison)
    np.testing.assert_allclose(
        result.model.vectors[...], one.model.vectors[...], rtol=1e-5
    )


@pytest.mark.parametrize(
    "name",
    [slow("4 data x 2 model"), "one device, in parts", slow("pmap on 8, in parts")],
)
def test_too_many_bad_steps_stop_every_layout(name):
    with pytest.warns(RuntimeWarning, match="not finite for 3 steps in a row"):
        result = fit_poisoned(np.ones(101), **BAD_STEP_LAYOUTS[name]())
    assert result.stop_reason == "non-finite"
    np.testing.assert_array_equal(result.model.vectors[...], 1.0)


def test_a_pattern_means_the_same_axis_for_listed_and_stacked_blocks():
    mesh = mesh_of(4, 2)
    for model in (
        rn.coupling_flow(2, 2, scan_blocks=False, hidden=(8,), rngs=nnx.Rngs(0)),
        rn.coupling_flow(2, 2, scan_blocks=True, hidden=(8,), rngs=nnx.Rngs(0)),
    ):
        kernels = [
            where.spec
            for name, where in sharding.variable_shardings(model, mesh, SPLIT).items()
            if name.endswith(".kernel")
        ]
        assert kernels
        assert all(tuple(spec)[-2:] == (None, "model") for spec in kernels)
