"""How many messages a compiled step sends: counted, not searched for."""

import collections
import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import rbig_nnx as rn
from tests.nn.users import network, one_layer
from tests.slow import slow
from tests.trainers.layouts import QUICK, SPLIT, STRATA, X, flow, mesh_of, program_of
from trainers import fit
from trainers.placement import messages
from trainers.placement.fully_sharded import fully_sharded
from trainers.placement.sharding import prepare_mesh

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

KINDS = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"


def counts(text):
    return collections.Counter(re.findall(rf" ({KINDS})(?:-start)?\(", text))


@pytest.mark.parametrize(
    ("num_blocks", "shape", "partition", "config", "wanted"),
    [
        slow(1, (8,), (), QUICK, {"all-reduce": 1, "reduce-scatter": 1}),
        slow(3, (8,), (), QUICK, {"all-reduce": 1, "reduce-scatter": 1}),
        (1, (8,), (), STRATA, {"all-reduce": 1}),
        (
            2,
            (4, 2),
            SPLIT,
            QUICK,
            {"all-reduce": 1, "reduce-scatter": 1, "all-gather": 1},
        ),
    ],
)
def test_a_step_sends_one_message_of_a_kind_at_any_depth(
    num_blocks, shape, partition, config, wanted
):
    mesh, model = mesh_of(*shape), flow(num_blocks)
    step = program_of(mesh, model=model, partition=partition, config=config)
    assert counts(step._train_steps.wait().as_text()) == wanted


def test_one_argument_spreads_parameters_and_moments():
    model = flow(hidden=(64, 64))
    step = program_of(mesh_of(8), model=model, partition="data", config=STRATA)
    assert counts(step._train_steps.wait().as_text()) == {
        "all-reduce": 1,
        "all-gather": 1,
    }
    large = [a for a in jax.tree.leaves(step.state) if a.size >= 4_096]
    assert len(large) >= 4 * 2  # parameters, their average and two moments
    assert all(a.addressable_shards[0].data.size * 8 == a.size for a in large)


def test_an_axis_that_the_mesh_has_not_is_told():
    with pytest.raises(ValueError, match=r"`partition` must name an axis.*'fsdp'"):
        fully_sharded({}, prepare_mesh(mesh_of(8))[0], "fsdp")


def test_arrays_in_parts_become_whole_in_one_message():
    mesh, _ = prepare_mesh(mesh_of(4, 2))
    specs = [
        PartitionSpec("model"),
        PartitionSpec(None, "model"),
        PartitionSpec(("data", "model"), None),
        PartitionSpec(("model", "data")),
        PartitionSpec("model", "data"),
        PartitionSpec(),
    ]
    places = [NamedSharding(mesh, spec) for spec in specs]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(8, 16)).astype(np.float32) for _ in specs]
    whole = jax.jit(
        lambda tree: messages.whole(tree, places),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
    spread = jax.device_put(arrays, places)
    for got, want in zip(whole(spread), arrays, strict=True):
        np.testing.assert_array_equal(got, want)
    text = whole.lower(spread).compile().as_text()
    assert counts(text) == {"all-gather": 2}  # over "model", and over both axes


@pytest.mark.slow
def test_parts_of_a_batch_that_are_fewer_than_devices_lie_over_the_rows_axis():
    in_parts = dataclasses.replace(QUICK, accumulate=4)  # of 16 rows, on 4 x 2
    one, many = (
        fit(flow(), X, config=in_parts, mesh=mesh, progress=False)
        for mesh in (None, mesh_of(4, 2))
    )
    np.testing.assert_allclose(
        many.history["loss"], one.history["loss"], rtol=2e-5, atol=2e-5
    )


@pytest.mark.slow
def test_statistics_of_a_conditioner_are_those_of_the_whole_batch():
    runs = [
        fit(
            rn.GaussianizationFlow([one_layer(trunk=network("batch norm"))]),
            X[:, :1],
            context=X[:, 1:],
            config=QUICK,
            mesh=mesh,
            progress=False,
        )
        for mesh in (None, mesh_of(4, 2))
    ]
    np.testing.assert_allclose(
        runs[1].history["loss"], runs[0].history["loss"], rtol=2e-5, atol=2e-5
    )
