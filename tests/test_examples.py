import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn

EXAMPLES = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.py"))
EXTRAS = {  # what an example needs
    "numpyro_prior": ("numpyro",),
    "score_cluster": ("distributed", "pyarrow"),
    "serve": ("flatbuffers", "starlette", "uvicorn"),
}
SMALL = {
    "lora": {"seeds": 2},
    "numpyro_prior": {"num_draws": 50},
    "posterior": {"num_train": 2_000},
    "vae_prior": {"num_codes": 2, "seeds": 2},
}


def load(name):
    for package in EXTRAS.get(name, ()):
        pytest.importorskip(package)
    path = next(path for path in EXAMPLES if path.stem == name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(test):
    return pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])(test)


@pytest.mark.slow
@names
def test_example_runs_and_meets_its_own_assert(name):
    load(name).main(steps=60, **SMALL.get(name, {}))


@pytest.mark.slow
@names
def test_example_reaches_its_numbers(name):
    load(name).main()


def moved(flow, key):
    """A flow that is not the identity."""
    state = nnx.state(flow, nnx.Param)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(key, len(leaves))
    leaves = [
        a + 0.1 * jax.random.normal(k, a.shape)
        for a, k in zip(leaves, keys, strict=True)
    ]
    nnx.update(flow, jax.tree.unflatten(structure, leaves))
    return flow


def test_numpyro_distribution_is_the_flow(key):
    flow = moved(rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0)), key)
    prior = load("numpyro_prior").flow_distribution(flow)
    assert prior.batch_shape == ()
    assert prior.event_shape == (2,)
    x = prior.sample(key, (3, 4))
    assert x.shape == (3, 4, 2)
    assert prior.support(x).all()
    # A pytree: JAX sees the parameters.
    log_p = jax.jit(lambda prior, x: prior.log_prob(x))(prior, x)
    np.testing.assert_allclose(log_p, flow.log_prob(x), atol=1e-5)
    (transform,) = prior.transforms
    np.testing.assert_allclose(transform(transform.inv(x)), x, atol=1e-5)


def test_linen_layer_is_the_flow_that_was_fitted(key):
    example = load("linen_flow")
    y, w, _ = example.data(200, 0)
    model = example.Model()
    variables = model.init(key, y[:1], w[:1])
    assert sorted(variables) == ["Frozen", "params"]
    codes = model.apply(variables, w, method=lambda model, w: model.encoder(w))
    flow = rn.coupling_flow(**example.FLOW, rngs=nnx.Rngs(1))
    parts = example.arrays_of(flow)
    shapes = jax.tree.map(jnp.shape, parts)
    own = {name: tree["flow"] for name, tree in variables.items()}
    assert shapes == jax.tree.map(jnp.shape, own)
    variables = {name: variables[name] | {"flow": parts[name]} for name in variables}
    np.testing.assert_allclose(
        model.apply(variables, y, w), flow.log_prob(y, codes), atol=1e-5
    )


def test_lora_starts_as_no_change_and_keeps_the_kernels(key):
    example = load("lora")
    flow = rn.coupling_flow(2, 1, hidden=(8,), num_components=2, rngs=nnx.Rngs(0))
    flow = moved(flow, key)
    adapted = example.with_lora(flow, 2, nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_allclose(adapted.log_prob(x), flow.log_prob(x), atol=1e-5)
    assert rn.output_kernel_magnitudes(adapted) == rn.output_kernel_magnitudes(flow)
    assert len(jax.tree.leaves(nnx.state(adapted, nnx.LoRAParam))) == 8
    # What wraps a kernel of zeros, and adds nothing, can be warm-started.
    conditioner = adapted.layers[2].conditioner
    bias = jnp.arange(conditioner.output("bias").shape[0], dtype=jnp.float32)
    conditioner.make_constant(bias)
    np.testing.assert_allclose(conditioner(x[:, :1])[0], bias, atol=1e-6)


def test_exact_posterior_integrates_to_one_and_follows_bayes():
    example = load("posterior")
    _, observed = example.simulate(1, 0)
    mu, log_sigma = np.meshgrid(np.linspace(-9, 9, 721), np.linspace(-4, 3, 281))
    points = np.stack([mu.ravel(), log_sigma.ravel()], axis=1)
    rows = np.repeat(observed, len(points), axis=0)
    mass = np.exp(example.exact_log_prob(points, rows)) * (18 / 720) * (7 / 280)
    np.testing.assert_allclose(mass.sum(), 1, atol=1e-3)
    # By draws: of many simulations, those that look like what was observed.
    parameters, seen = example.simulate(1_000_000, 1)
    near = np.linalg.norm(seen - observed, axis=1) < 0.1
    np.testing.assert_allclose(parameters[near].mean(0), mass @ points, atol=0.1)
