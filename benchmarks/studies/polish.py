"""What L-BFGS adds to Adam on a warm-started flow: python -m benchmarks.studies.polish.

Two moons, from the warm start and from where the recipe of `make demo` ends. L-BFGS (Nocedal,
Updating quasi-Newton matrices with limited storage, 1980) sees all training rows, without
noise, averages or decay.
"""

import time

import jax
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.table import Table

import rbig_nnx as rn
from trainers import fit
from trainers.command.demo import NUM_BLOCKS, Demo
from trainers.moons import Moons

_ITERATIONS = (0, 1, 3, 10, 30, 100)


def polish(flow, rows):
    """Yields (iterations, seconds, flow) at each of `_ITERATIONS`."""
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)

    def loss(params):
        return -nnx.merge(graphdef, params, rest, copy=True).log_prob(rows).mean()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    @jax.jit
    def iteration(params, state):
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=loss
        )
        return optax.apply_updates(params, updates), state

    state, done, seconds = optimizer.init(params), 0, 0.0
    # Compiled, and thrown away: the state before the first has other types than the next.
    jax.block_until_ready(iteration(*iteration(params, state)))
    for wanted in _ITERATIONS:
        began = time.perf_counter()
        for _ in range(done, wanted):
            params, state = iteration(params, state)
        jax.block_until_ready(params)
        done, seconds = wanted, seconds + time.perf_counter() - began
        yield done, seconds, nnx.merge(graphdef, params, rest, copy=True)


def measure(demo: Demo) -> dict[tuple[str, int], np.ndarray]:
    """By start and iterations: train, validation, gap in nats, and seconds; over seeds."""
    moons = Moons()
    test = moons.sample(demo.num_test, random_state=1)
    valid = moons.sample(demo.num_valid, random_state=2)
    limit = moons.log_prob(test).mean()
    found: dict[tuple[str, int], list[list[float]]] = {}
    for seed in range(demo.num_seeds):
        flow = rn.coupling_flow(2, NUM_BLOCKS, rngs=nnx.Rngs(seed))
        warm, _ = rn.warm_start(flow, moons.train, key=jax.random.key(seed))
        config = demo.train_config(seed)
        adam = fit(warm, moons.train, valid, config=config, progress=False).model
        for start, model in (("warm start", warm), ("after Adam", adam)):
            for iterations, seconds, polished in polish(model, moons.train):
                scores = [
                    float(np.mean(polished.log_prob(rows)))
                    for rows in (moons.train, valid, test)
                ]
                row = [*scores[:2], limit - scores[2], seconds]
                found.setdefault((start, iterations), []).append(row)
    return {name: np.array(rows) for name, rows in found.items()}


def main(demo: Demo) -> None:
    """Prints the table."""
    table = Table(title=f"mean log p in nats, {demo.num_seeds} seeds")
    for column in ("start", "iterations", "train", "validation", "gap", "s"):
        table.add_column(column, justify="right")
    for (start, iterations), rows in measure(demo).items():
        values = rows.mean(axis=0)
        scores = (f"{v:.4f}" for v in values[:3])
        table.add_row(start, str(iterations), *scores, f"{values[3]:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main(Demo())
