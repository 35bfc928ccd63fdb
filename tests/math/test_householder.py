import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.math import householder
from tests.slow import slow


def orthogonal(seed, d):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return q


def test_hand_worked_reflection():
    # v = (1, 1): H swaps the axes and flips both signs.
    y = householder.apply(jnp.array([3.0, 4.0]), jnp.array([[1.0, 1.0]]))
    np.testing.assert_allclose(y, [-4, -3], rtol=1e-6)


@pytest.mark.parametrize(("r", "d"), [(1, 1), (1, 4), (3, 4), (4, 4), (7, 4), (16, 16)])
def test_wy_is_the_product_of_reflections(r, d):
    vectors = np.random.default_rng(r + d).normal(size=(r, d)).astype(np.float32)
    product = np.eye(d)
    for v in vectors.astype(float):
        product = product @ (np.eye(d) - 2 * np.outer(v, v) / (v @ v))
    q = householder.matrix(jnp.asarray(vectors))
    np.testing.assert_allclose(q, product, atol=2e-6)
    x = np.random.default_rng(0).normal(size=(5, d)).astype(np.float32)
    y = householder.apply(jnp.asarray(x), vectors)
    np.testing.assert_allclose(y, x @ product, atol=1e-5)
    np.testing.assert_allclose(householder.apply_inverse(y, vectors), x, atol=1e-5)


def test_product_stays_orthogonal_for_any_lengths():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(8, 8)) * np.geomspace(1e-6, 1e6, 8)[:, None]
    q = householder.matrix(jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(q @ q.T, np.eye(8), atol=2e-6)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 16])
def test_any_orthogonal_matrix_factorizes(d):
    q = orthogonal(d, d)
    flipped = q * np.r_[-1, np.ones(d - 1)]
    near = np.eye(d) + 1e-7 * np.random.default_rng(1).normal(size=(d, d))
    matrices = (q, flipped, np.eye(d), -np.eye(d), np.eye(d)[::-1], near)
    for matrix in matrices:
        vectors = householder.factorize(jnp.asarray(matrix, jnp.float32))
        np.testing.assert_allclose(householder.matrix(vectors), matrix, atol=1e-6)


@pytest.mark.parametrize("d", [2, 3, 7])
def test_matching_determinant_leaves_no_vector_untrainable(d):
    q = orthogonal(d, d)
    q[:, 0] *= np.sign(np.linalg.det(q)) * (-1) ** d
    vectors = householder.factorize(jnp.asarray(q, jnp.float32))
    assert np.all(np.any(np.asarray(vectors) != 0, axis=1))


def test_gradients_are_finite_with_a_zero_vector():
    vectors = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    grad = jax.grad(lambda v: jnp.sum(householder.apply(jnp.ones(2), v) ** 3))(vectors)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("num_features", [2, 5, slow(70)])
def test_matrix_and_its_gradient_are_those_of_reflections_in_turn(num_features):
    rng = np.random.default_rng(0)
    vectors, weights = rng.normal(size=(2, num_features, num_features))

    def in_turn(vectors):
        def reflect(q, v):
            return q - 2 * jnp.outer(q @ v, v) / (v @ v), None

        return jax.lax.scan(reflect, jnp.eye(num_features), vectors)[0]

    with jax.enable_x64(new_val=True):
        q, pull = jax.vjp(in_turn, jnp.asarray(vectors))
        (gradient,) = pull(jnp.asarray(weights))
    ours, pull = jax.vjp(householder.matrix, jnp.asarray(vectors, jnp.float32))
    np.testing.assert_allclose(ours, q, atol=2e-6)
    (found,) = pull(jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(found, gradient, atol=1e-5 * np.abs(gradient).max())
