"""A model that compiles in a moment, with names like those of a flow."""

import jax.numpy as jnp
from flax import nnx


class Tiny(nnx.Module):
    """Scores rows by a network; not a density, but -log_prob is a loss with a minimum."""

    def __init__(self, **metadata):
        rngs = nnx.Rngs(0)
        self.trunk = nnx.Linear(2, 8, kernel_metadata=metadata, rngs=rngs)
        self.out = nnx.Linear(8, 4, kernel_metadata=metadata, rngs=rngs)
        self.vectors = nnx.Param(jnp.ones((2, 2)))

    def log_prob(self, x, context=None):
        y = self.out(jnp.tanh(self.trunk(x @ self.vectors[...])))
        return -jnp.sum((y - jnp.concatenate([x, x**2], axis=-1)) ** 2, axis=-1)
