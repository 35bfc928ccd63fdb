"""Networks with state, and layers that take the place of this package's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn.stack import LayerStack
from tests.nn.users import Loud, network, one_layer

X, C = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6, 1)


def values(module):
    """Every variable by path."""
    state = nnx.to_flat_state(nnx.state(module))
    raw = {".".join(map(str, path)): variable.get_value() for path, variable in state}
    keys = jax.dtypes.prng_key
    return {
        name: jax.random.key_data(a) if jnp.issubdtype(a.dtype, keys) else a
        for name, a in raw.items()
    }


def written(before, after):
    """The last parts of the names of variables that differ."""
    differ = [n for n in after if not np.array_equal(before.get(n, ()), after[n])]
    return {name.rpartition(".")[2] for name in differ}


WRITES = {
    "dropout": {"count"},
    "batch norm": {"mean", "var"},
    "own stream": {"count"},
    "linen": {"count"},
}


@pytest.mark.parametrize("kind", [*WRITES, "sow"])
def test_a_coupling_is_built_without_touching_its_network(kind):
    trunk = network(kind)
    before = values(trunk)
    layer = one_layer(trunk=trunk)
    assert written(before, values(trunk)) == set()
    assert layer.conditioner.trunk is trunk
    assert layer.conditioner.out.kernel.shape == (4, 3)


@pytest.mark.parametrize("kind", WRITES)
def test_what_a_network_writes_stays_in_the_flow(kind):
    flow = rn.GaussianizationFlow([one_layer(trunk=network(kind))])
    before = values(flow)
    first, second = flow.log_prob(X, C), flow.distribution(C).log_prob(X)
    assert written(before, values(flow)) == WRITES[kind]
    assert np.array_equal(first, second) == (kind in ("batch norm", "linen"))
    if kind != "linen":  # which knows no such mode
        flow.eval()
    if kind in ("dropout", "batch norm"):
        before = values(flow)
        steady = flow.log_prob(X, C), flow.log_prob(X, C)
        np.testing.assert_array_equal(*steady)
        assert written(before, values(flow)) == set()


def test_statistics_follow_the_features():
    flow = rn.GaussianizationFlow([one_layer(trunk=network("batch norm"))])
    linear, norm = flow.layers[0].conditioner.trunk.layers
    norm.momentum = 0.75
    jax.jit(lambda flow: flow.log_prob(X, C))(flow)
    np.testing.assert_array_equal(norm.mean[...], 0)  # of a copy, as JAX has it
    nnx.jit(lambda flow: flow.log_prob(X, C))(flow)
    np.testing.assert_allclose(norm.mean[...], linear(C).mean(axis=0) / 4, rtol=1e-5)


def stack_of_three(way):
    """Three couplings with statistics, applied one way, and the layers by themselves."""
    layers = [one_layer(trunk=network("batch norm")) for _ in range(3)]
    for i, layer in enumerate(layers):
        layer.conditioner.trunk.layers[0].bias[...] += i
    alone = nnx.clone(nnx.List(layers))
    if way == "stored stacked":
        blocks = rn.ScannedBlocks([[layer] for layer in layers])
        return [blocks], lambda: blocks.blocks(), alone
    return layers, lambda: [[layer] for layer in layers], alone


@pytest.mark.parametrize(
    ("way", "direction"),
    [
        ("written out", "forward_and_log_det"),
        ("scanned", "inverse_and_log_det"),
        ("stored stacked", "forward_and_log_det"),
    ],
)
def test_statistics_come_out_of_every_way_to_apply_blocks(way, direction, monkeypatch):
    if way == "scanned":
        monkeypatch.setattr("rbig_nnx.nn.stack.FEW_BLOCKS", 2)
    layers, blocks, alone = stack_of_three(way)
    jax.clear_caches()
    y, _ = getattr(LayerStack(layers, jnp.asarray(C)), direction)(X)
    x = X
    order = 1 if direction.startswith("forward") else -1
    for layer in list(alone)[::order]:
        x, _ = getattr(layer.bijector(jnp.asarray(C)), direction)(x)
    np.testing.assert_allclose(y, x, atol=1e-5)
    for (layer,), other in zip(blocks(), alone, strict=True):
        mean = layer.conditioner.trunk.layers[1].mean[...]
        wanted = other.conditioner.trunk.layers[1].mean[...]
        np.testing.assert_allclose(mean, wanted, atol=1e-6)
        assert abs(wanted).max() > 1e-4
    jax.clear_caches()


def test_a_gap_is_filled_by_the_first_call():
    class Remembers(nnx.Linear):
        def __init__(self, *sizes, rngs):
            super().__init__(*sizes, rngs=rngs)
            self.last = nnx.data(None)

        def __call__(self, x):
            y = super().__call__(x)
            self.last = nnx.Cache(y.mean())
            return y

    trunk = Remembers(1, 4, rngs=nnx.Rngs(0))
    flow = rn.GaussianizationFlow([one_layer(trunk=trunk)])
    first, second = flow.log_prob(X, C), flow.log_prob(X, C)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(trunk.last[...], trunk(C).mean(), rtol=1e-5)


def test_a_stream_that_two_networks_share_moves_on_for_both():
    rngs = nnx.Rngs(0, noise=1)
    trunks = [network("own stream", rngs=rngs) for _ in range(2)]
    layers = [one_layer(trunk=trunk) for trunk in trunks]
    LayerStack(layers, jnp.asarray(C)).forward_and_log_det(X)
    assert rngs.noise.count[...] == 2


def test_sown_values_are_captured_also_where_blocks_are_stacked():
    rngs = nnx.Rngs(0)
    blocks = [
        [one_layer(trunk=network("sow")), rn.HouseholderRotation(1, rngs=rngs)]
        for _ in range(2)
    ]
    flows = [
        rn.GaussianizationFlow([*blocks[0], *blocks[1]]),
        rn.GaussianizationFlow([rn.ScannedBlocks(blocks)]),
    ]
    shapes = []
    for flow in flows:
        _, found = nnx.capture(flow.log_prob, nnx.Intermediate)(X, C)
        shapes.append([a.shape for a in jax.tree.leaves(found)])
    assert shapes == [[(6, 4), (6, 4)], [(2, 6, 4)]]


def twice(*args, **options):
    return 2 * jax.lax.dot_general(*args, **options)


def lora(rows, columns, rngs):
    ones = nnx.initializers.ones
    return nnx.LoRALinear(rows, columns, lora_rank=2, b_initializer=ones, rngs=rngs)


def doubled(rows, columns, rngs):
    return nnx.Linear(rows, columns, dot_general=twice, rngs=rngs)


def without_bias(rows, columns, rngs):
    return nnx.Linear(rows, columns, use_bias=False, rngs=rngs)


@pytest.mark.parametrize("make", [lora, Loud, doubled, without_bias])
@pytest.mark.parametrize("place", ["trunk", "out"])
def test_a_layer_that_took_the_place_of_another_is_called(make, place):
    conditioner = one_layer().conditioner
    new = make(1, 4, rngs=nnx.Rngs(1)) if place == "trunk" else None
    new = new or make(4, 3, rngs=nnx.Rngs(1))
    hidden = jax.nn.relu(conditioner.trunk.layers[0](C))
    if place == "trunk":
        conditioner.trunk.layers[0] = new
        wanted = nnx.capture(lambda n: conditioner.out(jax.nn.relu(n(C))))(new)
    else:
        conditioner.out = new
        wanted = nnx.capture(lambda n: n(hidden))(new)
    found = nnx.capture(lambda c: c(jnp.zeros((6, 0)), C))(conditioner)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lora, "LoRALinear, which adds to it"),
        (without_bias, "Linear, which holds none"),
    ],
)
def test_an_output_layer_that_cannot_be_constant_is_named(make, text):
    conditioner = one_layer().conditioner
    conditioner.out = make(4, 3, rngs=nnx.Rngs(1))
    before = values(conditioner)
    with pytest.raises(ValueError, match=f"{text}. Warm-start the flow first"):
        conditioner.make_constant(jnp.ones(3))
    assert written(before, values(conditioner)) == set()


def test_an_adapter_that_starts_at_zero_is_made_constant():
    conditioner = one_layer().conditioner
    conditioner.out = nnx.LoRALinear(4, 3, lora_rank=2, rngs=nnx.Rngs(1))
    conditioner.make_constant(jnp.arange(3.0))
    np.testing.assert_array_equal(
        conditioner(jnp.zeros((1, 0)), C[:1]), [[0.0, 1.0, 2.0]]
    )


@pytest.mark.slow
def test_a_warm_start_keeps_what_networks_write():
    rows = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    for kind in ("batch norm", "dropout"):
        flow = rn.GaussianizationFlow([one_layer(trunk=network(kind))])
        warm, _ = rn.warm_start(flow, rows, context=rows, key=jax.random.key(0))
        changed = written(values(flow), values(warm))
        assert changed >= WRITES[kind]
        assert rn.output_kernel_magnitudes(warm) == (0.0,)
