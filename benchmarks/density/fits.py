"""One fit: what makes it this one, and what it gave on rows that took no part in it.

Flows of every kind are trained alike, by what `FlowDensity` does with its own: the settings
that follow the table, one weight decay after another while the runs overfit, the same
held-out rows to choose by. Only the model and its start differ.
"""

import dataclasses
import functools
import os
import time
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from sklearn.utils import check_random_state

from benchmarks import report
from benchmarks.density.data import SOURCES, Sample
from benchmarks.density.flows import FLOWS
from benchmarks.tables.data import Splits
from benchmarks.tables.held_out import BANDWIDTHS, KERNEL_ROWS, kernel_density
from trainers import FlowDensity
from trainers.command.steps.baselines import Mixture
from trainers.estimators.encoded import EncodedTable, split
from trainers.estimators.rungs import steps_within, train_rungs
from trainers.estimators.settings import Budget, settings_for
from trainers.placement import compilation

DEFAULTS = "FlowDensity"  # with nothing but its defaults
GAUSSIAN, MIXTURE, KERNELS = "Gaussian", "Gaussian mixture", "kernel density"
CHEAP = (GAUSSIAN, MIXTURE, KERNELS)
_HELD_OUT = 0.1  # of the rows, that choose: `FlowDensity`'s share
_RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# A process's own seconds are the same beside other work; with several threads they are more.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """One model on one sample.

    Attributes:
      table: in `SOURCES`.
      num_rows: to fit and to choose by.
      num_test: to judge by, at most.
      model: in `FLOWS` or `CHEAP`, or `DEFAULTS`.
      seed: of sample, split, parameters and training.
      seconds: that a flow may take, start and compilation included, or None.
      steps: of each of its runs, or None.
      clock: of all seconds, in `CLOCKS`.
      most_components: of the mixture.
    """

    table: str
    num_rows: int
    num_test: int
    model: str
    seed: int
    seconds: float | None = None
    steps: int | None = None
    clock: str = "wall"
    most_components: int = _SIZES[-1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Components that the mixture tries."""
        sizes = tuple(k for k in _SIZES if k <= self.most_components)
        return (1,) if self.model == GAUSSIAN else sizes

    @property
    def asked(self) -> dict[str, Any]:
        """What `settings_for` does not decide."""
        steps = {} if self.steps is None else {"num_steps": self.steps}
        return {"seed": self.seed} | steps

    def identity(self) -> dict[str, Any]:
        """All settings, JSON: a record of other ones is of another fit."""
        if self.model == KERNELS:
            used = {"bandwidths": BANDWIDTHS, "kernels": KERNEL_ROWS}
        elif self.model in CHEAP:
            used = {"sizes": self.sizes, "ridges": _RIDGES}
        else:
            size = self.num_rows, SOURCES[self.table].num_columns
            used = dataclasses.asdict(
                settings_for(*size, asked=self.asked, budget=Budget(self.seconds))
            )
        return {"fit": dataclasses.asdict(self), "settings": used}


class Point(NamedTuple):
    """An evaluation."""

    seconds: float  # since the rows were there
    step: int  # of all runs together
    valid: float  # mean log p of the encoded rows that choose
    test: float


class _Curve:
    """A writer that keeps the evaluations of several runs."""

    def __init__(self, began: float):
        self.points: list[Point] = []
        self._began, self._before = began, 0

    def write_scalars(self, step, scalars):
        if step == 0 and self.points:
            self._before = self.points[-1].step
        seconds = round(time.perf_counter() - self._began, 2)
        scores = (round(float(scalars[name]), 5) for name in ("valid", "test"))
        self.points.append(Point(seconds, self._before + step, *scores))

    def flush(self):
        """Nothing is kept elsewhere."""


def run(fit: Fit) -> report.Row:
    """Fits and judges; the record."""
    sample = SOURCES[fit.table].draw(fit.num_rows, fit.num_test, fit.seed)
    load, wall = os.getloadavg()[0], time.monotonic()
    if fit.seconds is not None:  # everyone compiles for himself
        jax.clear_caches()
        compilation.forget()
    # Whoever looks at the clock, the trainer too, sees this one.
    with mock.patch.object(time, "perf_counter", CLOCKS[fit.clock]):
        began = time.perf_counter()
        found = _fitted(fit, sample, began)
        taken = time.perf_counter() - began
    return {
        **dataclasses.asdict(fit),
        **found,
        "seconds_taken": round(taken, 2),
        "wall_seconds": round(time.monotonic() - wall, 2),
        "truth": sample.truth,
        "d": sample.rows.shape[1],
        "num_judged": len(sample.test),
        "load": load,  # of the machine, when it began
    }


def _fitted(fit: Fit, sample: Sample, began: float) -> dict[str, Any]:
    if fit.model in FLOWS:
        return _flow(fit, sample, began)
    if fit.model == DEFAULTS:
        density = FlowDensity(random_state=fit.seed).fit(sample.rows)
        layers = [type(layer).__name__ for layer in density.flow_.layers]
        return {"log_prob": density.score(sample.test), "layers": layers}
    if fit.model == KERNELS:
        parts = Splits(*(part.rows for part in _parts(fit, sample)))
        return {"log_prob": kernel_density(parts)}
    return _mixture(fit, sample)


def _parts(fit: Fit, sample: Sample) -> tuple[EncodedTable, EncodedTable, EncodedTable]:
    """Rows that fit, that choose and that judge: the same ones for every model."""
    rows, test = (
        EncodedTable(rows=rows, log_det=np.zeros(len(rows))) for rows in sample[:2]
    )
    seed = check_random_state(fit.seed).randint(2**31 - 1)  # as `FlowDensity` draws it
    train, valid = split(rows, _HELD_OUT, seed)
    assert valid is not None
    return train, valid, test


def _flow(fit: Fit, sample: Sample, began: float) -> dict[str, Any]:
    train, valid, test = _parts(fit, sample)
    decide = functools.partial(settings_for, *train.rows.shape, asked=fit.asked)
    settings = decide(budget=Budget(fit.seconds))
    flow = FLOWS[fit.model](train, settings.architecture, fit.seed)
    rows, options = (flow, train, valid), {"monitor": {"test": test}}
    if fit.seconds is not None:
        left = fit.seconds - (time.perf_counter() - began)
        total = steps_within(left, *rows, settings.train, **options)
        settings = decide(budget=Budget(fit.seconds, total))
    curve = _Curve(began)
    chosen = train_rungs(*rows, settings, writer=curve, **options)
    return {
        "log_prob": best_so_far(curve.points)[-1].test,
        "chosen": chosen.best.name,
        "curve": curve.points,
    }


def best_so_far(points: list) -> list[Point]:
    """At each evaluation the one that the held-out rows would choose by then."""
    best, found = Point(*points[0]), []
    for point in points:
        seconds, step, valid, _ = point = Point(*point)
        best = point if valid > best.valid else best
        found.append(best._replace(seconds=seconds, step=step))
    return found


def _mixture(fit: Fit, sample: Sample) -> dict[str, Any]:
    train, valid, test = _parts(fit, sample)
    mixture = Mixture.fit(train, valid, seed=fit.seed, sizes=fit.sizes, ridges=_RIDGES)
    return {
        "log_prob": float(mixture.log_prob(test).mean()),
        "chosen": f"{mixture.num_components} components",
    }
