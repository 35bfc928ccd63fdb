import contextvars
import json

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn.stack import runs_of
from tests.contracts import check_bijector


def flow_of(num_features, context_features=0, **options):
    options = {"num_components": 3, "hidden": (8,), **options}
    return rn.coupling_flow(
        num_features, 2, context_features=context_features, rngs=nnx.Rngs(0), **options
    )


@pytest.fixture(params=["graph", "tree"])
def nnx_mode(request):
    modes = nnx.set_graph_mode, nnx.set_graph_updates
    if request.param == "tree":
        for set_mode in modes:
            set_mode(False)
    yield request.param
    for set_mode in modes:
        set_mode(True)


@pytest.mark.parametrize(
    ("num_features", "context_features"),
    [
        (1, 2),
        (3, 0),
        *(
            pytest.param(d, c, marks=pytest.mark.slow)
            for d, c in [(1, 0), (3, 2), (2, 0), (2, 2), (5, 0), (5, 2)]
        ),
    ],
)
def test_flow_is_a_bijection_with_a_density(num_features, context_features, nnx_mode):
    flow = flow_of(num_features, context_features)
    x = jax.random.normal(jax.random.key(1), (6, num_features))
    context = jax.random.normal(jax.random.key(2), (context_features,))
    context = context if context_features else None
    check_bijector(flow.bijector(context), x, rtol=1e-3, atol=1e-4)
    log_prob = flow.log_prob(x, context)
    distribution = flow.distribution(context)
    np.testing.assert_allclose(distribution.log_prob(x), log_prob, rtol=1e-4)
    assert distribution.sample(seed=0).shape == (num_features,)


def test_context_may_differ_between_points():
    flow = flow_of(2, 1)
    x = jnp.zeros((3, 2))
    context = jnp.array([[-1.0], [0.0], [1.0]])
    together = flow.log_prob(x, context)
    apart = jnp.stack([flow.log_prob(x[i], context[i]) for i in range(3)])
    np.testing.assert_allclose(together, apart, rtol=1e-5)
    assert np.ptp(together) > 0


def test_samples_have_the_shape_and_the_density():
    flow = flow_of(3)
    for shape, full in ((5, (5,)), ((), ()), ((2, 4), (2, 4))):
        x, log_prob = flow.sample_and_log_prob(jax.random.key(0), shape)
        assert x.shape == (*full, 3)
        assert log_prob.shape == full
    x, log_prob = flow.sample_and_log_prob(jax.random.key(0), 200)
    np.testing.assert_allclose(flow.log_prob(x), log_prob, atol=0.05)
    np.testing.assert_array_equal(flow.sample(jax.random.key(0), 200), x)


def few(values):
    return contextvars.ContextVar("few_values", default=values)


# How equal blocks are applied, whatever their size.
WAYS = {
    "written out": {"_few_values": few(10**9)},
    "scanned": {"_few_values": few(0)},
    "few rows at a time": {"_few_values": few(0), "_BLOCK_VALUES": 100},
}


def choose(way, monkeypatch):
    for name, value in WAYS[way].items():
        monkeypatch.setattr(f"rbig_nnx.nn.stack.{name}", value)
    jax.clear_caches()  # programs of the other ways


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    choose(request.param, monkeypatch)
    yield request.param
    jax.clear_caches()


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


@pytest.mark.parametrize("way", ["scanned", "few rows at a time"])
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


@pytest.mark.parametrize("num_features", [1, 2, 5])
def test_every_parameter_gets_a_gradient(num_features):
    flow = flow_of(num_features)
    x = jax.random.normal(jax.random.key(1), (64, num_features))
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)

    def loss(params):
        return -jnp.mean(nnx.merge(graphdef, params, rest).log_prob(x))

    grads = nnx.to_pure_dict(jax.grad(loss)(params))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        assert np.any(grad != 0), path


class Doubled(nnx.Module, distrax.Bijector):
    """A user's layer that is a Distrax bijector itself."""

    def __init__(self):
        distrax.Bijector.__init__(self, event_ndims_in=1)
        self.log_scale = nnx.Param(jnp.log(2.0))

    def forward_and_log_det(self, x):
        log_scale = self.log_scale[...]
        return x * jnp.exp(log_scale), jnp.full(x.shape[:-1], x.shape[-1] * log_scale)

    def inverse_and_log_det(self, y):
        log_scale = self.log_scale[...]
        return y * jnp.exp(-log_scale), jnp.full(y.shape[:-1], -y.shape[-1] * log_scale)


def test_users_layers_compose():
    flow = rn.GaussianizationFlow([Doubled(), rn.MixtureCDFMarginal(2), Doubled()])
    x = jax.random.normal(jax.random.key(1), (6, 2))
    check_bijector(flow.bijector(), x)
    with pytest.raises(ValueError, match="of type Doubled cannot be described"):
        rn.to_config(flow)
    scanned = rn.GaussianizationFlow(
        [rn.ScannedBlocks([[Doubled()]] * 2)], num_features=2
    )
    np.testing.assert_allclose(scanned.bijector().forward(x), 4 * x, rtol=1e-6)
    with pytest.raises(ValueError, match="of type Doubled cannot be described"):
        rn.to_config(scanned)


def test_something_that_is_no_layer_is_refused():
    flow = rn.GaussianizationFlow([nnx.Linear(2, 2, rngs=nnx.Rngs(0))], num_features=2)
    with pytest.raises(TypeError, match=r"a layer must be a distrax\.Bijector.*Linear"):
        flow.log_prob(jnp.zeros(2))


@pytest.mark.parametrize(
    ("family", "scan_blocks"),
    [("gaussian", False), ("logistic", False), ("gaussian", True)],
)
def test_config_rebuilds_the_flow(family, scan_blocks):
    options = {"dtype": jnp.bfloat16, "activation": jax.nn.silu}
    flow = flow_of(3, 2, family=family, scan_blocks=scan_blocks, **options)
    config = json.loads(json.dumps(rn.to_config(flow)))
    again = rn.from_config(config, rngs=nnx.Rngs(1))
    nnx.update(again, nnx.state(flow))
    x, context = jnp.ones((4, 3)), jnp.ones(2)
    np.testing.assert_array_equal(again.log_prob(x, context), flow.log_prob(x, context))
    assert rn.to_config(again) == rn.to_config(flow)


def test_unknown_layer_type_is_refused():
    with pytest.raises(ValueError, match="`type` must be one of"):
        rn.from_config(
            {"layers": [{"type": "Nope"}], "num_features": 2, "context_features": 0},
            rngs=nnx.Rngs(0),
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.log_prob(jnp.zeros((4, 2))), "`x` must have 3 features"),
        (lambda f: f.log_prob(jnp.zeros(())), "`x` must have 3 features"),
        (lambda f: f.log_prob(jnp.zeros(3, complex)), "`x` must be real"),
        (lambda f: f.log_prob(jnp.zeros(3), jnp.zeros(1)), "`context` must be None"),
    ],
)
def test_bad_input_of_an_unconditional_flow(call, message):
    with pytest.raises(ValueError, match=message):
        call(flow_of(3))


def test_bad_context_of_a_conditional_flow():
    flow = flow_of(2, 2)
    with pytest.raises(ValueError, match="`context` must be given"):
        flow.log_prob(jnp.zeros(2))
    with pytest.raises(ValueError, match="`context` must have 2 features"):
        flow.log_prob(jnp.zeros(2), jnp.zeros(3))


def test_couplings_that_do_not_cover_every_feature_once_are_refused():
    def coupling(*mask):
        return rn.MixtureCDFCoupling(
            len(mask), mask=mask, hidden=(4,), rngs=nnx.Rngs(0)
        )

    first, second = coupling(True, False, True), coupling(False, False, True)
    with pytest.raises(
        ValueError, match=r"features \[1\] more than once and \[2\] never"
    ):
        rn.GaussianizationFlow([first, second])
    rotation = rn.HouseholderRotation(3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="exactly once"):
        rn.GaussianizationFlow([rotation, first, rotation])
    whole = [first, coupling(False, True, True), coupling(True, True, False)]
    rn.GaussianizationFlow([rotation, *whole, rotation, *whole])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: rn.GaussianizationFlow([]), "at least one layer"),
        (lambda: rn.GaussianizationFlow([Doubled()]), "`num_features` must be given"),
        (
            lambda: rn.GaussianizationFlow([rn.Standardize(2), rn.Standardize(3)]),
            "agree on the number of features",
        ),
        (lambda: rn.coupling_flow(0, 1, rngs=nnx.Rngs(0)), "must be at least 1"),
        (lambda: rn.diagonal_flow(2, 0, rngs=nnx.Rngs(0)), "must be at least 1"),
    ],
)
def test_bad_compositions_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
