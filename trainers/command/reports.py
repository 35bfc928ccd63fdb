"""What is told of a finished fit: `report` and `info`."""

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from trainers.command.output import Printer
from trainers.command.steps import runs, verdict
from trainers.paths import Path, placed, size_of
from trainers.tables.kinds.found import kinds_table


def show_fit(report: Mapping[str, Any], run: Path, printer: Printer) -> None:
    """What `fit` ends with."""
    show_scores(report, printer)
    show_folder(run, printer)


def show_scores(report: Mapping[str, Any], printer: Printer) -> None:
    """The verdict."""
    printer.table(verdict.score_table(report))
    for sentence in report["verdict"]:
        printer.result(sentence)


def show_folder(run: Path, printer: Printer) -> None:
    """Where everything is."""
    page = run / runs.PAGE
    printer.line(f"Model and report: {run}{f'; page: {page}' if page.exists() else ''}")


def show(run: Path, printer: Printer, *, as_json: bool = False) -> None:
    """The whole report of a finished fit.

    Raises:
      InputError: a folder without one.
    """
    report = runs.read_report(run)
    if as_json:
        printer.result(json.dumps(report, indent=2))
        return
    sizes = ", ".join(f"{n:,} {part}" for part, n in report["rows"].items())
    printer.result(f"{report['file']}: {sum(report['rows'].values()):,} rows; {sizes}")
    printer.table(kinds_table(report["kinds"]))
    if report["kinds_of_given"]:
        title = "columns that are given"
        printer.table(kinds_table(report["kinds_of_given"], title=title))
    for note in (*report["notes"], *report.get("decisions", ())):
        printer.line(note)
    printer.line(report["unit"])
    show_fit(report, run, printer)
    seconds = "; ".join(
        f"{name.replace('_', ' ')} {value:.1f} s"
        for name, value in report["seconds"].items()
    )
    printer.line(seconds)


def info(run: Path, printer: Printer) -> None:
    """What a run is: columns, architecture, sizes and versions.

    Raises:
      InputError: a folder without a finished fit.
    """
    import jax

    report, opened = runs.read_report(run), runs.Run.open(run)
    model = opened.model
    printer.table(model.schema.table())
    if model.given is not None:
        table = model.given.table()
        table.title = "columns that are given"
        printer.table(table)
    settings, flow = report["settings"], model.flow
    size = sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: _params(flow)))
    )
    given = flow.context_features
    facts = {
        "file": report["file"],
        "flow": f"{flow.num_features} encoded columns"
        + (f", {given} of a context" if given else "")
        + f", {len(flow.layers)} layers",
        "parameters": f"{size:,}",
        "draws for discrete columns": str(model.num_draws),
        "best step": f"{report['best_step']} of {report['last_step']}",
        "on disk": f"{size_of(placed(run)) / 2**20:.1f} MiB",
        **{f"version of {name}": v for name, v in report["versions"].items()},
    }
    printer.table(_pairs("run", facts))
    printer.table(_pairs("settings", {k: _text(v) for k, v in settings.items()}))


def _pairs(title: str, values: Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in values.items():
        table.add_row(name, value)
    return table


def _params(flow: Any) -> Any:
    from flax import nnx

    return nnx.state(flow, nnx.Param)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
