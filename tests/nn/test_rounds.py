import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.nn.users import one_layer


def flow_and_rows(num_rows=200, context_features=0):
    flow = rn.coupling_flow(
        2, 1, hidden=(4,), context_features=context_features, rngs=nnx.Rngs(0)
    )
    rows = np.random.default_rng(0).normal(size=(num_rows, 2 + context_features))
    return flow, rows[:, :2], rows[:, 2:] if context_features else None


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("context_features", [0, 1])
def test_another_number_of_rows_compiles_nothing_and_scores_alike(
    context_features, shared, caplog
):
    flow, x, context = flow_and_rows(64, context_features)
    if shared and context_features:
        context = context[0]

    def scores(n):
        of_each = context is not None and context.ndim == 2
        return np.asarray(flow.log_prob(x[:n], context[:n] if of_each else context))

    whole = scores(64)
    with jax.log_compiles():
        for n in range(1, 64, 7):
            found = scores(n)
            assert found.shape == (n,)
            np.testing.assert_allclose(found, whole[:n], rtol=1e-5)
        assert not caplog.records
        jax.jit(lambda x: x + 1)(x)
        assert caplog.records  # else nothing would be seen above


def test_rows_are_rounded_up_by_an_eighth_at_most():
    flow, x, _ = flow_and_rows(1_200)
    seen = []
    bijector = flow.bijector

    def watched(context=None):
        found = bijector(context)
        forward = found.forward_and_log_det
        found.forward_and_log_det = lambda x: seen.append(len(x)) or forward(x)
        return found

    object.__setattr__(flow, "bijector", watched)
    z, log_det = flow.forward_and_log_det(x[:1_100])
    assert (len(z), len(log_det), seen) == (1_100, 1_100, [1_152])
    flow.forward_and_log_det(x[:64])
    flow.forward_and_log_det(x[:0])
    flow.forward_and_log_det(x[0])
    assert seen[1:] == [64, 0, 2]


def test_a_network_of_the_user_gets_its_own_rows():
    seen = []

    class Watched(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(1, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            seen.append(x.shape)
            return self.linear(x)

    flow = rn.GaussianizationFlow([one_layer(trunk=Watched(), hidden=None)])
    seen.clear()
    flow.log_prob(np.ones((5, 1)), np.ones((5, 1)))
    assert set(seen) == {(5, 1)}


@pytest.mark.slow
def test_gradients_are_those_of_the_rows():
    flow, x, _ = flow_and_rows(5)
    x = jnp.asarray(x, jnp.float32)
    loss = lambda flow, x: -flow.log_prob(x).mean()  # noqa: E731
    found, wanted = nnx.grad(loss)(flow, x), nnx.jit(nnx.grad(loss))(flow, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, wanted
    )
    assert jax.grad(lambda x: flow.log_prob(x).sum())(x).shape == (5, 2)


def test_rows_stay_on_their_device():
    flow, x, _ = flow_and_rows(5)
    last = jax.devices()[-1]
    assert flow.log_prob(jax.device_put(jnp.asarray(x), last)).devices() == {last}
