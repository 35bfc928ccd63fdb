"""A layer that is not of this package."""

import distrax
import jax.numpy as jnp
from flax import nnx


class Doubled(nnx.Module, distrax.Bijector):
    """A user's layer that is a Distrax bijector itself."""

    def __init__(self):
        distrax.Bijector.__init__(self, event_ndims_in=1)
        self.log_scale = nnx.Param(jnp.log(2.0))

    def forward_and_log_det(self, x):
        log_scale = self.log_scale[...]
        return x * jnp.exp(log_scale), jnp.full(x.shape[:-1], x.shape[-1] * log_scale)

    def inverse_and_log_det(self, y):
        log_scale = self.log_scale[...]
        return y * jnp.exp(-log_scale), jnp.full(y.shape[:-1], -y.shape[-1] * log_scale)
