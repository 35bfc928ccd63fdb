"""Products of Householder reflections H = I − 2 v vᵀ / (vᵀ v).

The product H_1 H_2 … H_r is orthogonal whatever the vectors are, so nothing an optimiser
does can bend it. It is held in compact WY form, Q = I − Vᵀ T V with T upper triangular
(Schreiber and Van Loan, 1989; here T⁻¹ = striu(V Vᵀ) + diag(‖v‖²/2)), and multiplied in
full precision: on TPUs a float32 product is otherwise rounded to bfloat16, and the log
determinant of zero would be false.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST


def matrix(vectors: Float[Array, "r d"]) -> Float[Array, "d d"]:
    """Q = H_1 H_2 … H_r.

    Args:
      vectors: reflection vectors of any length, [r, d]; a zero vector counts as the identity.

    Returns:
      The orthogonal matrix, [d, d], det Q = (−1)^r.
    """
    squares = jnp.sum(vectors * vectors, axis=1, keepdims=True)
    nonzero = squares > 0
    unit = jnp.where(
        nonzero, vectors * jax.lax.rsqrt(jnp.where(nonzero, squares, 1)), 0
    )
    gram = _product(unit, unit.T)
    half = 0.5 * jnp.eye(len(vectors), dtype=vectors.dtype)
    inverse_t = jnp.triu(gram, 1) + half
    t = _invert_upper(inverse_t)
    tv = _product(t, unit)
    # One step of refinement: T may be large where T V is not. Exactly, the step is zero.
    residual = jax.lax.stop_gradient(unit - _product(inverse_t, tv))
    tv += _product(jax.lax.stop_gradient(t), residual)
    eye = jnp.eye(vectors.shape[1], dtype=vectors.dtype)
    return eye - _product(unit.T, tv)


@jax.custom_jvp
def _invert_upper(a: Float[Array, "r r"]) -> Float[Array, "r r"]:
    """The inverse of an upper triangular matrix, by products of blocks.

    [[A, B], [0, C]]⁻¹ = [[A⁻¹, −A⁻¹ B C⁻¹], [0, C⁻¹]], all blocks of one size at once. On
    CPUs XLA calls LAPACK for a triangular solve, whose threads stall its own: four of them
    were half of a training step at 32 features.
    """
    r = len(a)
    size = 1 << (r - 1).bit_length()
    padded = jnp.eye(size, dtype=a.dtype).at[:r, :r].set(a)
    inverse = 1 / jnp.diagonal(padded)[:, None, None]
    width = 1
    while width < size:
        pairs = padded.reshape(size // (2 * width), 2 * width, -1, 2 * width)
        on_diagonal = jnp.moveaxis(jnp.diagonal(pairs, axis1=0, axis2=2), -1, 0)
        corner = on_diagonal[:, :width, width:]
        first, second = inverse[0::2], inverse[1::2]
        corner = -_product(_product(first, corner), second)
        inverse = jnp.block([[first, corner], [jnp.zeros_like(corner), second]])
        width *= 2
    return inverse[0, :r, :r]


@_invert_upper.defjvp
def _invert_upper_jvp(primals, tangents):
    inverse = _invert_upper(*primals)
    return inverse, -_product(_product(inverse, tangents[0]), inverse)


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


def factorize(q: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Reflection vectors whose product is the orthogonal matrix q.

    Householder's QR algorithm: step j reflects column j of what is left onto e_j. With
    column c, v = c − e_j; its j-th entry c_j − 1 = −Σ_{i>j} c_i² / (1 + c_j) keeps its
    digits when c is close to e_j (Parlett, 1971).

    Args:
      q: orthogonal matrix, [d, d].

    Returns:
      d vectors, [d, d]. None is zero if det q = (−1)^d, save where q has exact unit
      columns in odd number; a zero vector stands for the identity and would not train.
    """
    d = q.shape[0]
    rows = jnp.arange(d)

    def step(rest, j):
        c = jnp.where(rows >= j, rest[:, j], 0)
        below = jnp.sum(jnp.where(rows > j, c * c, 0))
        stable = jnp.where(c[j] > 0, -below / (1 + jnp.abs(c[j])), c[j] - 1)
        v = jnp.where(rows == j, stable, c)
        # Below rounding, the reflection would be one of noise.
        v = jnp.where(jnp.sum(v * v) > jnp.finfo(q.dtype).eps ** 2, v, 0)
        return apply(rest.T, v[None]).T, v

    _, vectors = jax.lax.scan(step, q, rows)

    # Identities go last; an even number of them is H H = I with a vector that can train.
    is_zero = jnp.all(vectors == 0, axis=1)
    num_zero = jnp.sum(is_zero)
    vectors = vectors[jnp.argsort(is_zero, stable=True)]
    paired = (rows >= d - num_zero) & ((rows < d - 1) | (num_zero % 2 == 0))
    return jnp.where(paired[:, None], jnp.eye(d, dtype=q.dtype)[0], vectors)
