"""What is measured. Each function returns rows for one table."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import rbig_nnx as rn
from benchmarks.models import programs
from benchmarks.models.entrants import ENTRANTS, NUM_COMPONENTS
from benchmarks.models.programs import NAIVE, NUM_BLOCKS, OURS, rows_of, train_step
from benchmarks.report import Row
from benchmarks.sections import trainer_overhead
from benchmarks.timing import compile_seconds, interleaved

_IN_A_LIST = "rbig-nnx, in a list"


def compared(
    names: Sequence[str], build: Callable[[str], tuple[Callable, tuple]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Compile seconds and interleaved run seconds by entrant."""
    calls, compiled = {}, {}
    for name in names:
        function, args = build(name)
        program, compiled[name] = compile_seconds(function, *args)
        calls[name] = functools.partial(program, *args)
    return compiled, interleaved(calls)


def row_of(what: str, seconds: dict[str, float], num_rows: int, **more: Any) -> Row:
    """A table's row with rows a second, and the others' seconds over ours."""
    ours = seconds[OURS]
    return {
        "what": what,
        **more,
        "rows_per_second": {name: num_rows / s for name, s in seconds.items()},
        "ratio": {name: s / ours for name, s in seconds.items() if name != OURS},
    }


def _by_size(what, dims, batches, make, *, batches_a_call: int = 1) -> list[Row]:
    """A row for each size; `make(entrant, x)` gives a function and its arguments.

    A call reads `batches_a_call` batches, all of them rows of x.
    """
    rows = []
    for d in dims:
        for batch in batches:

            def build(name, d=d, batch=batch):
                x = jnp.asarray(rows_of(batches_a_call * batch, d))
                return make(ENTRANTS[name](d, NUM_BLOCKS), x)

            compiled, seconds = compared(list(ENTRANTS), build)
            rows.append(
                row_of(what, seconds, batches_a_call * batch, d=d, batch=batch)
                | {"compile_seconds": compiled}
            )
    return rows


def training(dims, batches) -> list[Row]:
    """The training step, and its compilation."""
    return _by_size("training step", dims, batches, programs.step)


_STEPS = 8  # in a dispatch


def dispatches(dims, batches) -> list[Row]:
    """Several training steps in one program, for everyone, as the trainer takes them."""

    def make(entrant, x):
        step, opt_state = train_step(entrant)

        def steps(params, opt_state, batches):
            def body(carry, x):
                *carry, loss = step(*carry, x)
                return carry, loss

            # Nobody but us is changed by it.
            with rn.keep_activations():
                return jax.lax.scan(body, [params, opt_state], batches)

        batches = x.reshape(_STEPS, -1, x.shape[1])
        return steps, (entrant.params, opt_state, batches)

    what = f"training steps, {_STEPS} in a dispatch"
    return _by_size(what, dims, batches, make, batches_a_call=_STEPS)


def evaluation(dims, batches) -> list[Row]:
    """log p of rows."""
    return _by_size("log p", dims, batches, programs.log_prob)


def sampling(dims, batches) -> list[Row]:
    """Draws of rows."""
    return _by_size("sampling", dims, batches, programs.draws)


def depth(depths, d: int = 8, batch: int = 512) -> list[Row]:
    """The training step and its compilation over the number of blocks.

    Ours as it is built by default, from nine blocks on with stacked parameters, and as a
    list of layers throughout.
    """
    builds = {
        OURS: ENTRANTS[OURS],
        _IN_A_LIST: functools.partial(ENTRANTS[OURS], scan_blocks=False),
        NAIVE: ENTRANTS[NAIVE],
    }
    x = jnp.asarray(rows_of(batch, d))
    compilation, steps = [], []
    for num_blocks in depths:

        def build(name, num_blocks=num_blocks):
            entrant = builds[name](d, num_blocks)
            step, opt_state = train_step(entrant)
            return step, (entrant.params, opt_state, x)

        compiled, seconds = compared(list(builds), build)
        size = {"d": d, "blocks": num_blocks}
        compilation.append(
            {
                "what": "compile the training step",
                **size,
                "compile_seconds": compiled,
                "ratio": {
                    name: s / compiled[OURS]
                    for name, s in compiled.items()
                    if name != OURS
                },
            }
        )
        steps.append(row_of("training step over depth", seconds, batch, **size))
    return compilation + steps


def memory(batches, d: int = 8, num_blocks: int = NUM_BLOCKS) -> list[Row]:
    """Temporary memory of the training step over the batch, from the compiled program."""
    rows = []
    for batch in batches:
        used = {}
        for name in (OURS, NAIVE):
            entrant = ENTRANTS[name](d, num_blocks)
            step, opt_state = train_step(entrant)
            x = jnp.asarray(rows_of(batch, d))
            program, _ = compile_seconds(step, entrant.params, opt_state, x)
            used[name] = program.memory_analysis().temp_size_in_bytes
        rows.append(
            {
                "what": "memory of the training step",
                "d": d,
                "batch": batch,
                "bytes_a_row": {name: size / batch for name, size in used.items()},
                "ratio": {NAIVE: used[NAIVE] / used[OURS]},
            }
        )
    return rows


# scikit-learn's own stopping rule ends early: its likelihood is below that of our fits.
_LOOPS = {
    "scikit-learn loop": {},
    "scikit-learn loop, tol 1e-5": {"tol": 1e-5, "max_iter": 1_000},
}


def warm_start(cases, num_blocks: int = NUM_BLOCKS) -> list[Row]:
    """The whole warm start, compilation included, beside the scikit-learn loop.

    `cases` are (rows, features, whether the loops run too).
    """
    from benchmarks.models import naive

    rows = []
    for n, d, beside in cases:
        x = rows_of(n, d)
        jax.clear_caches()
        began = time.perf_counter()
        flow = rn.coupling_flow(d, num_blocks, rngs=nnx.Rngs(0))
        warm, _ = rn.warm_start(flow, x, key=jax.random.key(0), holdout=0.0)
        jax.block_until_ready(nnx.state(warm))
        seconds = {OURS: time.perf_counter() - began}
        row: Row = {"what": "warm start", "rows": n, "d": d, "seconds": seconds}
        began = time.perf_counter()
        warm, _ = rn.warm_start(flow, x, key=jax.random.key(1), holdout=0.0)
        jax.block_until_ready(nnx.state(warm))
        row["seconds_warm"] = time.perf_counter() - began
        row["train_log_prob"] = {OURS: float(jnp.mean(warm.log_prob(x[:50_000])))}
        if beside:
            # The loop standardises outside the model: the same units for both.
            units = float(np.log(x.std(0)).sum())
            for name, options in _LOOPS.items():
                began = time.perf_counter()
                log_prob = naive.fit_blocks(x, num_blocks, NUM_COMPONENTS, **options)
                seconds[name] = time.perf_counter() - began
                row["train_log_prob"][name] = log_prob - units
            row["ratio"] = {name: seconds[name] / seconds[OURS] for name in _LOOPS}
        rows.append(row)
    return rows


def accuracy(dims, num_blocks: int = NUM_BLOCKS, n: int = 4_096) -> list[Row]:
    """Largest error of the float32 log p and round trip against float64."""
    rows = []
    for d in dims:
        x = rows_of(n, d)
        flow = rn.coupling_flow(d, num_blocks, rngs=nnx.Rngs(0))
        warm, _ = rn.warm_start(flow, x, key=jax.random.key(0))
        single = np.asarray(warm.log_prob(x), np.float64)
        z, _ = warm.forward_and_log_det(x)
        back, _ = warm.inverse_and_log_det(z)
        with jax.enable_x64(True):
            graphdef, state = nnx.split(warm)
            state = jax.tree.map(
                lambda a: (
                    a.astype(jnp.float64)
                    if jnp.issubdtype(a.dtype, jnp.floating)
                    else a
                ),
                state,
            )
            wide = nnx.merge(graphdef, state)
            double = np.asarray(wide.log_prob(jnp.asarray(x, jnp.float64)))
        error = np.abs(single - double)
        rows.append(
            {
                "what": "accuracy of float32",
                "d": d,
                "log_prob_max": float(error.max()),
                "log_prob_median": float(np.median(error)),
                "round_trip_max": float(np.abs(np.asarray(back) - x).max()),
            }
        )
    return rows


def trainer(dims) -> list[Row]:
    """A step of the trainer, all it does included, beside a bare jitted loop."""
    rows = []
    for d in dims:
        settings = trainer_overhead.Settings(num_features=d)
        walls = {
            name: wall / settings.num_steps
            for name, (wall, _) in trainer_overhead.measure(settings).items()
        }
        seconds = {OURS: walls["trainer"], "bare loop": walls["bare loop"]}
        batch = settings.batch_size
        rows.append(row_of("step of the trainer", seconds, batch, d=d, batch=batch))
    return rows


def time_to_gap(gap: float = 0.08, num_steps: int = 1_000, seeds: int = 3) -> list[Row]:
    """Seconds from arrays to a held-out gap to the truth on the two moons, ours and naive.

    Ours also with clusters taken off, after which nothing is left to train. Compilation
    included; both train with Adam, batches of 512, their better of two peaks.
    """
    from benchmarks.sections.moons_race import naive_seconds, our_seconds

    clustered = f"{OURS}, clusters"
    results: dict[str, list[float]] = {OURS: [], clustered: [], NAIVE: []}
    for seed in range(seeds):
        results[OURS].append(our_seconds(gap, num_steps, seed))
        results[clustered].append(our_seconds(gap, num_steps, seed, clusters=16))
        results[NAIVE].append(naive_seconds(gap, num_steps, seed))
    medians = {name: statistics.median(values) for name, values in results.items()}
    return [
        {
            "what": f"two moons to a gap of {gap}",
            "seconds": medians,
            "all_seconds": results,
            "ratio": {NAIVE: medians[NAIVE] / medians[OURS]},
        }
    ]
