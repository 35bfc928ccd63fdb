"""What L-BFGS adds to Adam on a warm-started flow: python -m benchmarks.polish.

Two moons, from the warm start and from where the recipe of `make demo` ends. L-BFGS (Nocedal,
Updating quasi-Newton matrices with limited storage, 1980) sees all training rows, without
noise, averages or decay.
"""

import dataclasses
import time

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

import rbig_nnx as rn
from trainers import TrainConfig, fit
from trainers.moons import Moons

_ITERATIONS = (0, 1, 3, 10, 30, 100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the comparison."""

    num_blocks: int = 4
    num_steps: int = 550  # of Adam
    learning_rate: float = 6e-3  # of Adam, the peak
    num_seeds: int = 5


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


def measure(settings: Settings) -> dict[tuple[str, int], np.ndarray]:
    """By start and iterations: train, validation, gap in nats, and seconds; over seeds."""
    moons = Moons()
    valid, test = (
        moons.sample(n, random_state=s) for s, n in ((2, 3_000), (1, 50_000))
    )
    limit = moons.log_prob(test).mean()
    found: dict[tuple[str, int], list[list[float]]] = {}
    for seed in range(settings.num_seeds):
        flow = rn.coupling_flow(2, settings.num_blocks, rngs=nnx.Rngs(seed))
        warm, _ = rn.warm_start(flow, moons.train, key=jax.random.key(seed))
        config = TrainConfig(
            num_steps=settings.num_steps,
            learning_rate=settings.learning_rate,
            patience=0,
            seed=seed,
        )
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


def main(settings: Settings) -> None:
    """Prints the table."""
    table = Table(title=f"mean log p in nats, {settings.num_seeds} seeds")
    for column in ("start", "iterations", "train", "validation", "gap", "s"):
        table.add_column(column, justify="right")
    for (start, iterations), rows in measure(settings).items():
        values = rows.mean(axis=0)
        scores = (f"{v:.4f}" for v in values[:3])
        table.add_row(start, str(iterations), *scores, f"{values[3]:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
