import json

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.contracts import check_bijector
from tests.nn.users import Doubled
from tests.slow import slow


def flow_of(num_features, context_features=0, **options):
    options = {"num_components": 3, "hidden": (8,), **options}
    return rn.coupling_flow(
        num_features, 2, context_features=context_features, rngs=nnx.Rngs(0), **options
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_features", "context_features"),
    [
        (3, 0),
        *(
            slow(d, c)
            for d, c in [(1, 0), (1, 2), (3, 2), (2, 0), (2, 2), (5, 0), (5, 2)]
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


def small_conditional_flow():
    return rn.coupling_flow(
        2, 1, num_components=2, hidden=(4,), context_features=3, rngs=nnx.Rngs(0)
    )


CONTEXTS = np.random.default_rng(0).normal(size=(4, 3))


@pytest.mark.slow
def test_there_is_a_density_for_each_context():
    flow, x = small_conditional_flow(), jnp.array([0.5, -1.0])
    distribution = flow.distribution(CONTEXTS)
    assert distribution.batch_shape == (4,)
    assert distribution.event_shape == (2,)
    sample, log_prob = distribution.sample_and_log_prob(
        seed=jax.random.key(0), sample_shape=5
    )
    assert sample.shape == (5, 4, 2)
    np.testing.assert_allclose(log_prob, flow.log_prob(sample, CONTEXTS), atol=1e-3)
    each = jnp.stack([flow.log_prob(x, c) for c in CONTEXTS])
    np.testing.assert_allclose(distribution.log_prob(x), each, rtol=1e-5)
    np.testing.assert_allclose(flow.log_prob(x, CONTEXTS), each, rtol=1e-5)
    tfp = distrax.to_tfp(distribution)
    np.testing.assert_allclose(tfp.log_prob(jnp.stack([x] * 4)), each, rtol=1e-5)
    assert flow.distribution(CONTEXTS[0]).batch_shape == ()


@pytest.mark.parametrize(
    ("shape", "full"), [slow((), (4,)), (10, (10, 4)), slow((2, 4), (2, 4, 4))]
)
def test_samples_lead_the_contexts(shape, full):
    flow, key = small_conditional_flow(), jax.random.key(0)
    x, log_prob = flow.sample_and_log_prob(key, shape, CONTEXTS)
    assert x.shape == (*full, 2)
    assert log_prob.shape == full
    np.testing.assert_allclose(flow.log_prob(x, CONTEXTS), log_prob, atol=1e-3)
    one = jax.eval_shape(lambda: flow.sample(key, 10, CONTEXTS[0]))
    assert one.shape == (10, 2)
    with pytest.raises(ValueError, match="`context` must be given"):
        flow.sample(key, shape)


def test_many_rows_share_one_context(monkeypatch):
    flow, x = flow_of(2, 3), jax.random.normal(jax.random.key(0), (50, 2))
    context = jnp.ones(3)
    right = flow.log_prob(x, context)
    monkeypatch.setattr("rbig_nnx.nn.stack._BLOCK_VALUES", 100)
    with rn.keep_activations(0):  # few rows at a time
        np.testing.assert_allclose(flow.log_prob(x, context[None]), right, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_rows_and_parameters_are_computed_in_float32(dtype):
    x = jnp.zeros((3, 2), dtype)
    for flow in (flow_of(2), flow_of(2, param_dtype=dtype)):
        z, log_det = jax.eval_shape(flow.forward_and_log_det, x)
        assert (z.dtype, log_det.dtype) == (jnp.float32, jnp.float32)
        drawn = jax.eval_shape(lambda key, f=flow: f.sample(key, 3), jax.random.key(0))
        assert drawn.dtype == jnp.float32


def test_integers_are_taken_by_value():
    flow = rn.GaussianizationFlow(
        [rn.Standardize(2), *flow_of(2, 1).layers[1:]], context_features=1
    )
    for layer in (flow.layers[0], flow.standardize_context):
        layer.mean[...], layer.log_scale[...] = 3e9, np.log(1e9)
    big = np.rint(3e9 + 1e9 * np.random.default_rng(0).normal(size=(9, 2)))
    right = flow.log_prob(big, big[:, :1])
    whole = big.astype(np.int64)
    for x, c in ((whole, whole[:, :1]), (whole.tolist(), whole[:, :1].tolist())):
        np.testing.assert_array_equal(flow.log_prob(x, c), right)
        # Of nine rows, where `log_prob` computes 64: not the same to the last bit.
        density = flow.distribution(c)
        np.testing.assert_allclose(density.log_prob(x), right, rtol=1e-6)
    z, _ = flow.forward_and_log_det(whole, whole[:, :1])
    back, _ = flow.inverse_and_log_det(np.asarray(z, ">f4"), whole[:, :1])
    np.testing.assert_allclose(back, big, atol=1e6)


def test_rows_and_contexts_that_float32_cannot_tell_apart_are_named():
    flow, rows = flow_of(2, 2), np.random.default_rng(0).normal(size=(99, 2))
    far = rows + np.array([0, 1e7])
    with pytest.warns(UserWarning, match="`x` is rounded to float32.* in column 1 "):
        flow.log_prob(far, rows)
    with pytest.warns(UserWarning, match="`context` is rounded.* in column 1 "):
        flow.log_prob(rows, far)
    flow.log_prob(far.astype(np.float32), rows)  # is as it is
    flow.layers[0].log_scale[...] = np.log(1e4)  # nothing, at such a scale
    flow.log_prob(far, rows)


@pytest.mark.slow
def test_samples_have_the_shape_and_the_density():
    flow = flow_of(3)
    for shape, full in ((5, (5,)), ((), ()), ((2, 4), (2, 4))):
        x, log_prob = flow.sample_and_log_prob(jax.random.key(0), shape)
        assert x.shape == (*full, 3)
        assert log_prob.shape == full
    x, log_prob = flow.sample_and_log_prob(jax.random.key(0), 200)
    np.testing.assert_allclose(flow.log_prob(x), log_prob, atol=0.05)
    np.testing.assert_array_equal(flow.sample(jax.random.key(0), 200), x)


@pytest.mark.parametrize("num_features", [slow(1), 2, slow(5)])
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


@pytest.mark.x64
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float32"])
@pytest.mark.parametrize("build", [rn.coupling_flow, rn.diagonal_flow])
def test_config_keeps_the_dtype_of_the_parameters(build, dtype):
    flow = build(2, 1, param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    config = json.loads(json.dumps(rn.to_config(flow)))
    # The usual one is not told: earlier checkpoints do not tell it.
    assert ("param_dtype" in config["layers"][-1]) == (dtype != "float32")
    again = rn.from_config(config, rngs=nnx.Rngs(1))
    trained = jax.tree.leaves(nnx.state(again, nnx.Param))
    assert {a.dtype for a in trained} == {jnp.dtype(dtype)}
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype, nnx.state(again), nnx.state(flow)
    )
    assert all(jax.tree.leaves(same))


class Shifted(rn.GaussianizationFlow):
    """A user's flow with another density."""

    def log_prob(self, x, context=None):
        return super().log_prob(x, context) - 1


def test_a_subclass_is_not_described_as_what_it_is_not():
    flow = Shifted(list(flow_of(2).layers))
    with pytest.raises(ValueError, match=r"GaussianizationFlow itself.*got Shifted"):
        rn.to_config(flow)


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
        (lambda f: f.log_prob([[0, 1, "q"]]), "`x` must hold numbers; column 2"),
        (lambda f: f.inverse_and_log_det(["a"] * 3), "`z` must hold numbers"),
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
    with pytest.raises(
        ValueError, match=r"`context` must have the leading shape of `x`"
    ):
        flow.log_prob(jnp.zeros((3, 2)), jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="`context` must hold numbers; column 1"):
        flow.distribution(np.array([1.0, "q"], object))


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
