"""Flows as Distrax objects: compiled once, in and out of JAX's functions."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn import stack
from tests.nn.users import one_layer

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(6, 1)
C = np.linspace(-1, 1, 4, dtype=np.float32).reshape(4, 1)
KEY = jax.random.key(0)


def flow():
    return rn.GaussianizationFlow([rn.Standardize(1), one_layer()])


CALLS = {
    "log_prob": lambda f: f.distribution(C).log_prob(X[:, None]),
    "sample_and_log_prob": lambda f: f.distribution(C).sample_and_log_prob(seed=KEY),
    "forward": lambda f: f.bijector(C[0]).forward(X),
    "inverse": lambda f: f.bijector(C[0]).inverse(X),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_is_not_traced_again(name, monkeypatch):
    traces = []
    own = stack.runs_of
    monkeypatch.setattr(stack, "runs_of", lambda ls: traces.append(ls) or own(ls))
    jax.clear_caches()
    CALLS[name](flow())
    assert len(traces) == 1
    CALLS[name](flow())
    assert len(traces) == 1


def test_shapes_are_those_of_context_and_value():
    density = flow().distribution(C)
    assert isinstance(density, distrax.Transformed)
    assert (density.batch_shape, density.event_shape) == ((4,), (1,))
    assert density.dtype == jnp.float32
    assert density.log_prob(X[0]).shape == (4,)
    assert density.log_prob(X[:, None]).shape == (6, 4)
    x, log_prob = density.sample_and_log_prob(seed=0, sample_shape=(2, 3))
    assert (x.shape, log_prob.shape) == ((2, 3, 4, 1), (2, 3, 4))
    np.testing.assert_allclose(density.log_prob(x), log_prob, atol=1e-4)
    assert density.sample(seed=0, sample_shape=0).shape == (0, 4, 1)
    alone = flow().log_prob(X[:, None], C)
    np.testing.assert_allclose(density.log_prob(X[:, None]), alone, atol=1e-6)


def test_a_distribution_goes_in_and_out_of_jax():
    wanted = flow().log_prob(X[:4], C)
    make = lambda c: flow().distribution(c)  # noqa: E731
    score = lambda d, x: d.log_prob(x)  # noqa: E731
    out = jax.jit(make)(C)
    assert (out.batch_shape, out.event_shape) == ((4,), (1,))
    found = [
        score(out, X[:4]),
        jax.jit(score)(make(C), X[:4]),
        jax.vmap(lambda c, x: score(make(c), x))(C, X[:4]),
        jax.lax.scan(lambda d, x: (d, score(d, x)), make(C), X[:4])[1].diagonal(),
    ]
    for log_prob in found:
        np.testing.assert_allclose(log_prob, wanted, atol=1e-5)


def test_a_bijector_goes_in_and_out_of_jax():
    bijector = jax.jit(lambda: flow().bijector(C))()
    y, log_det = jax.jit(lambda b: b.forward_and_log_det(X[:4]))(bijector)
    wanted = flow().forward_and_log_det(X[:4], C)
    np.testing.assert_allclose(y, wanted[0], atol=1e-6)
    np.testing.assert_allclose(log_det, wanted[1], atol=1e-6)
    layer = jax.jit(lambda: one_layer().bijector(C))()
    assert layer.forward(X[:4]).shape == (4, 1)


def test_tfp_sees_the_same_density():
    density = flow().distribution(C)
    tfp = distrax.to_tfp(density)
    assert tuple(tfp.batch_shape) == (4,)
    assert tuple(tfp.event_shape) == (1,)
    np.testing.assert_allclose(tfp.log_prob(X[0]), density.log_prob(X[0]), atol=1e-6)
    drawn = tfp.sample(3, seed=KEY)
    np.testing.assert_array_equal(drawn, density.sample(seed=KEY, sample_shape=3))
    inverse = distrax.to_tfp(flow().bijector(C[0])).inverse(X)
    np.testing.assert_allclose(inverse, flow().bijector(C[0]).inverse(X), atol=1e-6)


def test_what_does_not_change_stays_one_program():
    """A flow of other parameters shares the program of the first."""
    first, second = flow(), flow()
    second.layers[1].conditioner.out.bias[...] += 1
    first.distribution(C).log_prob(X[0])
    before = stack._compiled._cache_size()
    second.distribution(C).log_prob(X[0])
    assert stack._compiled._cache_size() == before
    assert nnx.state(second)
