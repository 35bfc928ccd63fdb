import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rbig_nnx.math.tails.columns import TailParams, fatten, lighten

LARGEST = float(np.finfo(np.float32).max)
MAGNITUDES = np.geomspace(1e-37, 0.99 * LARGEST, 2_000).astype(np.float32)
POINTS = np.concatenate([-MAGNITUDES[::-1], [0], MAGNITUDES]).astype(np.float32)
INDICES = [0.0, 1e-12, 1e-3, 0.2, 1.0, 3.5]


def standard(index, dtype=jnp.float32):
    """Location 0, scale 1 and the same index on both sides."""
    return TailParams(*jnp.asarray([0, 0, index, index], dtype))


def truth(t, index):
    """z and log dz/dt in extended precision, as the formulas have them."""
    t, index = t.astype(np.longdouble), np.longdouble(np.float32(index))
    if index == 0:
        return t, np.zeros_like(t)
    log_one_plus = np.log1p(index * t * t)
    z = np.sign(t) * np.sqrt(log_one_plus / index)
    ratio = np.where(t == 0, 1, z / np.where(t == 0, 1, t))
    return z, -np.log(ratio) - log_one_plus


@pytest.mark.parametrize("index", INDICES)
def test_exact_both_ways_over_the_whole_range_of_floats(index):
    z, log_slope = lighten(jnp.asarray(POINTS), standard(index))
    expected_z, expected_log_slope = truth(POINTS, index)
    np.testing.assert_allclose(z, expected_z, rtol=3e-7)
    np.testing.assert_allclose(log_slope, expected_log_slope, rtol=3e-7, atol=3e-7)
    assert np.all(np.diff(np.asarray(z)) >= 0)
    back, inverse_log_slope = fatten(z, standard(index))
    # A rounded z stands for all t within eps log(1 + λ t²) of each other.
    np.testing.assert_allclose(back, POINTS, rtol=3e-5)
    np.testing.assert_allclose(inverse_log_slope, -log_slope, rtol=3e-7, atol=3e-7)


def test_in_double_precision():
    t = np.geomspace(1e-8, 1e150, 500)
    with jax.enable_x64(True):
        z, log_slope = lighten(jnp.asarray(t), standard(0.25, float))
        back, _ = fatten(z, standard(0.25, float))
        assert z.dtype == float
        expected_z, expected_log_slope = truth(t, 0.25)
        np.testing.assert_allclose(z, expected_z.astype(float), rtol=1e-14)
        np.testing.assert_allclose(
            log_slope, expected_log_slope.astype(float), rtol=1e-14, atol=1e-14
        )
        np.testing.assert_allclose(back, t, rtol=3e-12)


def test_without_tails_it_is_the_identity_to_the_last_bit():
    z, log_slope = lighten(jnp.asarray(POINTS), standard(0.0))
    x, inverse_log_slope = fatten(jnp.asarray(POINTS), standard(0.0))
    np.testing.assert_array_equal(z, POINTS)
    np.testing.assert_array_equal(x, np.clip(POINTS, -0.999 * LARGEST, 0.999 * LARGEST))
    assert not np.any(log_slope)
    assert not np.any(inverse_log_slope)


@pytest.mark.parametrize("freedom", [1, 2, 5, 30])
def test_within_wallaces_bounds_of_the_normal_deviate_of_students_t(freedom):
    t = np.geomspace(0.01, 1e4, 200)
    exact = scipy.stats.norm.isf(scipy.stats.t.sf(t, freedom))
    z, _ = lighten(jnp.asarray(t, jnp.float32), standard(1 / freedom))
    within = np.isfinite(exact)
    ratio = exact[within] / np.asarray(z)[within]
    assert ratio.max() < 1
    assert ratio.min() > np.sqrt(1 - 1 / (2 * freedom))


def test_hand_worked_values_with_location_and_scale():
    # t = (5 − 1) / 2 = 2 and λ = ½: z = √(2 log 3), dz/dx = 2 / (z (1 + ½ 4)) / 2.
    params = TailParams(*jnp.array([1.0, np.log(2), 0.0, 0.5]))
    z, log_slope = lighten(jnp.array([5.0, -3.0]), params)
    expected = np.sqrt(2 * np.log(3))
    np.testing.assert_allclose(z, [expected, -2], rtol=1e-6)
    np.testing.assert_allclose(
        log_slope, [-np.log(3 * expected), -np.log(2)], rtol=1e-6
    )


def plain_lighten(x, params):
    """As the formulas have it, for autodiff at moderate x in double precision."""
    t = (x - params.location) * jnp.exp(-params.log_scale)
    index = jnp.where(t < 0, params.left, params.right)
    u = index * t * t
    ratio = jnp.log1p(u) / u
    log_slope = -0.5 * jnp.log(ratio) - jnp.log1p(u) - params.log_scale
    return t * jnp.sqrt(ratio), log_slope


def plain_fatten(z, params):
    index = jnp.where(z < 0, params.left, params.right)
    v = index * z * z
    ratio = jnp.expm1(v) / v
    t = z * jnp.sqrt(ratio)
    x = params.location + jnp.exp(params.log_scale) * t
    return x, v - 0.5 * jnp.log(ratio) + params.log_scale


@pytest.mark.x64
@pytest.mark.parametrize(
    ("ours", "plain"), [(lighten, plain_lighten), (fatten, plain_fatten)]
)
def test_derivative_rules_to_second_order(ours, plain):
    # Indices at which v = λ z² lies on both sides of 1, and near 0.
    params = TailParams(*jnp.array([0.1, 0.2, 0.01, 0.7]))
    points = jnp.array([0.3, -0.8, 4.0, -12.0])

    def derivatives(map_):
        def both(x, params):
            return jnp.stack(map_(x, params))

        def at(x):
            first = jax.jacrev(both, (0, 1))(x, params)
            return first, jax.jacfwd(jax.jacfwd(both, (0, 1)), (0, 1))(x, params)

        return jax.tree.leaves(jax.vmap(at)(points))

    found, expected = jax.jit(lambda: (derivatives(ours), derivatives(plain)))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


def test_derivatives_where_the_index_is_zero():
    # z = t − λ t³ / 4 + …, log dz/dt = −¾ λ t² + …
    def at(index, t):
        return jnp.stack(lighten(t, standard(index)))

    found = jax.jacfwd(at)(0.0, jnp.float32(2.0))
    np.testing.assert_allclose(found, [-2, -3], rtol=1e-6)


@jax.jit
def gradients(points, params):
    def total(point, params, map_):
        return sum(map_(point, params))

    def at(point):
        return [
            jax.value_and_grad(total, (0, 1))(point, params, m)
            for m in (lighten, fatten)
        ]

    return jax.vmap(at)(points)


@pytest.mark.parametrize("index", INDICES)
def test_values_and_gradients_are_finite_far_out(index):
    far = np.array([0, 1e-30, 3, 12, 1e4, 1e10, 1e18, 1e30, 1e38], np.float32)
    params = TailParams(*jnp.float32([0.1, -0.2, index, index]))
    for leaf in jax.tree.leaves(gradients(jnp.asarray([*-far, *far]), params)):
        assert np.isfinite(leaf).all()


def test_infinity_and_nan_stay_what_they_are():
    x = jnp.array([-np.inf, np.inf, np.nan])
    for index in (0.0, 0.3):
        z, log_slope = lighten(x, standard(index))
        np.testing.assert_array_equal(z, x)
        assert np.isnan(log_slope[2]) == (index > 0)


@hypothesis.given(
    a=st.floats(-LARGEST, LARGEST, width=32),
    b=st.floats(-LARGEST, LARGEST, width=32),
    location=st.floats(-10, 10, width=32),
    log_scale=st.floats(-10, 10, width=32),
    left=st.floats(0, 4, width=32),
    right=st.floats(0, 4, width=32),
)
@hypothesis.settings(deadline=None, derandomize=True, max_examples=80)
def test_both_maps_increase(a, b, location, log_scale, left, right):
    params = TailParams(*jnp.float32([location, log_scale, left, right]))
    points = jnp.asarray(sorted(np.float32([a, b])))
    for map_ in (lighten, fatten):
        values, log_slopes = map_(points, params)
        assert values[0] <= values[1]
        assert np.isfinite(values).all()
        assert np.isfinite(log_slopes).all()
