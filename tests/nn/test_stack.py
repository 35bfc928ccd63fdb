import contextvars

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn.stack import runs_of
from tests.contracts import check_bijector
from tests.nn.users import Doubled
from tests.slow import slow


def few(values):
    return contextvars.ContextVar("few_values", default=values)


# How equal blocks are applied, whatever their size.
WAYS = {
    "written out": {"base.activations._few_values": few(10**9)},
    "scanned": {"base.activations._few_values": few(0)},
    "few rows at a time": {
        "base.activations._few_values": few(0),
        "stack._BLOCK_VALUES": 100,
    },
}


def choose(way, monkeypatch):
    for name, value in WAYS[way].items():
        monkeypatch.setattr(f"rbig_nnx.nn.{name}", value)
    jax.clear_caches()  # programs of the other ways


@pytest.fixture(
    params=[
        # The flows of other tests are written out.
        way if way == "scanned" else slow(way)
        for way in WAYS
    ]
)
def way(request, monkeypatch):
    choose(request.param, monkeypatch)
    yield request.param
    jax.clear_caches()


@pytest.mark.slow
def test_equal_blocks_give_the_numbers_of_the_layers(way):
    flow = rn.coupling_flow(3, 4, num_components=3, hidden=(8,), rngs=nnx.Rngs(0))
    assert [run.num_blocks for run in runs_of(flow.layers)] == [1, 4]
    x = jax.random.normal(jax.random.key(0), (7, 3))
    is_scanned = "while" in jax.jit(lambda x: flow.log_prob(x)).lower(x).as_text()
    assert is_scanned == (way != "written out")
    y, total = x, 0.0
    for layer in flow.layers:
        y, log_det = layer.bijector().forward_and_log_det(y)
        total += log_det
    z, log_det = flow.forward_and_log_det(x)
    np.testing.assert_allclose(z, y, atol=1e-5)
    np.testing.assert_allclose(log_det, total, atol=1e-5)
    back, inverse_log_det = flow.inverse_and_log_det(z)
    np.testing.assert_allclose(back, x, atol=1e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)


def gradients(flow, x, context):
    """Of the mean log p by every parameter, as a list of layers' arrays."""
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)

    def mean_log_prob(params):
        return jnp.mean(nnx.merge(graphdef, params, rest).log_prob(x, context))

    return jax.jit(jax.grad(mean_log_prob))(params)


def assert_close(a, b):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), a, b
    )


CONDITIONED = {"num_components": 3, "hidden": (8,), "context_features": 2}


def conditioned_rows():
    return tuple(
        jax.random.normal(jax.random.key(seed), (50, width))
        for seed, width in ((1, 4), (2, 2))
    )


@pytest.mark.parametrize(
    "way",
    ["scanned", slow("few rows at a time")],
)
def test_blocks_have_the_gradients_of_those_written_out(way, monkeypatch):
    flow = rn.coupling_flow(4, 3, **CONDITIONED, rngs=nnx.Rngs(0))
    found = []
    for one in ("written out", way):
        with monkeypatch.context() as patch:
            choose(one, patch)
            found.append(gradients(flow, *conditioned_rows()))
    assert_close(*found)


def test_scanned_blocks_are_the_blocks_in_a_list(way):
    listed, scanned = (
        rn.coupling_flow(4, 3, **CONDITIONED, scan_blocks=scan, rngs=nnx.Rngs(0))
        for scan in (False, True)
    )
    x, context = conditioned_rows()
    z, log_det = scanned.forward_and_log_det(x, context)
    assert_close((z, log_det), listed.forward_and_log_det(x, context))
    back, inverse_log_det = scanned.inverse_and_log_det(z, context)
    np.testing.assert_allclose(back, x, atol=1e-3)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-3)
    # The gradients of the list are those of the stack, block by block.
    found = gradients(scanned, x, context)["layers"][1]["layers"]
    wanted = gradients(listed, x, context)["layers"]
    for i in range(3):
        of_block = {j: wanted[1 + 3 * i + j] for j in range(3)}
        assert_close(
            jax.tree.leaves(jax.tree.map(lambda a, i=i: a[i], found)),
            jax.tree.leaves(of_block),
        )


@pytest.mark.slow
def test_scanned_blocks_are_a_bijection(nnx_mode):
    rngs = nnx.Rngs(0)
    blocks = rn.ScannedBlocks(
        [
            [rn.HouseholderRotation(3, rngs=rngs), rn.MixtureCDFMarginal(3)]
            for _ in range(3)
        ]
    )
    x = jax.random.normal(jax.random.key(1), (6, 3))
    check_bijector(blocks.bijector(), x)
    # Not at the ends of a flow only, and twice in one.
    flow = rn.GaussianizationFlow([blocks, Doubled(), blocks], num_features=3)
    check_bijector(flow.bijector(), x)
    assert [run.num_blocks for run in runs_of(flow.layers)] == [3, 1, 3]


def test_many_blocks_are_scanned_unless_told_otherwise():
    def kinds(build, num_blocks, **options):
        flow = build(2, num_blocks, **options, rngs=nnx.Rngs(0))
        return [type(layer) for layer in flow.layers[1:]]

    for build in (rn.coupling_flow, rn.diagonal_flow):
        assert rn.ScannedBlocks not in kinds(build, 8)
        assert kinds(build, 9) == [rn.ScannedBlocks]
        assert kinds(build, 2, scan_blocks=True) == [rn.ScannedBlocks]
        assert rn.ScannedBlocks not in kinds(build, 9, scan_blocks=False)


def test_scanned_blocks_come_apart_and_are_written_back():
    flow = rn.coupling_flow(2, 3, hidden=(8,), scan_blocks=True, rngs=nnx.Rngs(0))
    listed = rn.coupling_flow(2, 3, hidden=(8,), scan_blocks=False, rngs=nnx.Rngs(0))
    scanned = flow.layers[1]
    apart = [layer for block in scanned.blocks() for layer in block]
    assert_close(nnx.state(nnx.List(apart)), nnx.state(nnx.List(listed.layers[1:])))
    assert rn.output_kernel_magnitudes(flow) == rn.output_kernel_magnitudes(listed)
    blocks = scanned.blocks()
    blocks[1][0].vectors[...] = jnp.eye(2)
    np.testing.assert_array_equal(scanned.layers[0].vectors[...], flow_vectors(flow))
    before = flow_vectors(flow)
    scanned.set_blocks(blocks)
    after = flow_vectors(flow)
    np.testing.assert_array_equal(after[1], jnp.eye(2))
    np.testing.assert_array_equal(after[::2], before[::2])


def flow_vectors(flow):
    return np.array(flow.layers[1].layers[0].vectors[...])


def test_sharding_of_scanned_blocks_leaves_their_first_axis_whole():
    flow = rn.coupling_flow(
        2,
        2,
        kernel_metadata={"out_sharding": (None, "model"), "eager_sharding": False},
        scan_blocks=True,
        rngs=nnx.Rngs(0),
    )
    stacked = flow.layers[1].layers[1].conditioner.out.kernel
    assert stacked.get_metadata()["out_sharding"] == (None, None, "model")
    one = flow.layers[1].blocks()[0][1].conditioner.out.kernel
    assert one.get_metadata()["out_sharding"] == (None, "model")
    assert stacked.get_metadata()["out_sharding"] == (None, None, "model")


def test_scanned_blocks_that_differ_are_refused():
    def rotation(**options):
        return rn.HouseholderRotation(2, **options, rngs=nnx.Rngs(0))

    for blocks, message in (
        ([], "at least one block"),
        ([[]], "at least one block"),
        ([[rotation()], [rotation(), rotation()]], r"got blocks of \[1, 2\] layers"),
        ([[rotation()], [rotation(num_reflections=1)]], "equal in all but the values"),
        ([[rotation()], [rn.Standardize(2)]], "among 2 of .'HouseholderRotation'"),
        ([[nnx.Dropout(0.5, rngs=nnx.Rngs(0))]] * 2, "no random streams"),
    ):
        with pytest.raises(ValueError, match=message):
            rn.ScannedBlocks(blocks)
    # Of two blocks without a rotation between them the couplings move all twice.
    masks = (True, False), (False, True)
    couplings = [rn.MixtureCDFCoupling(2, mask=m, rngs=nnx.Rngs(0)) for m in masks]
    with pytest.raises(ValueError, match=r"features \[0, 1\] more than once"):
        rn.GaussianizationFlow([rn.ScannedBlocks([couplings, couplings])])


def test_activations_are_kept_only_where_asked(monkeypatch):
    choose("few rows at a time", monkeypatch)
    flow = rn.coupling_flow(3, 4, num_components=3, hidden=(8,), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (200, 3))

    def is_written_out():
        return "while" not in jax.jit(lambda x: flow.log_prob(x)).lower(x).as_text()

    outside = is_written_out()  # the trace is cached
    with rn.keep_activations():
        inside = is_written_out()
        with rn.keep_activations(1_000):
            little = is_written_out()
    assert (outside, inside, little, is_written_out()) == (False, True, False, False)


def test_compiled_program_does_not_grow_with_depth():
    def size(num_blocks):
        flow = rn.coupling_flow(2, num_blocks, hidden=(8,), rngs=nnx.Rngs(0))
        text = (
            jax.jit(lambda f, x: f.log_prob(x)).lower(flow, jnp.zeros((4, 2))).as_text()
        )
        return sum("exponential" in line for line in text.splitlines())

    # Written out, the blocks share one function; beyond a few they are a loop.
    assert size(2) == size(4) > 0
    assert size(12) == size(16) > 0


def test_compiled_training_step_does_not_grow_with_depth():
    def size(num_blocks):
        flow = rn.coupling_flow(2, num_blocks, hidden=(8,), rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(flow, optax.adam(1e-3), wrt=nnx.Param)

        def step(flow, optimizer, x):
            grads = nnx.grad(lambda flow: -jnp.mean(flow.log_prob(x)))(flow)
            optimizer.update(flow, grads)

        lowered = nnx.jit(step).lower(flow, optimizer, jnp.zeros((4, 2)))
        return len(lowered.as_text().splitlines())

    assert size(9) == size(32) > 0
