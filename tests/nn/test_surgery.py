"""Flows made from flows: the same density, and what was added trains."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.math.params import MixtureParams, parts_of
from tests.nn.flows import C, X, assert_same_density, build, diagonal, moved, widened
from tests.nn.users import Doubled, network
from tests.slow import slow

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
        slow({"marginals": True, "whiten": True}),
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
    x = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32) ** 3
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
    return {
        (type(layer).__name__, path[-1]): variable.dtype.name
        for layer in flow.layers
        for path, variable in nnx.to_flat_state(nnx.state(layer))
    }


@pytest.mark.slow
def test_sixteen_bits():
    flow = build(param_dtype=jnp.bfloat16)
    wide = widened(flow, hidden=(6,), context_features=2, num_blocks=2)
    trained = nnx.state(wide.layers, nnx.Param)
    assert {a.dtype.name for a in jax.tree.leaves(trained)} == {"bfloat16"}
    assert types_of(wide) == types_of(flow)
    assert types_of(flow)["Standardize", "mean"] == "float32"
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
