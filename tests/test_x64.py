"""The library with JAX_ENABLE_X64=1: float32 and float64 flows on rows of either."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow

pytestmark = pytest.mark.x64
KEY = jax.random.key(0)


def rows(dtype, seed=0, d=2):
    return np.random.default_rng(seed).normal(size=(300, d)).astype(dtype)


def flow_of(param_dtype, num_blocks=1, build=rn.coupling_flow, **options):
    options = {"num_components": 3, "param_dtype": param_dtype, **options}
    if build is rn.coupling_flow:
        options["hidden"] = (4,)
    return build(2, num_blocks, **options, rngs=nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_flow", "of_rows", "num_blocks"),
    [
        slow("float32", "float32", 9),
        slow("float32", "float64", 9),
        ("float64", "float32", 1),
    ],
)
def test_the_wider_dtype_rules(of_flow, of_rows, num_blocks):
    flow, x = flow_of(of_flow, num_blocks), rows(of_rows)
    wide = jnp.promote_types(of_flow, of_rows)
    z, log_det = flow.forward_and_log_det(x)
    back, inverse_log_det = flow.inverse_and_log_det(z)
    assert {a.dtype for a in (z, log_det, back, inverse_log_det)} == {wide}
    np.testing.assert_allclose(back, x, atol=1e-9 if of_flow == "float64" else 1e-3)
    drawn, log_prob = flow.sample_and_log_prob(KEY, 5)
    assert drawn.dtype == log_prob.dtype == jnp.dtype(of_flow)
    assert flow.distribution().sample(seed=KEY).dtype == jnp.dtype(of_flow)


def test_precisions_agree():
    x = rows("float32")
    wide, narrow = flow_of("float64"), flow_of("float32")
    nnx.update(narrow, jax.tree.map(lambda a: a.astype("float32"), nnx.state(wide)))
    found, exact = narrow.log_prob(x), wide.log_prob(x.astype("float64"))
    np.testing.assert_allclose(found, exact, atol=1e-4)
    with jax.enable_x64(False):
        np.testing.assert_allclose(narrow.log_prob(x), found, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("of_flow", [slow("float32"), "float64"])
def test_warm_start_and_training(of_flow):
    x, context = rows("float64"), rows("float64", 1, d=1)
    flow = flow_of(of_flow, context_features=1)
    dtypes = {a.dtype for a in jax.tree.leaves(flow)}
    assert dtypes == {jnp.dtype(of_flow)}
    flow, report = rn.warm_start(flow, x, key=KEY, context=context)
    assert np.isfinite(report.log_prob)
    optimizer = nnx.Optimizer(flow, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(flow, optimizer):
        loss, grads = nnx.value_and_grad(lambda f: -f.log_prob(x, context).mean())(flow)
        optimizer.update(flow, grads)
        return loss

    losses = [float(step(flow, optimizer)) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert {a.dtype for a in jax.tree.leaves(flow)} == dtypes


@pytest.mark.slow
def test_the_warm_start_draws_the_same_numbers():
    x = rows("float32")
    with jax.enable_x64(False):
        flow = flow_of("float32")
        one, _ = rn.warm_start(flow, x, key=KEY, rotation="nongaussian")
    two, _ = rn.warm_start(flow, x, key=KEY, rotation="nongaussian")
    np.testing.assert_allclose(two.log_prob(x), one.log_prob(x), atol=1e-4)
    np.testing.assert_allclose(two.sample(KEY, 5), one.sample(KEY, 5), atol=1e-3)


@pytest.mark.slow
def test_float64_keeps_what_float32_would_lose():
    x = rows("float64") + np.array([0, 1e9])
    flow = flow_of("float64")
    there, _ = rn.warm_start(flow, x, key=KEY)
    here, _ = rn.warm_start(flow, x - np.array([0, 1e9]), key=KEY)
    np.testing.assert_allclose(
        there.log_prob(x), here.log_prob(x - np.array([0, 1e9])), atol=1e-5
    )
    # Beyond float32's range a float64 density is a number still.
    assert np.isfinite(here.log_prob(np.array([1e15, 0.0])))
    assert here.log_prob(np.array([1e30, 0.0])) == -np.inf


@pytest.mark.slow
def test_the_environment_variable():
    """In a process where 64-bit types are on from the first import."""
    code = """if True:
        import jax, numpy as np, rbig_nnx as rn
        from flax import nnx
        x = np.random.default_rng(0).normal(size=(300, 2))
        flow = rn.coupling_flow(2, 1, num_components=3, hidden=(4,), rngs=nnx.Rngs(0))
        flow, _ = rn.warm_start(flow, x, key=jax.random.key(0))
        print(flow.log_prob(x).dtype, rn.information.entropy(flow, x).dtype)"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["float64", "float64"], run.stderr[-2000:]
