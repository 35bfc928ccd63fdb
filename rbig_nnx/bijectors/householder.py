"""A rotation held as reflections, as a Distrax bijector."""

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rbig_nnx.math import householder


class Householder(distrax.Bijector):
    """y = x H_1 H_2 … H_r with H_i = I − 2 v_i v_iᵀ / (v_iᵀ v_i).

    Tomczak and Welling, Improving variational auto-encoders using Householder flow, 2016.
    The log determinant is 0 whatever the vectors are.

    Args:
      vectors: reflection vectors of any length, [r, d].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors import Householder
      >>> print(Householder(jnp.array([[0.0, 2.0]])).forward(jnp.array([1.0, 1.0])))
      [ 1. -1.]
    """

    def __init__(self, vectors: Float[Array, "r d"]):
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self._vectors = vectors

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        y = householder.apply(x, self._vectors)
        return y, jnp.zeros(y.shape[:-1], y.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        x = householder.apply_inverse(y, self._vectors)
        return x, jnp.zeros(x.shape[:-1], x.dtype)
