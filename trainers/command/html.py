"""The page of a fit: at the end of `fit`, by `report --html`, and `trainers.report`."""

import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainers.command.steps import runs, verdict
from trainers.command.steps.entrance import Table
from trainers.command.steps.reopening import reopened
from trainers.estimators.density import FlowDensity
from trainers.estimators.table_flow import TableFlow
from trainers.pages import page
from trainers.paths import Path, placed
from trainers.tables.checks import InputError
from trainers.tables.door import as_frame


def report(
    source: FlowDensity | str | os.PathLike,
    x_test: Any = None,
    path: str | os.PathLike | None = None,
    *,
    context: Any = None,
    rows: bool = True,
) -> Path:
    """Writes a self-contained HTML page about a fitted density.

    Args:
      source: a fitted `FlowDensity`, or the folder of a finished `rbig-nnx fit`.
      x_test: rows that took no part in the fit, of a `FlowDensity`; a folder knows its own.
      path: of the page; None for report.html in the folder.
      context: one row for each of `x_test`, of a conditional density.
      rows: whether single rows are shown: as points, and the strangest in a table.

    Returns:
      The page's path.

    Raises:
      InputError: rows or a path that are missing, or not wanted.
      ImportError: without the extra `plot`, naming it.

    Example:
      >>> import tempfile, pathlib, numpy as np, trainers
      >>> x = np.random.default_rng(0).normal(size=(400, 2))
      >>> small = {"num_blocks": 1, "num_components": 2, "rotation": "pca"}
      >>> density = trainers.FlowDensity(num_steps=5, tails=False, **small).fit(x[:300])
      >>> path = pathlib.Path(tempfile.mkdtemp(), "density.html")
      >>> print(trainers.report(density, x[300:], path).name)
      density.html
    """
    if isinstance(source, FlowDensity):
        if x_test is None or path is None:
            raise InputError(
                "`x_test` and `path` must be given with a `FlowDensity`: rows that it has"
                " not seen, and where the page goes."
            )
        return _of_density(source, x_test, context, placed(path), rows=rows)
    if x_test is not None or context is not None:
        raise InputError(
            "`x_test` and `context` must be left out of a run, which knows its test rows;"
            " or give a `FlowDensity`."
        )
    folder = placed(source)
    again = reopened(folder, instead="Fit it again.")
    path = placed(path or folder / runs.PAGE)
    write(path, again.report, again.run.model, again.table, rows=rows)
    return path


def write(
    path: Path,
    found: Mapping[str, Any],
    model: TableFlow,
    table: Table,
    *,
    rows: bool,
) -> None:
    """Writes the page of a fit whose table is at hand."""
    part = table.part("test")
    page.write(
        path, found, model, *part, rows=rows, numbers=table.numbers[table.parts["test"]]
    )


def _of_density(density, x_test, context, path, *, rows):
    model: TableFlow = density.table_
    frame = as_frame(x_test, name="x_test")
    given = None if context is None else as_frame(context, name="context")
    mean, error = verdict.mean_and_error(model.log_prob(frame, given))
    kinds = model.schema.about()
    history = {k: np.asarray(v).tolist() for k, v in density.history_.items()}
    valid = np.nan_to_num(history["valid"], nan=-np.inf)
    found = {
        "file": "FlowDensity",
        "verdict": [
            f"Mean log p of {len(frame):,} test rows: {verdict.shown(mean, error)} nats."
        ],
        "rows": {"test": len(frame)},
        "held_out_log_prob": {verdict.TRAINED: mean},
        "standard_error": {verdict.TRAINED: error},
        "over_mixture": {},
        "unit": verdict.units(kinds),
        "kinds": kinds,
        "kinds_of_given": model.given.about() if model.given else [],
        "notes": list(model.schema.notes),
        "chosen": {},
        "command": "",
        "history": history,
        "best_step": history["step"][int(np.argmax(valid))],
        "versions": {"rbig-nnx": importlib.metadata.version("rbig-nnx")},
    }
    page.write(path, found, model, frame, given, rows=rows)
    return path
