"""Which fits make the forms: quick, rows and full."""

from collections.abc import Iterable
from typing import Any

from benchmarks.density.data import SOURCES
from benchmarks.density.fits import CHEAP, DEFAULTS, GAUSSIAN, MIXTURE, Fit
from benchmarks.density.flows import FLOWS, PEERS, STARTS, WHITENED

_SIZES = (100, 300, 1_000, 3_000, 10_000)  # rows of the curves
_SHORT = (*CHEAP, DEFAULTS)  # of these curves
_RACES = ("power", "galaxy")


def quick() -> list[Fit]:
    """An hour and a half: races on 4,000 rows, five seeds, and seconds of the process.

    So it may run beside other work. Against the clock peers are whitened, which suits them.
    """
    few = {"seeds": 5, "num_test": 5_000, "clock": "cpu"}
    flows = [*STARTS, *(name for name in PEERS if name.endswith(WHITENED))]
    return _by_seed(
        _each(_RACES, [4_000], CHEAP, **few),
        _each(_RACES, [4_000], flows, seconds=50, **few),
        _each(["power"], [4_000], FLOWS, steps=300, **few),
    )


def rows() -> list[Fit]:
    """Two or three hours: `FlowDensity` beside a mixture on every table, from 100 rows on."""
    models = GAUSSIAN, MIXTURE, DEFAULTS
    many = {"seeds": 5, "num_test": 5_000, "clock": "cpu"}
    return _by_seed(_each(SOURCES, _SIZES, models, **many))


def full() -> list[Fit]:
    """Hours, twenty or so."""
    many = {"seeds": 5, "num_test": 20_000}
    races = {"power": 1_000_000, "galaxy": 80_000}
    parts = [
        _each([table], [num_rows], models, **limit, **many)
        for table, num_rows in races.items()
        for models, limit in (
            (CHEAP, {}),
            (FLOWS, {"seconds": 180}),
            (FLOWS, {"steps": 5_000}),
        )
    ]
    return _by_seed(*parts, _each(SOURCES, _SIZES, _SHORT, **many))


def _each(
    tables: Iterable[str],
    sizes: Iterable[int],
    models: Iterable[str],
    *,
    seeds: int,
    **options: Any,
) -> list[Fit]:
    """Every model on every number of rows that a table has."""
    return [
        Fit(table=table, num_rows=num_rows, model=model, seed=seed, **options)
        for table in tables
        for num_rows in sizes
        if SOURCES[table].allows(num_rows)
        for model in models
        for seed in range(seeds)
    ]


def _by_seed(*parts: list[Fit]) -> list[Fit]:
    """All of one seed first: what is done by any time says something of every model."""
    return sorted((fit for part in parts for fit in part), key=lambda fit: fit.seed)
