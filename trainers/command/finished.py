"""What is done with a finished fit: score rows, draw rows, print the report."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from rich.console import Console

from trainers.checkpoints.model import load_flow
from trainers.command import fit_file
from trainers.tables import check_rows, read_table, write_table


def score(settings: Any, console: Console) -> None:
    """Log density in nats of each row of a file, under a fitted flow."""
    flow = load_flow(settings.run / "flow")
    columns = list(settings.columns) or _columns_of(settings.run, settings.file)
    x = check_rows(
        read_table(settings.file, columns).values,
        name=str(settings.file),
        num_features=flow.num_features,
    )
    log_prob = np.asarray(flow.log_prob(x))
    console.print(f"mean log p {log_prob.mean():.4f} nats over {len(x):,} rows")
    if settings.out is not None:
        write_table(settings.out, log_prob[:, None], ("log_prob",))


def sample(settings: Any, console: Console) -> None:
    """Draws rows from a fitted flow into a file."""
    flow = load_flow(settings.run / "flow")
    x = np.asarray(flow.sample(jax.random.key(settings.seed), settings.num_rows))
    names = _report(settings.run).get("columns") or [f"x{i}" for i in range(x.shape[1])]
    write_table(settings.file, x, tuple(names))
    console.print(f"{len(x):,} rows: {settings.file}")


def report(settings: Any, console: Console) -> None:
    """Prints the held-out table of a finished fit."""
    report = _report(settings.run)
    if "held_out_log_prob" not in report:
        raise ValueError(
            f"`run` must be a folder that `rbig-nnx fit` wrote; {settings.run} holds no"
            " report.json."
        )
    console.print(fit_file.table(report["held_out_log_prob"]))
    console.print(f"best step {report['best_step']}, rows {report['rows']}")


def _report(run: pathlib.Path) -> dict:
    path = run / "report.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _columns_of(run: pathlib.Path, file: pathlib.Path) -> list[str] | None:
    """The fit's columns where the file has names, else all of them."""
    named = file.suffix.lower() in (".csv", ".parquet")
    return (_report(run).get("columns") or None) if named else None
