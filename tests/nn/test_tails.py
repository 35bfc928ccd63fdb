import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.math.tails.columns import TailParams


def fitted():
    layer = rn.TailTransform(3)
    layer.set_tails(
        TailParams(
            location=np.array([0.0, 1.0, -0.5]),
            log_scale=np.array([0.0, 0.5, -1.0]),
            left=np.array([0.0, 0.3, 2.0]),
            right=np.array([0.0, 0.0, 0.1]),
        )
    )
    return layer


def test_untouched_it_is_the_identity():
    x = jnp.array([-1e30, -2.5, 0.0, 1e-30, 7.0])
    layer = rn.TailTransform(5)
    y, log_det = layer.bijector().forward_and_log_det(x)
    np.testing.assert_array_equal(y, x)
    assert log_det == 0


def test_a_column_next_to_a_fitted_one_passes_to_the_last_bit():
    x = jax.random.normal(jax.random.key(0), (50, 3))
    bijector = fitted().bijector()
    np.testing.assert_array_equal(bijector.forward(x)[:, 0], x[:, 0])
    np.testing.assert_array_equal(bijector.inverse(x)[:, 0], x[:, 0])


def test_split_merge_and_what_trains():
    layer = fitted()
    again = nnx.merge(*nnx.split(layer, nnx.Param, rn.Frozen))
    x = jax.random.normal(jax.random.key(0), (50, 3))
    np.testing.assert_array_equal(
        again.bijector().forward(x), layer.bijector().forward(x)
    )
    # From 0 too, an index has somewhere to go.
    layer = rn.TailTransform(3)

    def loss(layer):
        y, log_det = layer.bijector().forward_and_log_det(5 * x)
        return jnp.mean(jnp.sum(0.5 * y * y, -1) - log_det)

    grads = nnx.to_flat_state(nnx.grad(loss)(layer))
    assert len(grads) == 4
    assert all(np.all(leaf[...] != 0) for _, leaf in grads)


def test_a_step_is_as_long_for_a_narrow_body_as_for_a_wide_one():
    layer = rn.TailTransform(2)
    spread = np.array([1e-6, 1.0])
    params = TailParams(0.01 + 0 * spread, np.log(spread), 0 * spread, 0 * spread)
    layer.set_tails(params)
    x = jnp.asarray(0.01 + spread * np.array([[0.5], [-0.7]]), jnp.float32)
    before = layer.bijector().forward(x)
    layer.location[...] = jnp.full(2, 0.1)
    moved = layer.bijector().forward(x) - before
    np.testing.assert_allclose(moved, np.full((2, 2), -0.1), atol=2e-3)


def test_a_negative_index_is_read_as_its_absolute_value():
    layer, mirrored = fitted(), fitted()
    mirrored.left_tail[...] = -mirrored.left_tail[...]
    x = jax.random.normal(jax.random.key(0), (4, 3))
    np.testing.assert_array_equal(
        mirrored.bijector().forward(x), layer.bijector().forward(x)
    )


@pytest.mark.parametrize("build", [rn.coupling_flow, rn.diagonal_flow])
def test_the_recipes_place_maps_of_the_columns_before_the_blocks(build):
    def names(**options):
        flow = build(2, 1, **options, rngs=nnx.Rngs(0))
        return [type(layer).__name__ for layer in flow.layers]

    assert names(tails=True) == ["Standardize", "TailTransform", *names()[1:]]
    first = ["Standardize", "MixtureCDFMarginal", "Whiten"]
    assert names(marginals=True, whiten=True) == [*first, *names()[1:]]
    first.insert(1, "TailTransform")
    assert names(tails=True, marginals=True, whiten=True) == [*first, *names()[1:]]


def test_the_configuration_builds_it_again():
    flow = rn.diagonal_flow(2, 1, num_components=2, tails=True, rngs=nnx.Rngs(0))
    config = rn.to_config(flow)
    assert config["layers"][1] == {"type": "TailTransform", "num_features": 2}
    again = rn.from_config(config, rngs=nnx.Rngs(1))
    nnx.update(again, nnx.state(flow))
    x = jnp.array([[1.0, -2.0]])
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))


@pytest.fixture(scope="module")
def cauchy():
    """Rows of which one column is Cauchy, and their true log density."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.standard_cauchy(1_500), rng.normal(size=1_500)], 1)
    truth = -np.log(np.pi * (1 + x[:, 0] ** 2))
    return x, truth - 0.5 * x[:, 1] ** 2 - 0.5 * np.log(2 * np.pi)


def only_tails():
    return rn.GaussianizationFlow([rn.Standardize(2), rn.TailTransform(2)])


@pytest.mark.parametrize("holdout", [0.1, 0.0])
def test_warm_start_of_a_cauchy_column(cauchy, holdout):
    x, truth = cauchy
    warm, report = rn.warm_start(
        only_tails(), x, key=jax.random.key(0), holdout=holdout
    )
    assert report.layers[1].action == ("1" if holdout else "2") + " of 2 features"
    assert abs((truth - np.asarray(warm.log_prob(x))).mean()) < 0.02
    samples = warm.sample(jax.random.key(1), 20_000)
    # Tails of the right weight: beyond 100 a Cauchy variable is in 0.64 % of the draws.
    assert 0.004 < np.mean(np.abs(samples[:, 0]) > 100) < 0.012
    assert np.isfinite(samples).all()
    assert np.isfinite(warm.log_prob(np.array([[1e15, 0], [-1e15, 0]]))).all()


def test_a_cauchy_column_trains(cauchy):
    x, truth = cauchy
    flow, _ = rn.warm_start(only_tails(), x, key=jax.random.key(0))
    layer = flow.layers[1]
    layer.location[...] = jnp.array([0.5, 0.0])
    layer.right_tail[...] = jnp.array([0.2, 0.0])
    graphdef, trained, fixed = nnx.split(flow, nnx.Param, ...)
    x = jnp.asarray(x, jnp.float32)

    def loss(trained):
        return -nnx.merge(graphdef, trained, fixed).log_prob(x).mean()

    @jax.jit
    def step(trained, _):
        value, grads = jax.value_and_grad(loss)(trained)
        return jax.tree.map(lambda p, g: p - 0.2 * g, trained, grads), value

    _, values = jax.lax.scan(step, trained, length=300)
    gaps = truth.mean() + np.asarray(values)
    assert gaps[0] > 0.1
    assert np.all(np.diff(gaps) < 1e-4)
    assert gaps[-1] < 0.01
