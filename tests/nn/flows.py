"""Small flows as after a training, and whether two are the same density."""

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn

_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(40, 2)).astype(np.float32) ** 3
C = _RANDOM.normal(size=(40, 4)).astype(np.float32)


def moved(flow, scale=0.1):
    """The flow as after a training: every parameter elsewhere."""
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)
    leaves, treedef = jax.tree.flatten(params)
    random = np.random.default_rng(1)
    leaves = [a + (scale * random.normal(size=a.shape)).astype(a.dtype) for a in leaves]
    return nnx.merge(graphdef, treedef.unflatten(leaves), rest, copy=True)


def build(num_blocks=1, **change):
    arguments = {"num_components": 2, "hidden": (4,)} | change
    return moved(rn.coupling_flow(2, num_blocks, **arguments, rngs=nnx.Rngs(0)))


def diagonal(num_features=2, **change):
    flow = rn.diagonal_flow(
        num_features, 1, num_components=2, **change, rngs=nnx.Rngs(0)
    )
    return moved(flow)


def assert_same_density(flow, wide, x=X, atol=1e-5):
    """Also where a context has more columns than before."""
    ours, theirs = (
        C[:, :c] if c else None for c in (f.context_features for f in (flow, wide))
    )
    before = np.asarray(flow.log_prob(x, ours))
    np.testing.assert_allclose(wide.log_prob(x, theirs), before, rtol=1e-5, atol=atol)


def widened(flow, **change):
    return rn.widen(flow, **change, rngs=nnx.Rngs(1))
