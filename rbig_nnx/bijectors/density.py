"""The distribution over data that a bijector makes of normal numbers."""

import distrax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Density(distrax.Transformed):
    """x = f⁻¹(z), z ~ N(0, I), for a bijector f on vectors from data to latent.

    `Transformed(base, Inverse(bijector))` that knows its shapes without tracing, maps all
    samples in one call, and goes in and out of `jax.jit`.

    Args:
      bijector: f.
      zeros: the mean of z, [..., d]; what leads is the batch's shape.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from rbig_nnx.bijectors.density import Density
      >>> double = distrax.Block(distrax.ScalarAffine(0.0, 2.0), 1)
      >>> density = jax.jit(lambda: Density(double, jnp.zeros((4, 2))))()
      >>> print(density.batch_shape, density.log_prob(jnp.zeros(2)).round(2))
      (4,) [-0.45 -0.45 -0.45 -0.45]
    """

    def __init__(self, bijector: distrax.Bijector, zeros: Float[Array, "*b d"]):
        normal = distrax.Normal(zeros, jnp.ones_like(zeros))
        base = distrax.Independent(normal, reinterpreted_batch_ndims=1)
        super().__init__(base, distrax.Inverse(bijector))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """See `Distribution.batch_shape`."""
        return self.distribution.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        """See `Distribution.event_shape`."""
        return self.distribution.event_shape

    @property
    def dtype(self) -> jnp.dtype:
        """See `Distribution.dtype`."""
        return self.distribution.dtype

    def _sample_n(self, key: Array, n: int) -> Array:
        # Not under `vmap`, as in Distrax: layers take any leading axes, and may count calls.
        return self.bijector.forward(self.distribution.sample(seed=key, sample_shape=n))

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Array, Array]:
        z, log_prob = self.distribution.sample_and_log_prob(seed=key, sample_shape=n)
        x, log_det = self.bijector.forward_and_log_det(z)
        return x, log_prob - log_det
