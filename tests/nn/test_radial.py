import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.math.tails.radius import RadialParams

D = 6
CORRELATED = 0.7 ** np.abs(np.subtract.outer(np.arange(D), np.arange(D)))


def rows_of(law, seed, n):
    return law.rvs(n, random_state=np.random.default_rng(seed))


T = scipy.stats.multivariate_t(shape=CORRELATED, df=4)
NORMAL = scipy.stats.multivariate_normal(cov=CORRELATED)


def only_radius(d=D):
    layers = [rn.Standardize(d), rn.Whiten(d), rn.RadialTransform(d)]
    return rn.GaussianizationFlow(layers)


def test_untouched_it_is_the_identity():
    x = jnp.array([-1e30, -2.5, 0.0, 1e-30, 7.0])
    y, log_det = rn.RadialTransform(5).bijector().forward_and_log_det(x)
    np.testing.assert_array_equal(y, x)
    assert log_det == 0


def test_from_zero_an_index_has_somewhere_to_go():
    layer = rn.RadialTransform(3)
    x = 5 * jax.random.normal(jax.random.key(0), (50, 3))

    def loss(layer):
        y, log_det = layer.bijector().forward_and_log_det(x)
        return jnp.mean(jnp.sum(0.5 * y * y, -1) - log_det)

    grads = nnx.to_flat_state(nnx.grad(loss)(layer))
    assert len(grads) == 2
    assert all(leaf[...] != 0 for _, leaf in grads)


@pytest.mark.parametrize("build", [rn.coupling_flow, rn.diagonal_flow])
def test_the_recipes_place_it_behind_whiten(build):
    flow = build(2, 1, whiten=True, radial=True, rngs=nnx.Rngs(0))
    names = [type(layer).__name__ for layer in flow.layers[:4]]
    assert names == ["Standardize", "Whiten", "RadialTransform", "HouseholderRotation"]
    assert inspect.signature(build).parameters["radial"].default is False


def test_the_configuration_builds_it_again():
    flow = only_radius(2)
    flow.layers[2].set_radial(RadialParams(0.1, 0.4))
    config = rn.to_config(flow)
    assert config["layers"][2] == {"type": "RadialTransform", "num_features": 2}
    again = rn.from_config(config, rngs=nnx.Rngs(1))
    nnx.update(again, nnx.state(flow))
    x = jnp.array([[1.0, -2.0]])
    np.testing.assert_array_equal(again.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("d", [1, 2])
def test_its_density_integrates_to_one(d):
    layer = rn.RadialTransform(d)
    layer.set_radial(RadialParams(-0.3, 0.4))
    flow = rn.GaussianizationFlow([layer])
    # x = sinh s: an even grid in s reaches far out.
    s = np.linspace(-14, 14, 1_401)
    axes = np.meshgrid(*[np.sinh(s)] * d)
    x = np.stack(axes, axis=-1).astype(np.float32)
    weight = np.prod(np.sqrt(1 + x.astype(float) ** 2), axis=-1) * (s[1] - s[0]) ** d
    total = np.sum(weight * np.exp(np.asarray(flow.log_prob(x), float)))
    np.testing.assert_allclose(total, 1, atol=2e-3)


@pytest.mark.parametrize("n", [300, 3_000])
def test_warm_start_of_students_t_is_near_the_truth(n):
    x, test = rows_of(T, 0, n), rows_of(T, 1, 10_000)
    warm, report = rn.warm_start(only_radius(), x, key=jax.random.key(0))
    assert report.layers[2].action.startswith("tail index 0.")
    gap = np.mean(T.logpdf(test) - np.asarray(warm.log_prob(test)))
    assert gap < {300: 0.1, 3_000: 0.02}[n]  # of a Gaussian .5 and more
    samples = warm.sample(jax.random.key(1), 20_000)
    far = np.mean(np.abs(rows_of(T, 2, 200_000)) > 5)
    np.testing.assert_allclose(np.mean(np.abs(samples) > 5), far, rtol=0.4)


@pytest.mark.parametrize("n", [60, 300, 3_000])
def test_normal_rows_are_left_as_they_are_exactly(n):
    x = rows_of(NORMAL, 0, n)
    warm, report = rn.warm_start(only_radius(), x, key=jax.random.key(0))
    assert report.layers[2].action == "left as it is"
    params = warm.layers[2].radial_params()
    assert (params.log_scale, params.index) == (0, 0)


def test_without_a_holdout_it_is_fitted_whatever_rows_gain():
    x = rows_of(NORMAL, 0, 300)
    _, report = rn.warm_start(only_radius(), x, key=jax.random.key(0), holdout=0)
    assert report.layers[2].action == "tail index 0.00"


def test_rows_of_weight_zero_do_not_count():
    x = rows_of(T, 0, 300)
    far = np.concatenate([x, np.full((20, D), 1e6)])
    weights = np.r_[np.ones(300), np.zeros(20)]
    own, other = (
        rn.warm_start(only_radius(), rows, key=jax.random.key(0), weights=w, holdout=0)[
            0
        ]
        for rows, w in ((x, None), (far, weights))
    )
    np.testing.assert_allclose(own.log_prob(x), other.log_prob(x), atol=1e-3)
