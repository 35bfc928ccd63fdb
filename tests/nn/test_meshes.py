"""Flows under `jax.set_mesh` with the explicit axes that `jax.make_mesh` gives."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import rbig_nnx as rn
from tests.slow import slow

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32) ** 3
C = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def flow_of(num_blocks=1):
    options = {"num_components": 2, "hidden": (8,), "context_features": 3}
    return rn.coupling_flow(2, num_blocks, **options, rngs=nnx.Rngs(0))


CALLS = {
    "log_prob": lambda flow, x, c: flow.log_prob(x, c),
    "log_prob, compiled": nnx.jit(lambda flow, x, c: flow.log_prob(x, c)),
    "forward": lambda flow, x, c: flow.forward_and_log_det(x, c)[0],
    "inverse": lambda flow, x, c: flow.inverse_and_log_det(0.1 * x, c)[0],
    "distribution": lambda flow, x, c: flow.distribution(c).log_prob(x),
    "bijector": lambda flow, x, c: flow.bijector(c).forward(x),
    "samples of contexts": lambda flow, x, c: flow.sample(jax.random.key(0), 4, c),
}


@pytest.mark.parametrize(
    "name", ["log_prob", *(slow(name) for name in CALLS if name != "log_prob")]
)
def test_rows_on_explicit_axes_give_the_numbers_of_one_device(name):
    flow, call = flow_of(), CALLS[name]
    alone = call(flow, X, C)
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    with jax.set_mesh(mesh):
        where = jax.NamedSharding(mesh, PartitionSpec("data"))
        many = call(flow, *jax.device_put((X, C), where))
    np.testing.assert_allclose(many, alone, atol=1e-5)
    spec = jax.typeof(many).sharding.spec
    assert "data" in spec
    assert many.shape[spec.index("data")] == len(X)


@pytest.mark.parametrize("num_blocks", [1, slow(4)])
def test_each_device_may_draw_for_itself(num_blocks):
    flow, key = flow_of(num_blocks), jax.random.key(0)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    own, same = PartitionSpec("rows"), PartitionSpec()

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(own, own, same), out_specs=(own, own)
    )
    def draw(keys, c, key):
        return flow.sample(keys[0], (), c), flow.sample(key, (), c)

    keys = jax.random.split(key, 8)
    apart, alike = jax.jit(draw)(keys, C, key)
    parts = list(zip(keys, np.split(C, 8), strict=True))
    by_hand = [flow.sample(k, (), c) for k, c in parts]
    np.testing.assert_allclose(apart, np.concatenate(by_hand), atol=1e-5)
    by_hand = [flow.sample(key, (), c) for _, c in parts]
    np.testing.assert_allclose(alike, np.concatenate(by_hand), atol=1e-5)


@pytest.mark.slow
def test_gradients_are_those_of_one_device():
    flow = flow_of()

    def gradient(x, c):
        grads = jax.grad(lambda flow: flow.log_prob(x, c).mean())(flow)
        return [np.asarray(g) for g in jax.tree.leaves(nnx.state(grads, nnx.Param))]

    alone = gradient(X, C)
    mesh = jax.make_mesh((8,), ("rows",))
    with jax.set_mesh(mesh):
        where = jax.NamedSharding(mesh, PartitionSpec("rows"))
        many = gradient(*jax.device_put((X, C), where))
    for one, other in zip(alone, many, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_a_layer_writes_comes_out():
    rngs = nnx.Rngs(0)
    trunk = nnx.Sequential(nnx.Linear(1, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs))
    layers = [rn.MixtureCDFCoupling(2, trunk=trunk, mask=m, rngs=rngs)
              for m in ([True, False], [False, True])]  # fmt: skip
    flow = rn.GaussianizationFlow(layers)
    mesh = jax.make_mesh((8,), ("rows",))
    with jax.set_mesh(mesh):
        where = jax.NamedSharding(mesh, PartitionSpec("rows"))
        flow.log_prob(jax.device_put(X, where))
    assert np.abs(trunk.layers[1].mean[...]).max() > 0


@pytest.mark.slow
def test_a_step_of_the_users_own_moves_a_flow_from_outside_of_the_mesh():
    flow, mesh = flow_of(), jax.make_mesh((8,), ("rows",))
    with jax.set_mesh(mesh):
        where = jax.NamedSharding(mesh, PartitionSpec("rows"))
        x, c = jax.device_put((X, C), where)
        grads = jax.grad(lambda flow: flow.log_prob(x, c).mean())(flow)
        moved = jax.tree.map(lambda a, g: a - 0.1 * g, flow, grads)
    assert np.isfinite(moved.log_prob(X, C)).all()


@pytest.mark.slow
def test_a_warm_start_leaves_arrays_where_they_are():
    x = np.random.default_rng(2).normal(size=(64, 2)).astype(np.float32) ** 3
    flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
    alone, _ = rn.warm_start(flow, x, key=jax.random.key(0))
    mesh = jax.make_mesh((8,), ("rows",))
    with jax.set_mesh(mesh):
        flow = jax.device_put(flow, jax.NamedSharding(mesh, PartitionSpec()))
        rows = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("rows")))
        many, _ = rn.warm_start(flow, rows, key=jax.random.key(0))
    for one, other in zip(*map(jax.tree.leaves, (alone, many)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert other.sharding.mesh == mesh
