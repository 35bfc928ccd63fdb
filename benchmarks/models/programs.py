"""The programs that are measured: a training step, log p of rows, draws."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.models.entrants import Entrant

OURS, NAIVE = "rbig-nnx", "naive (FlowJAX)"
NUM_BLOCKS = 4

# A function and its arguments.
Program = tuple[Callable, tuple]


def rows_of(num_rows: int, num_features: int, seed: int = 0) -> np.ndarray:
    """Skewed, dependent columns of unit variance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, num_features))
    x = np.sinh(x + 0.5 * np.roll(x, 1, axis=1))
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def train_step(entrant: Entrant) -> tuple[Callable, Any]:
    """Adam on the mean negative log density: (params, state, x) -> the same, loss."""
    optimizer = optax.adam(1e-3)

    def step(params, opt_state, x):
        def loss(params):
            return -jnp.mean(entrant.log_prob(params, x))

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return step, optimizer.init(entrant.params)


def step(entrant: Entrant, x: jax.Array) -> Program:
    """A training step on rows, [n, d]."""
    function, opt_state = train_step(entrant)
    return function, (entrant.params, opt_state, x)


def log_prob(entrant: Entrant, x: jax.Array) -> Program:
    """log p of rows, [n, d]."""
    return entrant.log_prob, (entrant.params, x)


def draws(entrant: Entrant, x: jax.Array) -> Program:
    """As many draws as there are rows in x."""

    def draw(params, key):
        return entrant.sample(params, key, len(x))

    return draw, (entrant.params, jax.random.key(0))
