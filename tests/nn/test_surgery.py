"""Flows made from flows: the same density, and what was added trains."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.math.params import MixtureParams, exact_identity, parts_of, split
from tests.nn.users import Doubled, network
from tests.slow import slow

_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(40, 2)).astype(np.float32) ** 3
C = _RANDOM.normal(size=(40, 4)).astype(np.float32)


def moved(flow, scale=0.1):
    """The flow as after a training: every parameter elsewhere."""
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)
    leaves, treedef = jax.tree.flatten(params)
    random = np.random.default_rng(1)
    leaves = [a + (scale * random.normal(size=a.shape)).astype(a.dtype) for a in leaves]
    return nnx.merge(graphdef, treedef.unflatten(leaves), rest, copy=True)


def build(num_blocks=1, **change):
    arguments = {"num_components": 2, "hidden": (4,)} | change
    return moved(rn.coupling_flow(2, num_blocks, **arguments, rngs=nnx.Rngs(0)))


def diagonal(num_features=2, **change):
    flow = rn.diagonal_flow(
        num_features, 1, num_components=2, **change, rngs=nnx.Rngs(0)
    )
    return moved(flow)


def assert_same_density(flow, wide, x=X, atol=1e-5):
    """Also where a context has more columns than before."""
    ours, theirs = (
        C[:, :c] if c else None for c in (f.context_features for f in (flow, wide))
    )
    before = np.asarray(flow.log_prob(x, ours))
    np.testing.assert_allclose(wide.log_prob(x, theirs), before, rtol=1e-5, atol=atol)


def widened(flow, **change):
    return rn.widen(flow, **change, rngs=nnx.Rngs(1))


CASES = {
    "marginal": (diagonal, {"num_components": 5, "num_blocks": 2}),
    "coupling": (build, {"num_components": 3, "hidden": (9,), "context_features": 2}),
    "many components": (build, {"num_components": 7}),
    "hidden": (build, {"hidden": (9,)}),
    "context": (build, {"context_features": 2}),
    "blocks": (build, {"num_blocks": 3}),
}
EVERYTHING = {
    "num_components": 3,
    "hidden": (6,),
    "context_features": 3,
    "num_blocks": 2,
}


@pytest.mark.parametrize("case", [*list(CASES)[:2], *map(slow, list(CASES)[2:])])
def test_a_wider_flow_is_the_same_density(case):
    make, change = CASES[case]
    flow = make()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(flow)))
    wide = widened(flow, **change)
    assert_same_density(flow, wide)
    jax.tree.map(
        np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(flow))
    )
    numbers = [
        layer.num_components for layer in wide.layers if hasattr(layer, "family")
    ]
    assert set(numbers) == {change.get("num_components", 2)}
    assert wide.context_features == change.get("context_features", 0)


@pytest.mark.parametrize(
    "change",
    [
        slow({"context_features": 2}),
        slow({"scan_blocks": True}),
        slow({"activation": jax.nn.tanh, "tails": True, "whiten": True}),
        slow({"hidden": (4, 3)}),
        slow({"anchor_weight": 0.0}),
    ],
    ids=" ".join,
)
def test_everything_at_once(change):
    flow = build(**change)
    more = EVERYTHING | (
        {"hidden": (6, 7)} if len(change.get("hidden", ())) == 2 else {}
    )
    wide = widened(flow, **more)
    assert_same_density(flow, wide)
    like = rn.coupling_flow(
        2,
        2,
        **{**change, **{k: v for k, v in more.items() if k != "num_blocks"}},
        rngs=nnx.Rngs(0),
    )
    assert jax.tree.structure(nnx.state(like)) == jax.tree.structure(nnx.state(wide))
    assert rn.to_config(wide) == rn.to_config(like)


@pytest.mark.slow
def test_a_fitted_flow_of_several_features():
    x = _RANDOM.normal(size=(300, 3)).astype(np.float32) ** 3
    flow = rn.diagonal_flow(
        3, 1, num_components=3, tails=True, whiten=True, rngs=nnx.Rngs(0)
    )
    flow, _ = rn.warm_start(flow, x, key=jax.random.key(0))
    wide = widened(flow, num_components=4, num_blocks=2)
    assert_same_density(flow, wide, x)
    y, _ = wide.layers[-2](jnp.asarray(x))  # an odd number of reflections
    np.testing.assert_array_equal(y, x)


def one_feature():
    options = {"num_components": 2, "hidden": (4,), "context_features": 1}
    return moved(rn.coupling_flow(1, 1, **options, rngs=nnx.Rngs(0)))


@pytest.mark.slow
def test_one_feature_given_a_context():
    flow = one_feature()
    wide = widened(flow, num_components=3, num_blocks=3, context_features=2)
    kinds = [type(layer).__name__ for layer in wide.layers[1:]]
    assert kinds == ["MixtureCDFCoupling", "HouseholderRotation"] * 3
    assert_same_density(flow, wide, X[:, :1])


def test_a_context_of_another_scale_comes_with_its_rows():
    flow = one_feature()
    flow.standardize_context.mean[...] = jnp.array([0.5])
    rows = np.stack([C[:, 0], 1_000 + 50 * C[:, 1]], axis=-1)
    wide = widened(flow, context_features=2, context=rows)
    np.testing.assert_allclose(wide.standardize_context.mean[0], 0.5)
    before = flow.log_prob(X[:, :1], rows[:, :1])
    np.testing.assert_allclose(wide.log_prob(X[:, :1], rows), before, atol=1e-5)
    for wrong in (rows[:, :1], np.ones((9, 2))):
        with pytest.raises(
            ValueError, match="`context` must be rows of 2 features, each"
        ):
            widened(flow, context_features=2, context=wrong)


@pytest.mark.slow
def test_logistic_mixtures():
    flow = build(family="logistic")
    wide = widened(flow, num_components=3, num_blocks=2)
    assert_same_density(flow, wide)
    assert [la.family for la in wide.layers if hasattr(la, "family")] == [
        "logistic",
        "logistic",
        "gaussian",
        "gaussian",
    ]


@pytest.mark.slow
@pytest.mark.x64
def test_double_precision():
    flow = build(param_dtype=jnp.float64)
    wide = widened(flow, **EVERYTHING)
    assert {a.dtype for a in jax.tree.leaves(wide)} == {np.dtype(np.float64)}
    assert_same_density(flow, wide, X.astype(np.float64), atol=1e-6)


def types_of(flow):
    """The dtypes by layer and name of the variable: what is fixed is wider."""
    named = {
        (type(layer).__name__, path[-1]): variable.dtype.name
        for layer in flow.layers
        for path, variable in nnx.to_flat_state(nnx.state(layer))
    }
    assert named["Standardize", "mean"] == "float32"
    return named


@pytest.mark.slow
def test_sixteen_bits():
    flow = build(param_dtype=jnp.bfloat16)
    wide = widened(flow, hidden=(6,), context_features=2, num_blocks=2)
    trained = nnx.state(wide.layers, nnx.Param)
    assert {a.dtype.name for a in jax.tree.leaves(trained)} == {"bfloat16"}
    assert types_of(wide) == types_of(flow)
    assert_same_density(flow, wide)
    with pytest.raises(ValueError, match=r"float32 or float64; got .*bfloat16.*astype"):
        widened(flow, num_components=3)
    lifted = jax.tree.map(lambda a: a.astype(jnp.float32), flow)
    assert_same_density(lifted, widened(lifted, num_components=3))
    computed = build(dtype=jnp.bfloat16)
    assert_same_density(computed, widened(computed, num_components=3, hidden=(8,)))


@pytest.mark.slow
def test_what_was_added_has_a_gradient():
    flow = build()
    wide = widened(flow, **EVERYTHING)

    def loss(flow):
        return -flow.log_prob(X, C[:, :3]).mean()

    grads = jax.grad(loss)(wide)
    first, out = (
        [
            la.conditioner.trunk.layers[0]
            for la in grads.layers
            if hasattr(la, "conditioner")
        ],
        [la.conditioner.out for la in grads.layers if hasattr(la, "conditioner")],
    )
    assert np.all(np.any(first[0].kernel[...][-3:] != 0, axis=1))  # the context's rows
    assert np.any(out[0].kernel[...][4:] != 0)  # what the new units give
    parts = MixtureParams.unpack(out[0].bias[...], 3).means[0]
    source, _ = parts_of(flow.layers[2].mixture_params().logits, 3)
    (pair,) = np.flatnonzero(np.bincount(source[0]) == 2)
    one, other = parts[np.flatnonzero(source[0] == pair)]
    assert one != 0
    assert one != other
    assert np.any(out[2].kernel[...] != 0)  # the new block
    assert np.any(out[2].bias[...] != 0)


def test_stacked_blocks_and_lists_convert():
    listed = build(3)
    stacked = rn.stack_blocks(listed)
    assert isinstance(stacked.layers[1], rn.ScannedBlocks)
    assert stacked.layers[1].num_blocks == 3
    assert_same_density(listed, stacked)
    back = rn.unstack_blocks(stacked)
    assert rn.to_config(back) == rn.to_config(listed)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(back), nnx.state(listed))
    again = rn.stack_blocks(stacked)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(stacked))
    one = rn.stack_blocks(diagonal())
    assert one.layers[1].num_blocks == 1


@pytest.mark.parametrize("axes", ["Auto", slow("Explicit")])
def test_layers_on_several_devices_are_brought_together(axes):
    axis_types = (getattr(jax.sharding.AxisType, axes),)
    mesh = jax.make_mesh((8,), ("model",), axis_types=axis_types)
    with jax.set_mesh(mesh):
        options = {
            "num_components": 8,
            "kernel_metadata": {"out_sharding": (None, "model")},
        }
        flow = rn.coupling_flow(2, 1, hidden=(8,), **options, rngs=nnx.Rngs(0))
        kernel = flow.layers[2].conditioner.out.kernel
        assert len(kernel.get_value().devices()) == 8
        wide = widened(flow, num_components=16, hidden=(16,), context_features=2)
    found = wide.layers[2].conditioner.out.kernel
    assert found.shape == (16, 48)
    assert found.get_metadata("out_sharding") == (None, "model")
    columns = MixtureParams.unpack(found[...], 16).logits[:8, 0, :8]
    before = MixtureParams.unpack(jnp.asarray(np.asarray(kernel[...])), 8).logits[:, 0]
    np.testing.assert_array_equal(columns, before)


def test_shapes_can_be_asked_for():
    abstract = nnx.eval_shape(lambda: widened(build(), **EVERYTHING))
    wide = widened(build(), **EVERYTHING)
    shapes = [
        [(a.shape, a.dtype) for a in jax.tree.leaves(f)] for f in (abstract, wide)
    ]
    assert shapes[0] == shapes[1]


def test_blocks_that_differ_are_stacked_apart():
    layers = [*diagonal().layers, *diagonal(num_reflections=3).layers[1:]]
    stacked = rn.stack_blocks(rn.GaussianizationFlow(layers))
    assert [getattr(la, "num_blocks", 0) for la in stacked.layers] == [0, 1, 1]
    with pytest.raises(ValueError, match="must have blocks to stack"):
        rn.stack_blocks(rn.GaussianizationFlow([rn.Standardize(2)]))


class Shifted(rn.GaussianizationFlow):
    """Somebody's flow."""


def test_a_subclass_and_layers_of_its_own_stay():
    flow = Shifted([Doubled(), *build().layers], num_features=2)
    wide = widened(flow, **EVERYTHING)
    assert type(wide) is Shifted
    assert_same_density(flow, wide)
    distrax_first = Shifted([distrax.Block(distrax.Tanh(), 1), *build().layers])
    assert type(widened(distrax_first, num_components=3)) is Shifted


class Scaled(rn.MixtureCDFMarginal):
    """Of mixtures that are N(0, 1) it makes no identity."""

    def bijector(self, context=None):
        double = distrax.Block(distrax.ScalarAffine(0.0, 2.0), 1)
        return distrax.Chain([double, super().bijector(context)])


def test_what_cannot_be_widened_is_told():
    flow = build(context_features=1)
    for change, message in (
        (
            {"num_components": 1},
            "`num_components` must be at least the flow's 2.* got 1",
        ),
        ({"num_blocks": 0}, "`num_blocks` must be at least the flow's 1"),
        ({"hidden": (4, 4)}, r"`hidden` must be 1 widths, as the flow's \(4,\)"),
        ({"hidden": (3,)}, "`hidden` must be at least the flow's 4"),
        ({"context_features": 0}, "`context_features` must be at least the flow's 1"),
    ):
        with pytest.raises(ValueError, match=message):
            widened(flow, **change)
    with pytest.raises(ValueError, match="`rngs` must be given for wider `hidden`"):
        rn.widen(flow, hidden=(8,))
    with pytest.raises(ValueError, match="`context_features` needs couplings"):
        widened(diagonal(), context_features=1)
    with pytest.raises(ValueError, match=r"`flow` must be a Gauss.* got Linear"):
        widened(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), num_components=3)
    with pytest.raises(ValueError, match=r"must hold arrays.*eval_shape\(lambda: rbig"):
        rn.stack_blocks(nnx.eval_shape(diagonal))
    shared = diagonal()
    shared.layers[1].vectors = diagonal().layers[1].vectors
    both = rn.GaussianizationFlow([*shared.layers, *shared.layers[1:]])
    with pytest.raises(ValueError, match="variables of their own"):
        widened(both, num_components=3)
    last = diagonal()
    last.layers.insert(2, Doubled())
    with pytest.raises(ValueError, match="a layer of type Doubled in the last block"):
        widened(last, num_blocks=2)
    last = diagonal()
    last.layers[2] = Scaled(2, num_components=2)
    with pytest.raises(ValueError, match="a layer of type Scaled in the last block"):
        widened(last, num_blocks=2)


def test_members_of_an_ensemble_are_converted_one_by_one():
    make = nnx.vmap(lambda rngs: rn.diagonal_flow(2, 2, num_components=1, rngs=rngs))
    ensemble = make(nnx.Rngs(0).split(3))
    for convert in (rn.stack_blocks, rn.unstack_blocks, widened):
        with pytest.raises(
            ValueError, match=r"ensemble of shape \(3,\)\. Convert each"
        ):
            convert(ensemble)

    members = [jax.tree.map(lambda a, i=i: a[i], ensemble) for i in range(3)]
    wide = [widened(member, num_components=2, num_blocks=3) for member in members]
    together = jax.tree.map(lambda *a: jnp.stack(a), *wide)
    found = nnx.vmap(lambda flow: flow.log_prob(X))(together)
    np.testing.assert_allclose(found[1], members[1].log_prob(X), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_networks_of_ones_own_keep_what_they_read():
    layer = rn.MixtureCDFCoupling(
        2, trunk=network("dropout"), num_components=2, rngs=nnx.Rngs(0)
    )
    other = rn.MixtureCDFCoupling(
        2, mask=(False, True), num_components=2, rngs=nnx.Rngs(0)
    )
    flow = moved(rn.GaussianizationFlow([layer, other]))
    flow.eval()
    for name, value in (("hidden", (9, 9)), ("context_features", 1)):
        with pytest.raises(
            ValueError, match=f"`{name}` can only grow in networks of this"
        ):
            widened(flow, **{name: value})
    assert_same_density(flow, widened(flow, num_components=3))


def test_parts_of_components_by_hand():
    params = MixtureParams(
        *jnp.array([[[0.0, 1.0]], [[2.0, -1.0]], [[0.0, jnp.log(3.0)]]])
    )
    source, place = parts_of(params.logits, 5)
    np.testing.assert_array_equal(source, [[0, 1, 1, 0, 1]])
    np.testing.assert_array_equal(place, [[-1, -1, 0, 1, 1]])
    more = split(params, source, 0.1 * place)
    np.testing.assert_allclose(more.means, [[1.9, -1.3, -1.0, 2.1, -0.7]], rtol=1e-6)
    weights = jax.nn.softmax(more.logits)[0]
    both = jax.nn.softmax(params.logits)[0]
    np.testing.assert_allclose(weights[0] + weights[3], both[0], rtol=1e-6)
    np.testing.assert_allclose(weights[1] + weights[2] + weights[4], both[1], rtol=1e-6)
    variances = jnp.exp(2 * more.log_scales[0])
    np.testing.assert_allclose(variances[0] + 0.01, 1, rtol=1e-6)
    np.testing.assert_allclose(variances[1] + 0.06, 9, rtol=1e-6)  # 2/3 of 0.3 squared


@pytest.mark.parametrize("num_components", [1, 2, 9])
def test_the_exact_identity_is_a_standard_normal(num_components):
    logits, means, log_scales = exact_identity(num_components)
    x = np.linspace(-5, 5, 21)[:, None]
    parts = scipy.stats.norm.logpdf(x, means, np.exp(log_scales))
    found = scipy.special.logsumexp(parts + jax.nn.log_softmax(logits), axis=-1)
    np.testing.assert_allclose(found, scipy.stats.norm.logpdf(x[:, 0]), atol=2e-6)
    assert len(set(means.tolist())) == num_components
