"""Products of Householder reflections H = I − 2 v vᵀ / (vᵀ v).

The product H_1 H_2 … H_r is orthogonal whatever the vectors are, so nothing an optimiser
does can bend it. It is held in compact WY form, Q = I − Vᵀ T V with T upper triangular
(Schreiber and Van Loan, 1989; here T⁻¹ = striu(V Vᵀ) + diag(‖v‖²/2)), and multiplied in
full precision: on TPUs a float32 product is otherwise rounded to bfloat16, and the log
determinant of zero would be false.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rbig_nnx.math.arrays import at_least_float32

_HIGHEST = jax.lax.Precision.HIGHEST
_MASKED = 64  # up to which r products with zeros cost less than slicing them away


def matrix(vectors: Float[Array, "r d"]) -> Float[Array, "d d"]:
    """Q = H_1 H_2 … H_r.

    Args:
      vectors: reflection vectors of any length, [r, d]; a zero vector counts as the identity.

    Returns:
      The orthogonal matrix, [d, d], det Q = (−1)^r; in float32 of shorter vectors.
    """
    vectors = vectors.astype(at_least_float32(vectors.dtype))
    squares = jnp.sum(vectors * vectors, axis=1, keepdims=True)
    nonzero = squares > 0
    scale = jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squares, 1)), 0)
    return _of_unit_vectors(vectors * scale)


@jax.custom_jvp
def _of_unit_vectors(unit: Float[Array, "r d"]) -> Float[Array, "d d"]:
    """Q from vectors of length 1, or 0 for the identity."""
    _, tv = _triangle(unit)
    return _compact(unit, tv)


@_of_unit_vectors.defjvp
def _of_unit_vectors_jvp(primals, tangents):
    (unit,), (dunit,) = primals, tangents
    t, tv = _triangle(unit)
    vt = _product(unit.T, t)
    dgram = _product(dunit, unit.T)
    dinverse_t = jnp.triu(dgram + dgram.T, 1)
    dq = _product(_product(vt, dinverse_t), tv) - _product(vt, dunit)
    return _compact(unit, tv), dq - _product(dunit.T, tv)


def _compact(unit: Array, tv: Array) -> Array:
    """I − Vᵀ (T V)."""
    return jnp.eye(unit.shape[1], dtype=unit.dtype) - _product(unit.T, tv)


def _triangle(unit: Array) -> tuple[Array, Array]:
    """T and T V for T⁻¹ = striu(V Vᵀ) + I/2."""
    upper = 2 * jnp.triu(_product(unit, unit.T), 1)
    t = 2 * _invert_unit_upper(upper)
    tv = _product(t, unit)
    # One step of refinement: T may be large where T V is not.
    residual = unit - 0.5 * (tv + _product(upper, tv))
    return t, tv + _product(t, residual)


def _invert_unit_upper(n: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """(I + N)⁻¹ for a strictly upper triangular N, by products.

    [[A, B], [0, C]]⁻¹ = [[A⁻¹, −A⁻¹ B C⁻¹], [0, C⁻¹]], for all pairs of diagonal blocks of
    one width at once: what is not a B is masked. On CPUs XLA calls LAPACK for a triangular
    solve, whose threads stall its own: four of them were half of a training step at 32
    features.
    """
    r = len(n)
    if r > _MASKED:
        half = r // 2
        first = _invert_unit_upper(n[:half, :half])
        second = _invert_unit_upper(n[half:, half:])
        corner = -_product(_product(first, n[:half, half:]), second)
        return jnp.block([[first, corner], [jnp.zeros_like(corner.T), second]])
    width = 1
    inverse = jnp.eye(r, dtype=n.dtype) - jnp.where(_corners(r, width), n, 0)
    while (width := 2 * width) < r:
        corner = jnp.where(_corners(r, width), n, 0)
        inverse -= _product(_product(inverse, corner), inverse)
    return inverse


def _corners(r: int, width: int) -> np.ndarray:
    """Rows in the first and columns in the second of each pair of blocks, [r, r] bool."""
    block = np.arange(r) // width
    return (block[:, None] % 2 == 0) & (block[:, None] + 1 == block)


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=_HIGHEST)


def apply(
    x: Float[Array, "*b d"], vectors: Float[Array, "r d"]
) -> Float[Array, "*b d"]:
    """x Q for Q = H_1 … H_r, row vectors on the left.

    Args:
      x: rows, [..., d].
      vectors: reflection vectors, [r, d].

    Returns:
      The rotated rows, [..., d]; the log determinant is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math import householder
      >>> print(householder.apply(jnp.array([3.0, 4.0]), jnp.array([[1.0, 0.0]])))
      [-3.  4.]
    """
    # Features lie first in memory, as the mixtures read them: see `masks`.
    q = matrix(vectors).astype(x.dtype)
    return jnp.tensordot(q.T, x.T, axes=1, precision=_HIGHEST).T


def apply_inverse(
    y: Float[Array, "*b d"], vectors: Float[Array, "r d"]
) -> Float[Array, "*b d"]:
    """y Qᵀ, the inverse of `apply`: the same reflections in the other order."""
    return apply(y, vectors[::-1])


def factorize(q: Float[np.ndarray | Array, "d d"]) -> Float[np.ndarray, "d d"]:
    """Reflection vectors whose product is the orthogonal matrix q; on the host.

    Householder's QR algorithm: step j reflects column j of what is left onto e_j. With
    column c, v = c − e_j; its j-th entry c_j − 1 = −Σ_{i>j} c_i² / (1 + c_j) keeps its
    digits when c is close to e_j (Parlett, 1971).

    Args:
      q: orthogonal matrix, [d, d].

    Returns:
      d vectors, [d, d], in q's dtype. None is zero if det q = (−1)^d, save where q has exact
      unit columns in odd number; a zero vector stands for the identity and would not train.
    """
    q = np.asarray(q)
    rest, d = q.astype(np.float64), len(q)
    vectors = np.zeros((d, d))
    for j, v in enumerate(vectors):
        v[j:] = rest[j:, j]
        below = np.sum(v[j + 1 :] ** 2)
        v[j] = -below / (1 + v[j]) if v[j] > 0 else v[j] - 1
        square = np.sum(v * v)
        if square > np.finfo(q.dtype).eps ** 2:
            rest -= np.outer(2 / square * v, v @ rest)
        else:  # below rounding: the reflection would be one of noise
            v[:] = 0

    # Identities go last; an even number of them is H H = I with a vector that can train.
    is_zero = np.all(vectors == 0, axis=1)
    vectors = vectors[np.argsort(is_zero, kind="stable")]
    num_zero = np.sum(is_zero)
    vectors[d - num_zero : d - num_zero % 2] = np.eye(d)[0]
    return vectors.astype(q.dtype)
