"""Layers and networks that are not of this package."""

import distrax
import jax
import jax.numpy as jnp
from flax import linen, nnx

import rbig_nnx as rn


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


class Loud(nnx.Linear):
    """Another map than its kernel and bias, which also lets itself be looked at."""

    def __call__(self, x):
        y = 2 * super().__call__(x)
        self.sow(nnx.Intermediate, "features", y)
        return y


class Noisy(nnx.Module):
    """Draws from a random stream that it may share with others."""

    def __init__(self, width, rngs):
        self.linear, self.rngs = nnx.Linear(width, 4, rngs=rngs), rngs

    def __call__(self, x):
        y = self.linear(x)
        return y + jax.random.normal(self.rngs.noise(), y.shape)


def network(kind, width=1, rngs=None):
    """A trunk from [..., width] to [..., 4]."""
    rngs = rngs or nnx.Rngs(0, noise=1)
    if kind == "sow":
        return Loud(width, 4, rngs=rngs)
    if kind == "own stream":
        return Noisy(width, rngs)
    if kind == "linen":
        dense = nnx.bridge.ToNNX(linen.Dense(4), rngs=rngs)
        return nnx.bridge.lazy_init(dense, jnp.ones((1, width)))
    last = {
        "dropout": lambda: nnx.Dropout(0.5, rngs=rngs),
        "batch norm": lambda: nnx.BatchNorm(4, rngs=rngs),
    }[kind]()
    return nnx.Sequential(nnx.Linear(width, 4, rngs=rngs), last)


def one_layer(**options):
    """A coupling that moves its only feature, given a context: it compiles quickly."""
    options = {"num_components": 1, "context_features": 1, "hidden": (4,), **options}
    return rn.MixtureCDFCoupling(1, mask=(False,), **options, rngs=nnx.Rngs(0))
