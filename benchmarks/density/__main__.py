"""`python -m benchmarks.density`: fits what is missing; table and figure from the JSON."""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Literal

import tyro

from benchmarks import report
from benchmarks.density import pages, picture, plan, records
from benchmarks.density.fits import Fit

ROOT = pathlib.Path(__file__).parents[2]
PAGES = (ROOT / "docs/performance.md", ROOT / "README.md")
FIGURE = ROOT / "docs/figures/density.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Density:
    """Densities side by side. Every fit that is done is kept: a second call goes on."""

    # races and few rows in hours; races in an hour and a half; few rows
    form: Literal["full", "quick", "rows"] = "full"
    draw: bool = False  # fit nothing: pages and figure of docs/ from the results' JSON
    tables: tuple[str, ...] = ()  # to fit; empty for all
    models: tuple[str, ...] = ()  # likewise
    note: str = ""  # kept with the results: what else the machine did
    kept: pathlib.Path = pathlib.Path("runs/density")  # a file for every fit
    out: pathlib.Path | None = None  # stem; None: results/density, density-quick, ...


def main(density: Density, fits: Sequence[Fit] | None = None) -> int:
    """Fits what is missing, or with `draw` renews the pages; the tables beside the JSON.

    Args:
      density: settings.
      fits: instead of those of the form.
    """
    form = density.form
    stem = density.out or report.RESULTS / (
        "density" if form == "full" else f"density-{form}"
    )
    if not density.draw:
        fits = getattr(plan, form)() if fits is None else fits
        records.make(density.kept, [f for f in fits if _is_wanted(f, density)], print)
        machine = {"cores": len(os.sched_getaffinity(0)), "note": density.note}
        environment = report.environment() | machine | {"form": form}
        rows = ",\n".join(map(json.dumps, records.finished(density.kept, fits)))
        stem.parent.mkdir(parents=True, exist_ok=True)
        text = f'{{"environment": {json.dumps(environment)},\n"rows": [\n{rows}\n]}}\n'
        stem.with_suffix(".json").write_text(text)
    document = json.loads(stem.with_suffix(".json").read_text())
    blocks = pages.blocks(document["environment"], document["rows"])
    stem.with_suffix(".md").write_text(pages.page(blocks))
    if density.draw:
        if "races" in blocks:
            picture.draw(document["rows"], FIGURE)
        for path in PAGES:
            pages.insert(path, blocks)
    return 0


def _is_wanted(fit: Fit, density: Density) -> bool:
    asked = ((fit.table, density.tables), (fit.model, density.models))
    return all(not names or name in names for name, names in asked)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Density, prog="python -m benchmarks.density")))
