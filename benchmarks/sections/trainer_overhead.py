"""What the trainer costs over a bare loop: python -m benchmarks.sections.trainer_overhead.

Both train one flow on the same batches with the same optimiser. The bare loop is `jax.jit`
of `value_and_grad` and the update, state donated, one call a step, and nothing else. The
trainer's time holds its evaluations, metrics, averages, noise and checks. The two take
turns in one process; reported are medians.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

import rbig_nnx as rn
from trainers import TrainConfig
from trainers.placement.strategy import make_strategy
from trainers.rows.feed import ResidentFeed
from trainers.rows.memory import EpochOrder
from trainers.rows.resident import ResidentRows
from trainers.run.loop import Loop
from trainers.run.optimizer import make_optimizer
from trainers.run.program import Program
from trainers.run.progress import show_progress
from trainers.run.step import negative_log_prob


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the comparison."""

    num_features: int = 2
    num_blocks: int = 4
    num_rows: int = 10_000
    batch_size: int = 512
    num_steps: int = 300
    rounds: int = 7


def measure(settings: Settings) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of a run, of the bare loop and of the trainer."""
    shape = (settings.num_rows, settings.num_features)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    flow = rn.coupling_flow(
        settings.num_features, settings.num_blocks, rngs=nnx.Rngs(0)
    )
    config = TrainConfig(
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        eval_every=settings.num_steps,
        eval_rows=settings.batch_size,
    )
    loops = {"bare loop": _bare(flow, x, config), "trainer": _trainer(flow, x, config)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    for run in loops.values():
        run()  # compiles
    for _ in range(settings.rounds):
        for name, run in loops.items():
            times[name].append(run())
    return {
        name: tuple(map(statistics.median, zip(*values, strict=True)))
        for name, values in times.items()
    }


def main(settings: Settings) -> None:
    """Prints the table."""
    medians = measure(settings)
    table = Table(title=f"{settings.num_steps} steps, medians of {settings.rounds}")
    for column in ("", "wall ms/step", "CPU ms/step", "wall ratio", "CPU ratio"):
        table.add_column(column, justify="right")
    for name, (wall, cpu) in medians.items():
        base = medians["bare loop"]
        per_step = (f"{1e3 * t / settings.num_steps:.3f}" for t in (wall, cpu))
        table.add_row(name, *per_step, f"{wall / base[0]:.3f}", f"{cpu / base[1]:.3f}")
    Console().print(table)


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _bare(flow, x, config) -> Callable[[], tuple[float, float]]:
    optimizer = make_optimizer(config)
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    rows = jnp.asarray(x)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, rows, index):
        params, opt_state = state

        def loss_of(params):
            model = nnx.merge(graphdef, nnx.State(params), nnx.State(rest))
            return -jnp.mean(model.log_prob(rows[index]))

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def run() -> tuple[float, float]:
        state = jax.tree.map(jnp.copy, params), optimizer.init(params)
        order = EpochOrder(len(x), config.batch_size, seed=config.seed)

        def loop():
            nonlocal state
            for number in range(config.num_steps):
                state, _ = step(state, rows, order.indices(number, 1)[0])
            jax.block_until_ready(state)

        return _timed(loop)

    return run


def _trainer(flow, x, config) -> Callable[[], tuple[float, float]]:
    def run() -> tuple[float, float]:
        strategy = make_strategy("jit", None)
        feed = ResidentFeed(
            ResidentRows(x, None),
            strategy,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        program = Program(
            flow,
            feed,
            {"train": x[: config.eval_rows]},
            config=config,
            strategy=strategy,
            partition=(),
            loss_fn=negative_log_prob,
            trainable=nnx.Param,
        )
        program.wait()
        loop = Loop(program, config, validated=False)
        train = functools.partial(
            loop.train,
            workdir=None,
            writer=None,
            callback=None,
            progress=show_progress(enabled=False),
        )
        return _timed(train)

    return run


if __name__ == "__main__":
    main(tyro.cli(Settings))
