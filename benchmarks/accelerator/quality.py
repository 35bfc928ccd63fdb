"""Seconds until a training run's held-out density passes given levels."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn
from benchmarks import report
from benchmarks.models.entrants import CouplingFlow, spline
from benchmarks.models.programs import OURS
from benchmarks.report import Row
from benchmarks.tables.data import Splits, splits
from trainers import TrainConfig, fit
from trainers.placement import compilation

_CONFIG = TrainConfig(
    num_steps=20_000,
    batch_size=2_048,
    weight_decay=0.01,
    ema_decay=0.999,
    jitter=0.0,
    eval_every=250,
    patience=0,
)
_QUICK = TrainConfig(num_steps=20, batch_size=64, eval_every=10, eval_rows=100)
# Held-out nats, above that of the best Gaussian mixture.
LEVELS = {
    "power": (0.2, 0.3, 0.4, 0.45, 0.5, 0.55),
    "galaxy": (8.5, 9.0, 9.3, 9.5, 9.7),
}


class _TooLong(Exception):
    """Ends the training."""


class _Curve:
    """A writer that keeps (seconds, held-out log p)."""

    def __init__(self, began: float, seconds: float):
        self.points: list[tuple[float, float]] = []
        self._began, self._limit = began, seconds

    def write_scalars(self, step, scalars):
        del step
        seconds = time.perf_counter() - self._began
        self.points.append((seconds, float(scalars["test"])))
        if seconds > self._limit:
            raise _TooLong

    def flush(self):
        """Nothing is kept."""


def _warm(parts: Splits) -> nnx.Module:
    flow = rn.coupling_flow(parts.train.shape[1], 4, rngs=nnx.Rngs(0))
    key = jax.random.key(0)
    return rn.warm_start(flow, parts.train, key=key, rotation="nongaussian")[0]


def _cold(parts: Splits) -> nnx.Module:
    return CouplingFlow(parts.train.shape[1], 8, spline, rngs=nnx.Rngs(0))


def _curve(build: Callable, parts: Splits, config, seconds: float):
    jax.clear_caches()
    compilation.forget()
    began = time.perf_counter()
    curve = _Curve(began, seconds)
    model = build(parts)
    with contextlib.suppress(_TooLong):
        fit(
            model,
            parts.train,
            parts.valid[:10_000],
            monitor={"test": parts.test[:20_000]},
            config=config,
            writer=curve,
            progress=False,
        )
    return curve.points


def seconds_to(tables: Sequence[str], *, seconds: float, quick: bool) -> list[Row]:
    """Warm-started mixtures beside cold splines, compilation and start included.

    Args:
      tables: names in `LEVELS`.
      seconds: after which a run is stopped.
      quick: few rows and steps.
    """
    config = _QUICK if quick else _CONFIG
    found = []
    for table in tables:
        parts = splits(table, seed=0)
        if quick:
            parts = Splits(*(part[:1_000] for part in parts))
        runs = {
            OURS: _curve(_warm, parts, config, seconds),
            "Distrax spline": _curve(_cold, parts, config, seconds),
        }
        for level in (_of_mixture(table), *LEVELS[table]):
            found.append(
                {
                    "what": "seconds to a held-out log p",
                    "table": table,
                    "level": level,
                    "seconds": {n: _first(points, level) for n, points in runs.items()},
                }
            )
        found.append(
            {
                "what": "end of these runs",
                "table": table,
                "steps": config.num_steps,
                "batch": config.batch_size,
                "log_prob": {n: points[-1][1] for n, points in runs.items()},
                "seconds": {n: points[-1][0] for n, points in runs.items()},
                "start": {n: points[0][1] for n, points in runs.items()},
                "curves": {n: np.round(p, 4).tolist() for n, p in runs.items()},
            }
        )
    return found


def _of_mixture(table: str) -> float:
    """The mixture of up to 256 components that validation chose, on the same rows."""
    rows = report.load(report.RESULTS / "cpu.json")
    (found,) = (row for row in rows if row.get("table") == table)
    return round(found["all_log_prob"]["Gaussian mixture"][0], 3)


def _first(points, level) -> float:
    return next((seconds for seconds, value in points if value >= level), math.inf)
