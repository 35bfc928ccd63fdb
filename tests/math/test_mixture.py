import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rbig_nnx.math import mixture
from rbig_nnx.math.params import FAMILIES, MixtureParams, identity_params
from tests import truth
from tests.slow import slow


def random_params(seed, shape=(), num_components=8, spread=2.0):
    rng = np.random.default_rng(seed)
    logits, means, log_scales = rng.normal(size=(3, *shape, num_components))
    return MixtureParams(
        *(jnp.asarray(p, jnp.float32) for p in (logits, spread * means, log_scales - 1))
    )


def test_hand_worked_median_and_density():
    # Two equal components at ±1 with σ = 1, no anchor: F(0) = 1/2, f(0) = φ(1).
    params = MixtureParams(jnp.zeros(2), jnp.array([-1.0, 1.0]), jnp.zeros(2))
    z, log_det = mixture.gaussianize(jnp.zeros(()), params, anchor_weight=0.0)
    assert z == pytest.approx(0, abs=1e-6)
    # log f(0) − log φ(0) = −1/2.
    assert log_det == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize("anchor_weight", [0.0, 0.01])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_float32_tails_match_float64_scipy_to_z_12(seed, anchor_weight):
    params = random_params(seed)
    x = np.linspace(-14, 14, 20001).astype(np.float32)
    z, log_det = mixture.gaussianize(
        jnp.asarray(x), params, anchor_weight=anchor_weight
    )
    expected_z, expected_log_det = truth.gaussianize(x, params, anchor_weight)
    # z is sensitive to rounding of x in steep places: allow the slope times one ulp.
    slope = np.exp(expected_log_det) * np.abs(x) * 2.0**-23
    inside = np.abs(expected_z) <= 12
    assert inside.sum() > 5000
    error = np.abs(z - expected_z) / (1 + slope)
    assert np.max(error[inside]) < 5e-6
    assert np.max(np.abs(log_det - expected_log_det)[inside]) < 2e-4
    assert np.all(np.diff(np.asarray(z)) > 0)


@pytest.mark.parametrize("family", ["gaussian", slow("logistic")])
def test_derivative_rule_to_second_order(family):
    with jax.enable_x64(True):
        params = MixtureParams(*(p.astype(float) for p in random_params(3)))

        @jax.jit
        def both(x, params):
            return jnp.stack(mixture.gaussianize(x, params, family=family))

        for x in (0.3, -3.0, 5.0, 9.0):
            check_grads(both, (jnp.float64(x), params), order=2, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_finite_values_and_gradients_at_1e4(family):
    params = random_params(4)
    x = jnp.array([1e4, -1e4, 50.0, -50.0])

    def total(x, params):
        return sum(map(jnp.sum, mixture.gaussianize(x, params, family=family)))

    z, log_det = mixture.gaussianize(x, params, family=family)
    grads = jax.grad(total, argnums=(0, 1))(x, params)
    for leaf in jax.tree.leaves((z, log_det, grads)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.x64
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("at", [-2.0, 0.0, 2.0])
def test_derivatives_at_a_mean_are_those_beside_it(at, family):
    uneven = MixtureParams(*jnp.array([[0.0, 0.3], [-2.0, 2.0], [-0.5, 0.2]]))

    def values(x, params):
        z, log_det = mixture.gaussianize(x, params, family=family)
        log_pdf = mixture.log_pdf(x, params, family=family)
        log_cdf = mixture.log_cdf(x, params, family=family)
        return jnp.stack([z, log_det, log_pdf, log_cdf])

    first = jax.jacfwd(values, argnums=(0, 1))
    there = jax.jit(lambda x: (first(x, uneven), jax.jacfwd(first)(x, uneven)))
    beside = there(jnp.asarray(at) + 1e-7)
    for one, other in zip(
        *map(jax.tree.leaves, (there(jnp.asarray(at)), beside)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_derivatives_at_the_median_are_those_beside_it():
    even = MixtureParams(*np.float32([[0.0, 0.0], [-2.0, 2.0], [0.2, 0.2]]))
    second = jax.grad(jax.grad(lambda x: mixture.gaussianize(x, even)[0]))
    np.testing.assert_allclose(second(0.0), second(1e-3), atol=1e-3)


def test_anchor_makes_the_far_map_the_identity():
    params = random_params(5, spread=1.0)
    z, _ = mixture.gaussianize(jnp.array([-300.0, 300.0]), params, anchor_weight=0.01)
    # log F(x) → log ε + log Φ(x): |z| exceeds |x| by about −log ε / |x|. Components wider
    # than 1 pull it down, none does here.
    narrow = params._replace(log_scales=jnp.full(8, -1.0))
    z, _ = mixture.gaussianize(jnp.array([-300.0, 300.0]), narrow, anchor_weight=0.01)
    np.testing.assert_allclose(np.abs(z), 300 - np.log(0.01) / 300, rtol=1e-6)


def test_cdf_survival_and_pdf_agree():
    params = random_params(6)
    x = jnp.linspace(-6, 6, 101)
    total = jnp.exp(mixture.log_cdf(x, params)) + jnp.exp(
        mixture.log_survival(x, params)
    )
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda x: jnp.exp(mixture.log_cdf(x, params))))(x)
    np.testing.assert_allclose(jnp.log(slope), mixture.log_pdf(x, params), atol=2e-4)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 5)])
def test_pack_is_read_back_to_the_last_bit(shape):
    params = random_params(7, shape, num_components=3)
    back = MixtureParams.unpack(params.pack(), 3)
    for a, b in zip(params, back, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_components", [1, 2, 8])
def test_identity_params_are_close_to_the_identity(num_components, family):
    params = identity_params(num_components, family)
    x = jnp.linspace(-2, 2, 41)
    z, _ = mixture.gaussianize(x, params, family=family)
    assert np.max(np.abs(z - x)) < (0.05 if family == "gaussian" else 0.15)
    if num_components > 1:
        assert len(np.unique(np.asarray(params.means))) == num_components


@hypothesis.given(
    seed=st.integers(0, 10_000), a=st.floats(-1e4, 1e4), b=st.floats(-1e4, 1e4)
)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=60)
def test_map_increases(seed, a, b):
    params = random_params(seed)
    low, high = sorted(np.float32([a, b]))
    z, _ = mixture.gaussianize(jnp.asarray([low, high]), params)
    assert z[0] <= z[1]


def test_scales_of_a_training_that_diverged_give_no_nan():
    params = MixtureParams(*jnp.array([[[99.0, 0]], [[21.7, -21.7]], [[-99.0, -99]]]))
    x = jnp.array([[-99.0], [0.0], [-0.6], [21.7], [1e4]])
    z, log_slope = mixture.gaussianize(x, params.limited(jnp.zeros(1)))
    assert np.isfinite(z).all()
    assert not np.isnan(log_slope).any()
    z, log_slope = mixture.gaussianize(x, params)
    assert np.isnan(log_slope).any()  # what the limit is for


def test_a_scale_at_its_limit_trains():
    def total(log_scales):
        params = MixtureParams(log_scales, log_scales, log_scales)
        return params.limited(jnp.ones(1)).log_scales.sum()

    slopes = jax.grad(total)(jnp.array([[0.5, 1.0, 1.5]]))
    np.testing.assert_array_equal(slopes, [[1.0, 1.0, 0.0]])
