"""The command `rbig-nnx`: demo, fit, score, sample and report.

Mistakes in the input end with one line on standard error and exit code 2. What a job needs
is imported once its command line has been read.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from trainers.command import settings
from trainers.command.config_file import read_settings

Path = Annotated[pathlib.Path, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(settings.Demo):
    """Two moons: warm start, random init and the true density side by side."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        from trainers.command import demo

        demo.run(self, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(settings.FitFile):
    """Fit a density to a .npy, .npz, .csv or .parquet file."""

    file: Path
    config: pathlib.Path | None = None  # YAML with these settings; options override it

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        from trainers.command import fit_file

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
        from trainers.command import finished

        finished.score(self, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw rows from a fitted flow into a file."""

    run: Path  # what `fit --workdir` wrote
    file: Path  # .npy, .npz, .csv or .parquet
    num_rows: int = 1_000
    seed: int = 0

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        from trainers.command import finished

        finished.sample(self, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Print the held-out table of a finished fit."""

    run: Path  # what `fit --workdir` wrote

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        from trainers.command import finished

        finished.report(self, console)


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
