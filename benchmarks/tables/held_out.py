"""Held-out log-likelihood on real tables: every model, the same wall time.

Every flow is trained by this project's trainer with the same optimiser, batches and early
stopping, for as many steps as fit into the seconds, compilation and warm start included;
what differs is the model. The Gaussian mixture and the kernel density are chosen by
validation and have no time limit.
"""

import collections
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from sklearn.neighbors import KernelDensity

import rbig_nnx as rn
from benchmarks.models.entrants import CouplingFlow, affine, spline
from benchmarks.models.programs import OURS
from benchmarks.report import Row
from benchmarks.tables.data import Splits, splits
from trainers import TrainConfig, fit
from trainers.command.steps.baselines import Mixture
from trainers.estimators.encoded import EncodedTable
from trainers.placement import compilation

_TEST_ROWS = 20_000
KERNEL_ROWS, _KERNEL_VALID = 5_000, 1_000
_VALID_ROWS = 10_000  # that a training run scores at each of its evaluations
_EVALUATIONS = 20
BANDWIDTHS = tuple(np.geomspace(0.05, 1.6, 16).tolist())  # in standard deviations
_MIXTURES = {"Gaussian": (1,), "Gaussian mixture": (1, 2, 4, 8, 16, 32, 64, 128, 256)}
_TRIAL_STEPS = 400
# For each flow, compilation and warm start included. The galaxies' mixture takes more than
# 80 s; on the 64 columns of digits a spline's shortest run takes 60.
SECONDS = {"power": 30, "galaxy": 90, "digits": 60, "breast cancer": 30}


def _warm_flow(parts: Splits, seed: int) -> nnx.Module:
    """This library's flow, warm-started."""
    flow = rn.coupling_flow(parts.train.shape[1], 4, rngs=nnx.Rngs(seed))
    key = jax.random.key(seed)
    return rn.warm_start(flow, parts.train, key=key, rotation="nongaussian")[0]


def _cold(transformer, parts: Splits, seed: int) -> nnx.Module:
    """Eight couplings with the trunks of ours."""
    return CouplingFlow(parts.train.shape[1], 8, transformer, rngs=nnx.Rngs(seed))


def _encoded(train: np.ndarray, *others: np.ndarray) -> list[EncodedTable]:
    """Rows at the mean and the standard deviation of the training rows."""
    center, scale = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    return [
        EncodedTable(
            rows=(rows - center) / scale,
            log_det=np.full(len(rows), -np.log(scale).sum()),
        )
        for rows in (train, *others)
    ]


def kernel_density(parts: Splits) -> float:
    """Gaussian kernels on at most `KERNEL_ROWS` rows; validation chooses the bandwidth."""
    rows, valid = parts.train[:KERNEL_ROWS], parts.valid[:_KERNEL_VALID]
    fits = [KernelDensity(bandwidth=h).fit(rows) for h in BANDWIDTHS]
    best = max(fits, key=lambda f: f.score_samples(valid).mean())
    return float(best.score_samples(parts.test).mean())


FLOWS: dict[str, Callable[[Splits, int], nnx.Module]] = {
    OURS: _warm_flow,
    "RealNVP": functools.partial(_cold, affine),
    "spline": functools.partial(_cold, spline),
}


class _Run(NamedTuple):
    valid: float  # mean log p, nats
    test: float
    seconds: float


def _train_for(build, parts: Splits, *, seconds: float, seed: int) -> _Run:
    """Trains for what is left of the seconds after building and compiling.

    Small tables overfit in that time: a run of a tenth of the steps is made too, and
    validation chooses.
    """
    jax.clear_caches()
    compilation.forget()
    began = time.perf_counter()
    model = build(parts, seed)
    spent = time.perf_counter() - began
    config = TrainConfig(
        num_steps=_TRIAL_STEPS,
        eval_every=_TRIAL_STEPS // 2,
        eval_rows=1_000,
        seed=seed,
    )
    run = functools.partial(fit, x_valid=parts.valid[:_VALID_ROWS], progress=False)
    trial = run(model, parts.train, config=config)
    a_step = trial.train_seconds / _TRIAL_STEPS
    num_steps = max((seconds - spent - trial.compile_seconds) / a_step, _TRIAL_STEPS)
    runs = []
    for share in (0.1, 1.0):
        length = int(share * num_steps)
        config = dataclasses.replace(
            config, num_steps=length, eval_every=max(length // _EVALUATIONS, 1)
        )
        began = time.perf_counter()
        result = run(model, parts.train, config=config)
        took = time.perf_counter() - began
        scores = (
            float(np.mean(result.model.log_prob(part[:_TEST_ROWS])))
            for part in (parts.valid, parts.test)
        )
        runs.append(_Run(*scores, spent + took))
    return max(runs, key=lambda run: run.valid)


def held_out(tables: Sequence[str], *, num_seeds: int) -> list[Row]:
    """Means over seeds, of the split, the parameters and the training.

    Args:
      tables: names in `SECONDS`.
      num_seeds: number of runs.
    """
    return [_row(table, SECONDS[table], num_seeds) for table in tables]


def _row(table, seconds, num_seeds) -> Row:
    found: dict[str, list[float]] = collections.defaultdict(list)
    spent: dict[str, list[float]] = collections.defaultdict(list)
    for seed in range(num_seeds):
        parts = splits(table, seed)
        parts = parts._replace(test=parts.test[:_TEST_ROWS])
        valid = parts.valid[:_TEST_ROWS]
        for name, sizes in _MIXTURES.items():
            began = time.perf_counter()
            train, judge, test = _encoded(parts.train, valid, parts.test)
            mixture = Mixture.fit(train, judge, seed=seed, sizes=sizes)
            spent[name].append(time.perf_counter() - began)
            found[name].append(float(mixture.log_prob(test).mean()))
        found["kernel density"].append(kernel_density(parts))
        for name, build in FLOWS.items():
            best = _train_for(build, parts, seconds=seconds, seed=seed)
            found[name].append(best.test)
            spent[name].append(best.seconds)
        print(table, seed, {k: v[-1] for k, v in found.items()}, flush=True)
    ours = found[OURS]
    return {
        "what": "held-out log p on real tables",
        "table": table,
        "rows": len(parts.train),
        "d": parts.train.shape[1],
        "log_prob": {name: statistics.mean(values) for name, values in found.items()},
        "seeds_ahead_of": {
            name: sum(a > b for a, b in zip(ours, values, strict=True))
            for name, values in found.items()
            if name != OURS
        },
        "all_log_prob": dict(found),
        "seconds": {name: statistics.median(v) for name, v in spent.items()},
    }
