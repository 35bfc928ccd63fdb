"""The command `rbig-nnx`: demo, fit, score, sample and report.

Mistakes in the input end with one line on standard error and exit code 2.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.text import Text

from trainers import demo, fit_file
from trainers.checkpoint import load_flow
from trainers.config_file import read_settings
from trainers.tables import check_rows, read_table, write_table

Path = Annotated[pathlib.Path, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(demo.Demo):
    """Two moons: warm start, random init and the true density side by side."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        demo.run(self, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(fit_file.FitFile):
    """Fit a density to a .npy, .npz, .csv or .parquet file."""

    file: Path
    config: pathlib.Path | None = None  # YAML with these settings; options override it

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        fit_file.run(self.file, self, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Log density in nats of each row of a file, under a fitted flow."""

    run: Path  # what `fit --workdir` wrote
    file: Path
    columns: tuple[str, ...] = ()  # by name; empty for those of the fit
    out: pathlib.Path | None = None  # file for the densities; none prints their mean

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        flow = load_flow(self.run / "flow")
        columns = list(self.columns) or _columns_of(self.run, self.file)
        x = check_rows(
            read_table(self.file, columns).values,
            name=str(self.file),
            num_features=flow.num_features,
        )
        log_prob = np.asarray(flow.log_prob(x))
        console.print(f"mean log p {log_prob.mean():.4f} nats over {len(x):,} rows")
        if self.out is not None:
            write_table(self.out, log_prob[:, None], ("log_prob",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw rows from a fitted flow into a file."""

    run: Path  # what `fit --workdir` wrote
    file: Path  # .npy, .npz, .csv or .parquet
    num_rows: int = 1_000
    seed: int = 0

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        flow = load_flow(self.run / "flow")
        x = np.asarray(flow.sample(jax.random.key(self.seed), self.num_rows))
        names = _report(self.run).get("columns") or [f"x{i}" for i in range(x.shape[1])]
        write_table(self.file, x, tuple(names))
        console.print(f"{len(x):,} rows: {self.file}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Print the held-out table of a finished fit."""

    run: Path  # what `fit --workdir` wrote

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        report = _report(self.run)
        if "held_out_log_prob" not in report:
            raise ValueError(
                f"`run` must be a folder that `rbig-nnx fit` wrote; {self.run} holds no"
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


def _from_file(args: Sequence[str]) -> Any:
    """The defaults of `fit` where `--config` names a file with others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=pathlib.Path)
    path = parser.parse_known_args(list(args))[0].config
    if path is None or args[0] != "fit":
        return tyro.MISSING
    return read_settings(path, Fit(file=tyro.MISSING))


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      args: the command line without the program's name; None for `sys.argv`.

    Returns:
      0, or 2 after a mistake in the input.
    """
    try:
        args = sys.argv[1:] if args is None else args
        command = tyro.cli(
            Demo | Fit | Score | Sample | Report,
            args=args,
            default=_from_file(args),
            prog="rbig-nnx",
        )
        command(Console(markup=False))  # in names of files brackets are brackets
    except (ValueError, OSError, ImportError) as error:
        message = Text.assemble(("rbig-nnx:", "bold red"), f" {error}")
        Console(stderr=True, soft_wrap=True).print(message)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
