"""Small models with flows, and their warm start."""

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn

KEY = jax.random.key(1)
X = (np.random.default_rng(0).normal(size=(300, 2)) ** 3).astype(np.float32)


def diagonal(d=2, seed=0):
    return rn.diagonal_flow(d, 1, num_components=2, rngs=nnx.Rngs(seed))


def coupling(rngs=None, **options):
    options = {"num_components": 2, "hidden": (4,), **options}
    return rn.coupling_flow(2, 1, rngs=rngs or nnx.Rngs(0), **options)


def ensemble(make, *members):
    for _ in members:
        make = nnx.vmap(make)
    return make(nnx.Rngs(0).split(members))


def warm(model, x=X, **options):
    return rn.warm_start(model, x, key=KEY, **{"holdout": 0.0, **options})


def leaves(model):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))


def assert_same(one, two):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


class Pair(nnx.Module):
    def __init__(self, a=None, b=None):
        self.a, self.b = a or diagonal(), b or diagonal(seed=1)


class Plain(nnx.Module, pytree=False):
    """With a list of Python's, and itself as a part."""

    def __init__(self, flow, other):
        self.flow, self.more, self.myself = flow, [other], self
