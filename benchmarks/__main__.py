"""`python -m benchmarks`: measures, prints, writes JSON and Markdown; `--check` compares."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import tyro
from rich.console import Console

from benchmarks import check, report
from benchmarks.sections import devices, pieces, speed
from benchmarks.tables import data, held_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs the benchmarks on this machine."""

    only: tuple[str, ...] = ()  # names of sections; empty for all
    tables: tuple[str, ...] = ()  # real tables; empty for all
    quick: bool = False  # the small sizes
    check: bool = False  # compare ratios with the committed table instead of writing
    out: pathlib.Path | None = None  # stem of the results; None: results/<device>


def plan(*, quick: bool, tables: Sequence[str] = ()) -> dict[str, Callable[[], list]]:
    """Each section with its sizes."""
    dims = (2, 8) if quick else (2, 8, 32)
    wide = dims if quick else (*dims, 64)
    large = (4_096,) if quick else (512, 4_096, 65_536)
    many = [(10_000, 8, False)] if quick else [
        (10_000, 8, False), (100_000, 8, False), (1_000_000, 8, False),
        (10_000_000, 8, False), (50_000, 2, False), (50_000, 32, True),
        (50_000, 64, False),
    ]  # fmt: skip
    return {
        "training": lambda: speed.training(dims, (512, 4_096)),
        "dispatches": lambda: speed.dispatches(dims, (512, 4_096)),
        "pieces": lambda: pieces.pieces(dims, (512, 4_096)),
        "evaluation": lambda: speed.evaluation(wide, large),
        "sampling": lambda: speed.sampling(dims, (4_096,)),
        "depth": lambda: speed.depth((4, 8) if quick else (4, 8, 16, 32)),
        "memory": lambda: speed.memory((512, 4_096) if quick else (512, 4_096, 32_768)),
        "warm_start": lambda: speed.warm_start(many),
        "accuracy": lambda: speed.accuracy(wide),
        "devices": devices.measured,
        "trainer": lambda: speed.trainer((2, 8)),
        "moons": lambda: speed.time_to_gap(seeds=1 if quick else 3),
        "tables": lambda: held_out.held_out(
            tables or (("breast cancer",) if quick else tuple(data.TABLES)),
            num_seeds=1 if quick else 3,
        ),
    }


def main(bench: Bench) -> int:
    """Runs the sections; returns 1 if `check` finds a ratio that fell."""
    console = Console()
    stem = bench.out or report.RESULTS / jax.devices()[0].platform
    sections_to_run = plan(quick=bench.quick, tables=bench.tables)
    unknown = set(bench.only) - set(sections_to_run)
    if unknown:
        console.print(
            f"no section {sorted(unknown)}; there are {list(sections_to_run)}"
        )
        return 2
    environment, rows = report.environment(), []
    for name, run in sections_to_run.items():
        if bench.only and name not in bench.only:
            continue
        console.print(f"{name} …")
        measured = run()
        rows += measured
        console.print(report.markdown(environment, measured).split("\n", 5)[-1])
        if not bench.check:
            report.write(stem, environment, report.merged(stem, rows, only=bench.only))
    if bench.check:
        lines = check.fallen(report.load(stem.with_suffix(".json")), rows)
        console.print("\n".join(lines) or "no ratio fell")
        return int(bool(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Bench, prog="python -m benchmarks")))
