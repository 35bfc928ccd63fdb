"""`information`: entropy, total correlation and mutual information of a table's columns.

The whole table has the density of a fit; single columns and pairs have densities of their
own (see `pairs`), fitted to the same training rows. Every figure is a mean over test rows of
differences of log p, row by row, which gives its standard error.
"""

import itertools
import json
import pathlib
from typing import Any

import numpy as np
from rich.table import Table as RichTable

from trainers.command import fit_file
from trainers.command.output import Printer
from trainers.command.settings import FitFile
from trainers.command.steps import runs, verdict
from trainers.command.steps.entrance import Table
from trainers.command.steps.pairs import Densities
from trainers.command.steps.reopening import reopened
from trainers.paths import placed, write_whole
from trainers.run.progress import Progress

_PAIRED = 40  # columns, of which every pair is looked at
_SHOWN = 20  # pairs in the table
FILE = "information.json"


def run(
    path: pathlib.Path,
    settings: FitFile,
    printer: Printer,
    progress: Progress,
    *,
    as_json: bool,
) -> dict[str, Any] | None:
    """Measures a table, which is fitted first, or that of a finished fit.

    Args:
      path: a file, or the folder of a fit.
      settings: of the fit of a file.
      printer: where tables go.
      progress: is told of the phases.
      as_json: print JSON instead.

    Returns:
      What was measured, as JSON, also written to information.json in the run's folder; None
      where a signal ended the fit before.

    Raises:
      InputError: for a folder without a finished fit, or whose file is gone or has changed.
    """
    folder = placed(path)
    if not folder.is_dir():
        folder = placed(settings.workdir or runs.default_workdir(settings, path))
        told = Printer(quiet=settings.quiet, silent=as_json)
        if fit_file.run(path, settings, told, progress) is None:
            return None
    again = reopened(folder, instead="Give the file instead.")
    table = again.table
    found = measured(table, again.run.model, again.settings, progress)
    write_whole(folder / FILE, json.dumps(found, indent=2, allow_nan=False) + "\n")
    if as_json:
        printer.result(json.dumps(found, indent=2))
    else:
        _show(found, table, printer)
        printer.line(f"As JSON: {folder / FILE}")
    return found


def measured(
    table: Table, model: Any, settings: FitFile, progress: Progress
) -> dict[str, Any]:
    """Entropies, total correlation and mutual information with standard errors, nats."""
    names = [column.name for column in table.schema.kept]
    paired = names[:_PAIRED]
    pairs = list(itertools.combinations(paired, 2))
    progress.phase("mixtures of columns and pairs", total=len(names) + len(pairs))
    densities = Densities(table, settings.train.seed, settings.num_draws)
    single, double = {}, {}
    for i, name in enumerate(names):
        single[name] = densities.of_column(name)["test"]
        progress.advance(i + 1, name)
    for i, pair in enumerate(pairs):
        double[pair] = densities.of_pair(*pair)["test"]
        progress.advance(len(names) + i + 1, " and ".join(pair))
    joint = model.log_prob(*table.part("test"))
    mutual = [
        {"columns": list(pair)} | _figure(log_p - single[pair[0]] - single[pair[1]])
        for pair, log_p in double.items()
    ]
    shared = joint - np.sum(list(single.values()), axis=0)
    if len(names) == 1:
        # A column shares nothing with itself: two models of it differ.
        shared = np.zeros_like(shared)
    return {
        "unit": "nats",
        "rows": table.sizes,
        "given": [] if table.given is None else list(table.given.names),
        "entropy": _figure(-joint),
        "total_correlation": _figure(shared),
        "entropy_of_columns": {name: _figure(-p) for name, p in single.items()},
        "mutual_information": sorted(mutual, key=lambda one: -(one["mean"] or 0.0)),
    }


def _figure(values: np.ndarray) -> dict[str, float | None]:
    mean, error = verdict.mean_and_error(values)
    return {"mean": mean, "standard_error": error}


def _show(found: dict[str, Any], table: Table, printer: Printer):
    given = f" given {', '.join(found['given'])}" if found["given"] else ""
    whole = RichTable(
        title=f"information in nats{given}, {found['rows']['test']:,} test rows"
    )
    whole.add_column("of")
    whole.add_column("± error", justify="right")
    whole.add_row("entropy of all columns", _text(found["entropy"]))
    whole.add_row("total correlation", _text(found["total_correlation"]))
    for name, figure in found["entropy_of_columns"].items():
        whole.add_row(f"entropy of {name}", _text(figure))
    printer.table(whole)
    mutual = found["mutual_information"]
    if mutual:
        pairs = RichTable(title="mutual information")
        for name in ("column", "and", "± error"):
            pairs.add_column(name, justify="right" if name == "± error" else "left")
        for one in mutual[:_SHOWN]:
            pairs.add_row(*one["columns"], _text(one))
        printer.table(pairs)
        if len(mutual) > _SHOWN:
            printer.line(f"{len(mutual) - _SHOWN} more pairs are in {FILE}.")
    left = len(table.schema.kept) - _PAIRED
    if left > 0:
        printer.warn(
            f"pairs are of the first {_PAIRED} columns; {left} others have none. Choose"
            " columns with --columns."
        )
    summary = f"total correlation {_text(found['total_correlation'])} nats"
    printer.result(f"entropy {_text(found['entropy'])} nats; {summary}")
    printer.line(verdict.units(table.schema.about()))


def _text(figure: dict[str, Any]) -> str:
    return verdict.shown(figure["mean"], figure["standard_error"])
