"""`python -m benchmarks.accelerator`: this library beside its peers on one accelerator."""

import dataclasses
import functools
import pathlib
import re
import sys
import time
from collections.abc import Callable

import jax
import tyro
from rich.console import Console

from benchmarks import report
from benchmarks.accelerator import grid, quality
from benchmarks.accelerator.ceilings import PRECISIONS, ceilings
from benchmarks.models import programs
from benchmarks.sections import speed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Measures this machine's first device; writes benchmarks/results/<device>."""

    only: tuple[str, ...] = ()  # names of sections; empty for all
    quick: bool = False  # small sizes, in some minutes on a CPU
    minutes: float = 9.0  # no section is begun after so long
    out: pathlib.Path | None = None  # stem of the results; None: results/<device>


def plan(*, quick: bool, best: dict[str, float]) -> dict[str, Callable[[], list]]:
    """Each section with its sizes, the most wanted first; `best` are the ceilings."""
    measured = functools.partial(
        grid.measured, ceilings=best, patience=0.0 if quick else None
    )
    dims = (2,) if quick else (8, 2, 32, 128)
    batches = (256,) if quick else (512, 4_096, 32_768, 262_144)
    both, largest = (programs.OURS, programs.NAIVE), batches[-1]
    everybody = (*grid.PEERS, *grid.SHORTER)

    def steps(d):
        sizes = [
            grid.Size(d, n, everybody if n in (4_096, largest) else both)
            for n in batches
        ]
        return lambda: measured("training step", programs.step, sizes)

    def all_dims(what, make, chosen):
        sizes = [
            grid.Size(d, n, grid.PEERS if n == largest else both)
            for d in dims
            for n in chosen
        ]
        return lambda: measured(what, make, sizes)

    starts = [(500, 2, False)] if quick else [
        (50_000, 8, False), (50_000, 32, False), (1_000_000, 8, False),
        (10_000_000, 8, False), (50_000, 128, False),
    ]  # fmt: skip
    tables = ("galaxy",) if quick else tuple(quality.LEVELS)
    return {
        "compile": lambda: speed.depth((1,) if quick else (4, 16), 8, 4_096),
        **{f"steps-{d}": steps(d) for d in dims},
        **{
            table: lambda table=table: quality.seconds_to(
                [table], seconds=75.0, quick=quick
            )
            for table in tables
        },
        "moons": lambda: speed.time_to_gap(
            num_steps=50 if quick else 1_000, seeds=1, gap=10.0 if quick else 0.08
        ),
        "warm_start": lambda: speed.warm_start(starts),
        "log_prob": all_dims("log p", programs.log_prob, batches),
        "sampling": all_dims("sampling", programs.draws, batches[1::2] or batches),
    }


def main(settings: Accelerator) -> int:
    """Runs the sections; returns 2 if there is no such section."""
    console = Console(soft_wrap=True)
    began = time.monotonic()
    device = jax.devices()[0].device_kind
    stem = settings.out or report.RESULTS / re.sub(r"\W+", "-", device.lower())
    jax.config.update("jax_default_matmul_precision", PRECISIONS["float32"])
    best: dict[str, float] = {}
    sections_to_run = plan(quick=settings.quick, best=best)
    unknown = set(settings.only) - set(sections_to_run)
    if unknown:
        console.print(
            f"no section {sorted(unknown)}; there are {list(sections_to_run)}"
        )
        return 2
    best |= ceilings(quick=settings.quick)
    environment = report.environment() | {"precision": "float32 (highest)"}
    rows: list[report.Row] = [{"what": "ceilings, a second", **best}]
    left_out = []
    for name, run in sections_to_run.items():
        if settings.only and name not in settings.only:
            continue
        if time.monotonic() - began > 60 * settings.minutes:
            left_out.append(name)
            continue
        measured = run()
        rows += measured
        report.write(stem, environment, report.merged(stem, rows, only=settings.only))
        console.print(report.markdown(environment, measured).split("\n", 5)[-1])
        console.print(f"{name}: done {time.monotonic() - began:.0f} s after the start")
    if left_out:
        console.print(
            f"no time left for {', '.join(left_out)}:"
            f" run again with --only {' '.join(left_out)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Accelerator, prog="python -m benchmarks.accelerator")))
