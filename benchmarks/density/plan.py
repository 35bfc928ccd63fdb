"""Which fits make the quick form and the full one."""

from collections.abc import Sequence
from typing import Any

from benchmarks.density.data import SOURCES
from benchmarks.density.fits import CHEAP, DEFAULTS, Fit
from benchmarks.density.flows import FLOWS

_SIZES = (100, 300, 1_000, 3_000, 10_000)  # rows of the curves


def race(
    table: str,
    num_rows: int,
    *,
    seeds: int,
    seconds: float | None,
    steps: int | None,
    **options: Any,
) -> list[Fit]:
    """Every flow for so long, then for so many steps, and what is cheap."""
    limits = [{"seconds": seconds}] * (seconds is not None)
    limits += [{"steps": steps}] * (steps is not None)
    runs = [(model, {}) for model in CHEAP]
    runs += [(model, limit) for limit in limits for model in FLOWS]
    return [
        Fit(table=table, num_rows=num_rows, model=model, seed=seed, **limit, **options)
        for seed in range(seeds)
        for model, limit in runs
    ]


def few_rows(
    tables: Sequence[str], sizes: Sequence[int], *, seeds: int, **options: Any
) -> list[Fit]:
    """`FlowDensity` and what is cheap, as far as a table has the rows."""
    return [
        Fit(table=table, num_rows=n, model=model, seed=seed, **options)
        for seed in range(seeds)
        for table in tables
        for n in sizes
        if SOURCES[table].allows(n)
        for model in (*CHEAP, DEFAULTS)
    ]


def quick() -> list[Fit]:
    """Minutes, half an hour or so: few rows, two seeds, and seconds of the process.

    So it may run beside other work.
    """
    few = {"seeds": 2, "num_test": 5_000, "most_components": 32, "clock": "cpu"}
    return _by_seed(
        few_rows(("Student-t", "breast cancer"), (300, 1_000), **few),
        race("power", 4_000, seconds=60, steps=300, **few),
        race("galaxy", 4_000, seconds=60, steps=None, **few),
    )


def full() -> list[Fit]:
    """Hours, twenty or so."""
    many = {"seeds": 5, "num_test": 20_000}
    return _by_seed(
        race("power", 1_000_000, seconds=180, steps=5_000, **many),
        race("galaxy", 80_000, seconds=180, steps=5_000, **many),
        few_rows(tuple(SOURCES), _SIZES, **many),
    )


def _by_seed(*parts: list[Fit]) -> list[Fit]:
    """All of one seed first: what is done by any time says something of every model."""
    return sorted((fit for part in parts for fit in part), key=lambda fit: fit.seed)
