import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.math.tails.radius import RadialParams, contract, expand

INDICES = [0.0, 1e-12, 1e-3, 0.15, 1.0, 3.5]
DIRECTIONS = np.random.default_rng(0).normal(size=(400, 3))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
RADII = np.concatenate([[0], np.geomspace(1e-30, 1e30, 399)])
POINTS = (RADII[:, None] * DIRECTIONS).astype(np.float32)


def standard(index, log_scale=0.0):
    return RadialParams(*jnp.float32([log_scale, index]))


def truth(x, index):
    """y and log det in extended precision, as the formulas have them."""
    x, index = x.astype(np.longdouble), np.longdouble(np.float32(index))
    u = index * np.sum(x * x, axis=-1)
    small = u < 1e-12
    v = np.log1p(u)
    ratio = np.where(small, 1, v) / np.where(small, 1, u)
    q = np.where(small, -u / 4, 0.5 * np.log(ratio))
    return x * np.exp(q)[:, None], (x.shape[1] - 2) * q - v


@pytest.mark.parametrize("index", INDICES)
def test_exact_both_ways_from_zero_to_1e30(index):
    y, log_det = contract(jnp.asarray(POINTS), standard(index))
    expected_y, expected_log_det = truth(POINTS, index)
    np.testing.assert_allclose(y, expected_y.astype(float), rtol=1e-6)
    np.testing.assert_allclose(
        log_det, expected_log_det.astype(float), rtol=1e-6, atol=1e-6
    )
    back, inverse_log_det = expand(y, standard(index))
    # A rounded |y| stands for all |x| within eps log(1 + λ |x|²) of each other.
    np.testing.assert_allclose(back, POINTS, rtol=1e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=2e-6, atol=2e-6)


def test_without_a_tail_it_is_the_identity_to_the_last_bit():
    for map_ in (contract, expand):
        mapped, log_det = map_(jnp.asarray(POINTS), standard(0.0))
        np.testing.assert_array_equal(mapped, POINTS)
        assert not np.any(log_det)


def test_hand_worked_values_with_a_scale():
    # t = (3, 4) / 2, λ |t|² = 0.48 · 6.25 = 3: v = log 4, |y| / |t| = √(log(4) / 3).
    params = standard(0.48, np.log(2))
    y, log_det = contract(jnp.array([3.0, 4.0]), params)
    ratio = np.sqrt(np.log(4) / 3)
    np.testing.assert_allclose(y, ratio * np.array([1.5, 2.0]), rtol=1e-6)
    np.testing.assert_allclose(log_det, -np.log(4) - 2 * np.log(2), rtol=1e-6)


def plain_contract(x, params):
    t = x * jnp.exp(-params.log_scale)
    u = params.index * jnp.sum(t * t)
    v = jnp.log1p(u)
    d = len(x)
    log_det = 0.5 * (d - 2) * jnp.log(v / u) - v - d * params.log_scale
    return t * jnp.sqrt(v / u), log_det


def plain_expand(y, params):
    v = params.index * jnp.sum(y * y)
    log_growth = 0.5 * jnp.log(jnp.expm1(v) / v)
    d = len(y)
    log_det = (d - 2) * log_growth + v + d * params.log_scale
    return y * jnp.exp(log_growth + params.log_scale), log_det


@pytest.mark.x64
@pytest.mark.parametrize(
    ("ours", "plain"), [(contract, plain_contract), (expand, plain_expand)]
)
def test_derivative_rules_to_second_order(ours, plain):
    params = RadialParams(*jnp.array([0.2, 0.3]))
    points = jnp.array([[0.3, -0.8, 0.1], [2.0, -1.0, 3.0]])

    def derivatives(map_):
        def both(x, params):
            y, log_det = map_(x, params)
            return jnp.append(y, log_det)

        def at(x):
            first = jax.jacrev(both, (0, 1))(x, params)
            return first, jax.jacfwd(jax.jacfwd(both, (0, 1)), (0, 1))(x, params)

        return jax.tree.leaves(jax.vmap(at)(points))

    found, expected = jax.jit(lambda: (derivatives(ours), derivatives(plain)))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


def test_derivatives_where_radius_and_index_are_zero():
    # y = x (1 − λ |x|² / 4), log det = −(d + 2) λ |x|² / 4 + …: at 0 of slope 1.
    def both(x, index):
        y, log_det = contract(x, standard(0.0)._replace(index=index))
        return jnp.append(y, log_det)

    by_x, by_index = jax.jacrev(both, (0, 1))(jnp.zeros(3), jnp.float32(0.5))
    np.testing.assert_array_equal(by_x, np.eye(4, 3))
    assert not np.any(by_index)
    second = jax.hessian(lambda x: both(x, 0.5)[-1])(jnp.zeros(3))
    np.testing.assert_allclose(second, -0.5 * 5 / 2 * np.eye(3), rtol=1e-6)
    x = jnp.array([1.0, 2.0, 2.0])
    by_index = jax.jacfwd(both, 1)(x, jnp.float32(0.0))
    np.testing.assert_allclose(by_index, [*(-9 / 4 * x), -5 * 9 / 4], rtol=1e-6)


@pytest.mark.parametrize("index", INDICES)
def test_values_and_gradients_are_finite_far_out(index):
    far = np.array([0, 1e-30, 3, 12, 1e4, 1e10, 1e18, 1e30], np.float32)
    points = np.stack([far, -0.5 * far, 0 * far], axis=1)

    @jax.jit
    def gradients(points, params):
        def total(point, params, map_):
            y, log_det = map_(point, params)
            return jnp.sum(y) + log_det

        def at(point):
            return [
                jax.value_and_grad(total, (0, 1))(point, params, m)
                for m in (contract, expand)
            ]

        return jax.vmap(at)(points)

    for leaf in jax.tree.leaves(gradients(jnp.asarray(points), standard(index, -0.2))):
        assert np.isfinite(leaf).all()


def test_nan_stays_nan():
    y, log_det = contract(jnp.array([1.0, np.nan]), standard(0.3))
    assert np.isnan(y[1])
    assert np.isnan(log_det)
