"""Means over seeds, and the seconds at which a curve passes a level; from records alone."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.density.fits import DEFAULTS, MIXTURE, Point, best_so_far
from benchmarks.density.flows import FLOWS, WHITENED
from benchmarks.report import Row


class Mean(NamedTuple):
    """Over seeds."""

    value: float
    error: float  # standard, of the mean; NaN of one seed

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Of one value a seed."""
        n = len(values)
        error = statistics.stdev(values) / math.sqrt(n) if n > 1 else math.nan
        return cls(statistics.fmean(values), error)


class Group(NamedTuple):
    """The fits of so many rows of a table."""

    table: str
    num_rows: int
    records: list[Row]

    def of(self, model: str, **limit: float | None) -> dict[int, Row]:
        """A model's records by seed; without a limit those that have none."""
        limit = {"seconds": None, "steps": None} | limit
        return {
            r["seed"]: r
            for r in self.records
            if r["model"] == model and all(r[k] == v for k, v in limit.items())
        }

    def limits(self, name: str) -> list[float]:
        """Those by "seconds" or by "steps" that flows were given."""
        return sorted({r[name] for r in self.records if r[name] is not None})

    @property
    def second(self) -> str:
        """What a second is."""
        return {"wall": "s", "cpu": "CPU s"}[self.records[0]["clock"]]

    @property
    def num_seeds(self) -> int:
        """Of the models together."""
        return len({r["seed"] for r in self.records})


def groups(records: Iterable[Row]) -> list[Group]:
    """In the order of the records."""
    found: dict[tuple, list[Row]] = {}
    for r in records:
        found.setdefault((r["table"], r["num_rows"]), []).append(r)
    return [Group(*key, rows) for key, rows in found.items()]


def races(records: Iterable[Row]) -> list[Group]:
    """Groups in which flows had limits."""
    return [g for g in groups(records) if g.limits("seconds") or g.limits("steps")]


def few_rows(records: Iterable[Row]) -> list[Group]:
    """Groups in which `FlowDensity` had none."""
    return [g for g in groups(records) if g.of(DEFAULTS)]


def log_prob(rows: dict[int, Row]) -> Mean | None:
    """Held-out nats."""
    return Mean.of([r["log_prob"] for r in rows.values()]) if rows else None


def over(rows: dict[int, Row], others: dict[int, Row]) -> Mean | None:
    """The difference, paired by seed."""
    seeds = rows.keys() & others.keys()
    if not seeds:
        return None
    return Mean.of([rows[s]["log_prob"] - others[s]["log_prob"] for s in seeds])


def seconds_to(rows: dict[int, Row], levels: dict[int, float]) -> float | None:
    """The median over seeds; infinite if half of them never get there."""
    found = [
        _first(best_so_far(r["curve"]), levels[s])
        for s, r in rows.items()
        if s in levels
    ]
    return statistics.median_high(found) if found else None


def levels(group: Group, seconds: float) -> dict[str, dict[int, float]]:
    """What a flow's curve is to pass, by name and seed: ends of the mixture and the spline.

    Of the two splines it is the better one.
    """
    splines = [group.of(f"spline{e}", seconds=seconds) for e in ("", WHITENED)]
    best = max(splines, key=lambda rows: (log_prob(rows) or (-math.inf,))[0])
    named = {"mixture": group.of(MIXTURE), "spline": best}
    return {
        name: {s: r["log_prob"] for s, r in rows.items()}
        for name, rows in named.items()
    }


def curves(group: Group, seconds: float, at: np.ndarray) -> dict[str, np.ndarray]:
    """Held-out nats of each flow at these seconds, [seeds, times]; NaN before its start."""
    return {
        model: np.array([_values(best_so_far(r["curve"]), at) for r in rows.values()])
        for model in FLOWS
        if (rows := group.of(model, seconds=seconds))
    }


def _first(points: list[Point], level: float) -> float:
    return next((p.seconds for p in points if p.test >= level), math.inf)


def _values(points: list[Point], at: np.ndarray) -> np.ndarray:
    """The last evaluation by each time."""
    times, values = np.array([(p.seconds, p.test) for p in points]).T
    index = np.searchsorted(times, at, side="right") - 1
    return np.where(index < 0, np.nan, values[index])
