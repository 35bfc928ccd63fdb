"""Seconds from arrays to a held-out density that is `gap` nats below the truth.

Compilation, warm start and the evaluations on the way are part of the time, for both.
"""

import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import rbig_nnx as rn
from benchmarks.models.entrants import naive
from trainers import TrainConfig, fit
from trainers.moons import Moons
from trainers.placement import compilation

_EVERY = 25  # steps between evaluations
_LEARNING_RATES = (1e-3, 3e-3, 6e-3)  # the naive way gets the best of these


@functools.cache
def _data():
    moons = Moons()
    fresh = moons.sample(5_000, random_state=1)
    return moons, fresh, float(moons.log_prob(fresh).mean())


class _Reached(Exception):
    """Ends the training when the gap is small enough."""


class _StopAt:
    """A writer that ends the training once the fresh rows' mean log p is high enough."""

    def __init__(self, log_prob: float):
        self._log_prob = log_prob

    def write_scalars(self, step, scalars):
        del step
        if scalars["fresh"] >= self._log_prob:
            raise _Reached

    def flush(self):
        """Nothing is kept."""


def our_seconds(gap: float, num_steps: int, seed: int, *, clusters: int = 0) -> float:
    """Warm start and training with this library's defaults for small data.

    With clusters the start may be enough.
    """
    moons, fresh, limit = _data()
    jax.clear_caches()
    compilation.forget()
    began = time.perf_counter()
    flow = rn.coupling_flow(2, 4, clusters=clusters, rngs=nnx.Rngs(seed))
    warm, _ = rn.warm_start(flow, moons.train, key=jax.random.key(seed))
    if clusters and limit - float(warm.log_prob(fresh).mean()) <= gap:
        return time.perf_counter() - began
    config = TrainConfig(
        num_steps=num_steps, learning_rate=6e-3, eval_every=_EVERY, seed=seed
    )
    try:
        fit(
            warm,
            moons.train,
            monitor={"fresh": fresh},
            config=config,
            writer=_StopAt(limit - gap),
        )
    except _Reached:
        return time.perf_counter() - began
    return math.inf


def naive_seconds(gap: float, num_steps: int, seed: int) -> float:
    """The naive flow from random parameters, the fastest of three learning rates."""
    return min(_naive_seconds(gap, num_steps, seed, rate) for rate in _LEARNING_RATES)


def _naive_seconds(gap, num_steps, seed, learning_rate) -> float:
    moons, fresh, limit = _data()
    jax.clear_caches()
    began = time.perf_counter()
    entrant = naive(2, 4)
    schedule = optax.cosine_onecycle_schedule(num_steps, learning_rate)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    params, opt_state = entrant.params, optimizer.init(entrant.params)

    @jax.jit
    def step(params, opt_state, x):
        grads = jax.grad(lambda p: -jnp.mean(entrant.log_prob(p, x)))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    score = jax.jit(lambda params: jnp.mean(entrant.log_prob(params, fresh)))
    random = np.random.default_rng(seed)
    for i in range(num_steps):
        rows = random.integers(0, len(moons.train), 512)
        params, opt_state = step(params, opt_state, moons.train[rows])
        if (i + 1) % _EVERY == 0 and limit - float(score(params)) <= gap:
            return time.perf_counter() - began
    return math.inf
