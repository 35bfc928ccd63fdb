"""The rows that a flow is fitted to, also what an encoder makes of them; none is traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rbig_nnx.targets import choice
from rbig_nnx.targets import rows as target_rows
from tests.targets.models import (
    X,
    assert_same,
    coupling,
    diagonal,
    warm,
)


class Encoded(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(5, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.second = nnx.Linear(3, 2, rngs=rngs)
        self.sizes = nnx.Variable(jnp.zeros(2))
        self.head = diagonal()
        self.next = coupling(rngs, context_features=2)

    def encode(self, inputs):
        return self.second(self.drop(self.norm(nnx.tanh(self.first(inputs)))))


def encoded(sizes=None):
    def encode(model, inputs):
        if sizes is not None:
            sizes.append(len(inputs))
        return model.encode(inputs)

    return encode


@pytest.mark.slow
def test_a_flow_is_fitted_to_what_an_encoder_in_evaluation_mode_gives(monkeypatch):
    monkeypatch.setattr(target_rows, "_ROWS", 128)
    model = Encoded(nnx.Rngs(0))
    inputs = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    sizes = []
    started, report = warm(model, inputs, flows={"head": encoded(sizes)})
    assert sizes == [128, 128, 44]
    assert list(report.flows) == ["head"]
    assert not model.drop.deterministic  # as they were
    assert not started.drop.deterministic
    model.eval()
    rows = model.encode(inputs)
    np.testing.assert_allclose(
        started.head.layers[0].mean[...], rows.mean(0), atol=1e-5
    )
    score = warm(model.head, rows)[0].log_prob(rows).mean()
    np.testing.assert_allclose(started.head.log_prob(rows).mean(), score, atol=1e-3)
    assert_same(started.norm, model.norm)


def test_a_function_gives_a_context_too_and_knows_the_flows_before():
    model = Encoded(nnx.Rngs(0))
    batch = {"y": X, "inputs": np.tile(X, (1, 3))[:, :5]}

    def latent(model, batch):
        z, _ = model.head.forward_and_log_det(batch["y"])
        return z, model.encode(batch["inputs"])

    reads = {"head": lambda _, batch: batch["y"], "next": latent}
    started, _ = warm(model, batch, flows=reads)
    model.eval()
    head, _ = warm(model.head)
    context = model.encode(batch["inputs"])
    z, _ = head.forward_and_log_det(X)
    assert_same(started.head, head)
    assert_same(started.next, warm(model.next, np.asarray(z), context=context)[0])


def test_arrays_of_different_numbers_of_rows_are_read_at_once(monkeypatch):
    monkeypatch.setattr(target_rows, "_ROWS", 128)
    x = {"a": X, "b": X[:200]}
    target = choice.Target(diagonal(), [()], lambda _, x: (x["b"], x["a"]), x)
    found = target_rows.read(target, diagonal())
    np.testing.assert_array_equal(found.x, X[:200])
    np.testing.assert_array_equal(found.context, X)


@pytest.mark.parametrize(
    ("transform", "args", "name"),
    [
        (jax.jit, lambda: (diagonal(), X), "model"),
        (nnx.jit, lambda: (diagonal(), X), "model"),
        (functools.partial(jax.jit, static_argnums=0), lambda: (None, X), "x"),
        (functools.partial(jax.jit, static_argnums=(0, 1)), lambda: (None, None), "model"),
        (functools.partial(jax.vmap, in_axes=(None, 0)), lambda: (None, X[None]), "x"),
        (functools.partial(jax.grad, argnums=1), lambda: (None, X), "x"),
    ],
)  # fmt: skip
def test_within_a_transform_it_says_to_go_outside(transform, args, name):
    outside = diagonal()

    def start(model, x):
        model = model or outside
        return warm(model, X if x is None else x)[0].log_prob(X).mean()

    message = f"`{name}` must not be traced: .* outside of jax.jit, vmap"
    with pytest.raises(ValueError, match=message):
        transform(start)(*args())


def test_a_model_of_shapes_is_refused():
    with pytest.raises(ValueError, match=r"`model` must hold arrays; got only their"):
        warm(nnx.eval_shape(diagonal), X)
