"""Log determinants add up: over layers, there and back, for any parameters and points."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.properties import SEEDS, examples, holds

RECIPES = {
    "coupling": lambda: rn.coupling_flow(
        3, 2, num_components=3, hidden=(8,), tails=True, clusters=2, rngs=nnx.Rngs(0)
    ),
    "logistic": lambda: rn.coupling_flow(
        3, 2, num_components=3, hidden=(8,), family="logistic", rngs=nnx.Rngs(0)
    ),
    "diagonal": lambda: rn.diagonal_flow(3, 3, num_components=3, rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("recipe", RECIPES)
@examples(10, 500)
def test_log_determinants_add_up(recipe, num_examples):
    graphdef, params, rest = nnx.split(RECIPES[recipe](), nnx.Param, ...)
    leaves, treedef = jax.tree.flatten(params)

    @jax.jit
    def walked(leaves, x):
        flow = nnx.merge(graphdef, treedef.unflatten(leaves), rest)
        y, log_dets, both_ways = x, [], []
        for layer in flow.layers:
            bijector = layer.bijector()
            y, log_det = bijector.forward_and_log_det(y)
            log_dets.append(log_det)
            # Where a map is flat, the point it came from is not the one that comes back.
            back, log_det = bijector.inverse_and_log_det(y)
            both_ways.append(bijector.forward_log_det_jacobian(back) + log_det)
        whole = flow.bijector().forward_and_log_det(x)
        return y, jnp.stack(log_dets), jnp.stack(both_ways), whole

    @holds(
        num_examples, seed=SEEDS, change=st.floats(0, 0.5), exponent=st.floats(-3, 2)
    )
    def add_up(seed, change, exponent):
        random = np.random.default_rng(seed)
        moved = [
            (a + change * random.normal(size=a.shape)).astype(a.dtype) for a in leaves
        ]
        x = 10.0**exponent * random.normal(size=(32, 3)).astype(np.float32)
        y, log_dets, both_ways, (z, log_det) = jax.tree.map(
            np.asarray, walked(moved, x)
        )
        size = 1 + np.abs(log_dets).sum(0)
        assert np.isfinite(log_dets).all()
        np.testing.assert_allclose(z, y, rtol=1e-4, atol=1e-4)
        assert (np.abs(log_det - log_dets.sum(0)) <= 1e-5 * size).all()
        assert (np.abs(both_ways) <= 1e-6 * (1 + np.abs(log_dets))).all()
