"""Conditioners in bfloat16: what stays float32, and how far log p moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.trainers.layouts import QUICK, VALID, X
from trainers import fit


def flow(dtype):
    return rn.coupling_flow(
        2, 1, num_components=2, hidden=(8,), dtype=dtype, rngs=nnx.Rngs(0)
    )


@pytest.mark.slow
def test_a_bfloat16_conditioner_trains_with_float32_state_and_log_det():
    result = fit(flow(jnp.bfloat16), X, VALID, config=QUICK)
    assert result.history["valid"][-1] > result.history["valid"][0]
    leaves = jax.tree.leaves(nnx.state(result.model))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    z, log_det = result.model.forward_and_log_det(VALID)
    assert z.dtype == log_det.dtype == jnp.float32
    exact = nnx.merge(nnx.graphdef(flow(None)), nnx.state(result.model))
    error = np.abs(exact.log_prob(VALID) - result.model.log_prob(VALID))
    # Eight bits of mantissa in the networks: visible, and far below the noise of a fit.
    assert 1e-5 < error.mean() < 0.05
