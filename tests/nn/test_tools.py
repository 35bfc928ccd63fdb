"""Every tool of Flax NNX, and copies, on a model that holds a flow."""

import copy
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.nn.users import one_layer

X, C = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, 6, 1)


class Model(nnx.Module):
    """log p of x given what a network makes of c."""

    def __init__(self, seed=0):
        self.encoder = nnx.Linear(1, 1, rngs=nnx.Rngs(seed))
        layers = [rn.Standardize(1), one_layer()]
        self.flow = rn.GaussianizationFlow(layers)

    def __call__(self, x, c):
        return self.flow(x, self.encoder(c))


def call(model, x, c):
    return model(x, c)


def scanned(model):
    axes = {"in_axes": (nnx.Carry, 0, 0), "out_axes": (nnx.Carry, 0)}
    return nnx.scan(lambda m, x, c: (m, m(x, c)), **axes)(model, X, C)[1]


def updated(model):
    other = Model(seed=1)
    nnx.update(other, nnx.state(model))
    return other(X, C)


def filled(model):
    abstract = nnx.eval_shape(Model)
    graphdef, state = nnx.split(abstract)
    state = jax.tree.map(lambda _, a: a, state, nnx.state(model))
    return nnx.merge(graphdef, state)(X, C)


def tabulated(model):
    console = {"force_terminal": False, "width": 200}
    table = nnx.tabulate(model, X, C, console_kwargs=console)
    assert "flow" in table
    assert "Conditioner" in table
    return model(X, C)


def displayed(model):
    nnx.display(model)
    return model(X, C)


def moved_along_the_gradient(model):
    grads = nnx.grad(lambda m: m(X, C).mean())(model)
    leaves = jax.tree.leaves(grads)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.any(leaf) for leaf in leaves)
    return model(X, C)


TOOLS = {
    "jit": lambda m: nnx.jit(call)(m, X, C),
    "jax.jit": lambda m: jax.jit(call)(m, X, C),
    "vmap": lambda m: nnx.vmap(call, in_axes=(None, 0, 0))(m, X, C),
    "scan": scanned,
    "remat": lambda m: nnx.remat(call)(m, X, C),
    "grad": moved_along_the_gradient,
    "split and merge": lambda m: nnx.merge(*nnx.split(m, nnx.Param, ...))(X, C),
    "state and update": updated,
    "eval_shape": filled,
    "clone": lambda m: nnx.clone(m)(X, C),
    "tabulate": tabulated,
    "display": displayed,
    "deepcopy": lambda m: copy.deepcopy(m)(X, C),
    "copy": lambda m: copy.copy(m)(X, C),
    "pickle": lambda m: pickle.loads(pickle.dumps(m))(X, C),
    "cloudpickle": lambda m: cloudpickle.loads(cloudpickle.dumps(m))(X, C),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_model_with_a_flow_goes_through(tool, nnx_mode):
    model = Model()
    wanted = model.flow.log_prob(X, model.encoder(C))
    np.testing.assert_allclose(TOOLS[tool](model), wanted, rtol=1e-5, atol=1e-5)
    assert nnx.Linear(1, 1, rngs=nnx.Rngs(0))(X).shape == X.shape


def test_layers_are_called_for_the_map_and_its_log_det():
    rngs = nnx.Rngs(0)
    layers = [
        rn.Standardize(2),
        rn.Whiten(2),
        rn.TailTransform(2),
        rn.RadialTransform(2),
        rn.ClusterTransform(2),
        rn.HouseholderRotation(2, rngs=rngs),
        rn.MixtureCDFMarginal(2, num_components=1),
    ]
    for layer in [*layers, rn.ScannedBlocks([layers])]:
        found = jax.eval_shape(layer, jnp.zeros((3, 2)))
        assert [a.shape for a in found] == [(3, 2), (3,)]


def test_a_layer_says_what_it_does_not_do():
    class Empty(type(rn.Standardize(1)).__mro__[1]):
        pass

    with pytest.raises(NotImplementedError):
        Empty()(X)
