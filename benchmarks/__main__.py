"""`python -m benchmarks`: measures, prints, writes JSON and Markdown; `--check` compares."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import tyro
from rich.console import Console

from benchmarks import check, devices, pieces, real_data, real_tables, report, sections

RESULTS = pathlib.Path(__file__).parent / "results"


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
        "training": lambda: sections.training(dims, (512, 4_096)),
        "dispatches": lambda: sections.dispatches(dims, (512, 4_096)),
        "pieces": lambda: pieces.pieces(dims, (512, 4_096)),
        "evaluation": lambda: sections.evaluation(wide, large),
        "sampling": lambda: sections.sampling(dims, (4_096,)),
        "depth": lambda: sections.depth((4, 8) if quick else (4, 8, 16, 32)),
        "memory": lambda: sections.memory(
            (512, 4_096) if quick else (512, 4_096, 32_768)
        ),
        "warm_start": lambda: sections.warm_start(many),
        "accuracy": lambda: sections.accuracy(wide),
        "devices": devices.measured,
        "trainer": lambda: sections.trainer((2, 8)),
        "moons": lambda: sections.time_to_gap(seeds=1 if quick else 3),
        "tables": lambda: real_tables.held_out(
            tables or (("breast cancer",) if quick else tuple(real_data.TABLES)),
            num_seeds=1 if quick else 3,
        ),
    }


def main(bench: Bench) -> int:
    """Runs the sections; returns 1 if `check` finds a ratio that fell."""
    console = Console()
    stem = bench.out or RESULTS / jax.devices()[0].platform
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
            report.write(stem, environment, merged(stem, rows, only=bench.only))
    if bench.check:
        lines = check.fallen(report.load(stem.with_suffix(".json")), rows)
        console.print("\n".join(lines) or "no ratio fell")
        return int(bool(lines))
    return 0


def merged(
    stem: pathlib.Path, rows: list[report.Row], *, only: Sequence[str]
) -> list[report.Row]:
    """With `--only`, the rows of the other sections stay, with the commit they are of."""
    path = stem.with_suffix(".json")
    if not only or not path.exists():
        return rows
    measured = {_subject(row) for row in rows}
    return [row for row in report.load(path) if _subject(row) not in measured] + rows


def _subject(row):
    return tuple(row.get(key) for key in ("what", "table", "level", "d"))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Bench, prog="python -m benchmarks")))
