"""A fixed linear map, as a Distrax bijector."""

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST  # TPUs would round the factors to bfloat16


class Linear(distrax.Bijector):
    """y = x W, with the inverse of W and log|det W| given, so that no call factorises.

    Args:
      matrix: W, [d, d].
      inverse: its inverse, [d, d].
      log_det: log|det W|, [].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.bijectors import Linear
      >>> two = jnp.eye(2) * 2
      >>> print(Linear(two, two / 4, 2 * jnp.log(2.0)).forward(jnp.array([1.0, 3.0])))
      [2. 6.]
    """

    def __init__(
        self,
        matrix: Float[Array, "d d"],
        inverse: Float[Array, "d d"],
        log_det: Float[Array, ""],
    ):
        super().__init__(event_ndims_in=1, is_constant_jacobian=True)
        self._matrix, self._inverse, self._log_det = matrix, inverse, log_det

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        y = jnp.matmul(x, self._matrix.astype(x.dtype), precision=_HIGHEST)
        return y, jnp.broadcast_to(self._log_det.astype(y.dtype), y.shape[:-1])

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        x = jnp.matmul(y, self._inverse.astype(y.dtype), precision=_HIGHEST)
        return x, jnp.broadcast_to(-self._log_det.astype(x.dtype), x.shape[:-1])
