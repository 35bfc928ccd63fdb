"""The command `rbig-nnx`: fit, score, sample, report, info, information and demo.

Mistakes in the input end with one line on standard error and exit code 2. What a job needs
is imported once its command line has been read.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from rich.console import Console
from rich.text import Text
from tyro.conf import Positional, arg

from trainers.command import settings
from trainers.command.arguments import parse_with_file
from trainers.command.output import Printer
from trainers.run import interrupt
from trainers.run.progress import visible

PROGRAM = "rbig-nnx"

Run = Annotated[pathlib.Path, Positional, arg(metavar="RUN", help_behavior_hint="")]
File = Annotated[pathlib.Path, Positional, arg(metavar="FILE", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(settings.FitFile, settings.Page):
    """Fit a density to the rows of a table, and judge it on rows it has not seen.

    FILE is .csv, .tsv, .txt, .npy, .npz or .parquet, also with .gz or .zst behind, or - for
    standard input. What is guessed about it is printed with the option that overrides it.

    Example: rbig-nnx fit rows.csv --kinds price=positive --drop id
    """

    file: File  # the table
    html: bool = True  # write a page with pictures, report.html, into the run's folder
    # YAML with these settings; options override it
    config: Annotated[
        pathlib.Path | None, arg(metavar="FILE", help_behavior_hint="")
    ] = None

    def __call__(self) -> int:
        """Runs the command."""
        printer = Printer(quiet=self.quiet)
        with _progress(enabled=not self.quiet) as progress:
            from trainers.command import fit_file

            report = fit_file.run(
                self.file, self, printer, progress, html=self.html, rows=self.rows
            )
        return interrupt.exit_code() if report is None else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(settings.Reading, settings.Job):
    """log p in nats of each row of a file under a fitted density.

    Columns are matched by name; others are ignored. Rows with holes get an empty score.

    Example: rbig-nnx score runs/rows-1a2b3c4d new.csv --out scores.csv --outliers 10
    """

    run: Run  # folder of a finished fit
    file: File  # the table, of any size
    out: Annotated[
        pathlib.Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")
    ] = None  # for log p of each row, as .csv, .parquet or .npy; - is standard output
    # show so many rows of lowest log p, each with the share of training rows below it; and
    # mark them in --out
    outliers: int = 0
    columns: settings.Names = ()  # that stand for those of the fit (default: by name)
    drop: settings.Names = ()  # leave these out
    # cells that count as missing (default: as in the fit)
    na: Annotated[tuple[str, ...], arg(metavar="VALUE ...", help_behavior_hint="")] = ()
    # noise to average over for discrete columns
    num_draws: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: as in the fit)")
    ] = None

    def __call__(self) -> int:
        """Runs the command."""
        printer = Printer(quiet=self.quiet, aside=str(self.out) == "-")
        with _progress(enabled=not self.quiet) as progress:
            from trainers.command import score_file

            score_file.run(self, printer, progress)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(settings.Job):
    """Draw rows from a fitted density, as the rows of the fit came.

    Integers, words and dates are written back as such, within the range that was seen.

    Example: rbig-nnx sample runs/rows-1a2b3c4d drawn.csv -n 5000 --seed 1
    """

    run: Run  # folder of a finished fit
    file: File  # .csv, .tsv, .npy, .npz or .parquet; - is standard output
    num_rows: Annotated[
        int | None,
        arg(aliases=["-n"], metavar="INT", help_behavior_hint="(default: 1000)"),
    ] = None  # to draw
    seed: int = 0  # the same gives the same rows
    # of a conditional density: what is given, as a=1,b=x; or a file with a row for each
    given_values: Annotated[
        str | None, arg(metavar="VALUES", help_behavior_hint="")
    ] = None

    def __call__(self) -> int:
        """Runs the command."""
        printer = Printer(quiet=self.quiet, aside=str(self.file) == "-")
        with _progress(enabled=not self.quiet) as progress:
            from trainers.command import sample_file

            sample_file.run(self, printer, progress)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(settings.Page):
    """Print the verdict of a finished fit: scores of test rows in nats, kinds, notes.

    Example: rbig-nnx report runs/rows-1a2b3c4d --html
    """

    run: Run  # folder of a finished fit
    json: settings.Switch = False  # for programs
    # write the page with pictures, report.html in the folder, anew; its file must be there
    html: settings.Switch = False

    def __call__(self) -> int:
        """Runs the command."""
        if self.json and self.html:
            raise ValueError("`json` and `html` must not both be given. Take one.")
        if not self.rows and not self.html:
            raise ValueError("--no-rows is of the page: give --html too.")
        if self.html:
            from trainers.command import html

            Printer().result(f"Page: {html.report(self.run, rows=self.rows)}")
            return 0
        from trainers.command import reports

        reports.show(self.run, Printer(), as_json=self.json)
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """Print what a run is: columns and kinds, architecture, sizes, settings, versions.

    Example: rbig-nnx info runs/rows-1a2b3c4d
    """

    run: Run  # folder of a finished fit

    def __call__(self) -> int:
        """Runs the command."""
        from trainers.command import reports

        reports.info(self.run, Printer())
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Information(settings.FitFile):
    """Entropy, total correlation and mutual information of columns, in nats.

    FILE is a table, which is fitted first with the options of fit, or the folder of a
    finished fit. The flow gives the density of the whole; Gaussian mixtures, fitted to the
    same training rows and chosen on the valid rows, those of columns and pairs. Figures are
    means over test rows with standard errors; discrete columns count by their masses.

    Example: rbig-nnx information rows.csv --columns age income grade
    """

    file: File  # the table, or a run
    json: settings.Switch = False  # for programs

    def __call__(self) -> int:
        """Runs the command."""
        printer = Printer(quiet=self.quiet or self.json)
        with _progress(enabled=not printer.quiet) as progress:
            from trainers.command import information_file

            found = information_file.run(
                self.file, self, printer, progress, as_json=self.json
            )
        return interrupt.exit_code() if found is None else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(settings.Demo):
    """Two moons: warm start, random init and the true density side by side.

    Example: rbig-nnx demo --num-seeds 1
    """

    quick: settings.Switch = False  # one seed, 100 steps: to see that it works

    def __call__(self) -> int:
        """Runs the command."""
        from trainers.command import demo

        short = {"num_seeds": 1, "num_steps": 100} if self.quick else {}
        # In names of files brackets are brackets.
        demo.run(dataclasses.replace(self, **short), Console(markup=False))
        return 0


COMMANDS = Fit | Score | Sample | Report | Info | Information | Demo


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      args: the command line without the program's name; None for `sys.argv`.

    Returns:
      0; 2 after a mistake in the input; 130 or 143 where Ctrl-C or SIGTERM ended it.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args in (["--version"], ["-V"]):
        Printer().result(f"{PROGRAM} {importlib.metadata.version(PROGRAM)}")
        return 0
    command = None
    try:
        with _warnings_in_one_line(), interrupt.interruptible():
            command = parse_with_file(COMMANDS, args, prog=PROGRAM, description=_ABOUT)
            return command()
    except BrokenPipeError:  # `rbig-nnx report run | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Exception) as error:
        # What a callback of XLA's raises comes back as an error of another kind.
        if isinstance(error, KeyboardInterrupt) or interrupt.received:
            _complain(f"interrupted; {_kept(command)}")
            return interrupt.exit_code()
        if not isinstance(error, ValueError | OSError | ImportError):
            raise
        words = str(error)
        if isinstance(error, OSError) and error.strerror:
            words = f"{error.strerror}: {error.filename or PROGRAM}"
        words = settings.in_typed_words(words, command and type(command))
        _complain(settings.with_setting(words))
        return 2


def _kept(command: Any) -> str:
    if isinstance(command, Fit | Information):
        return "what it had finished is kept, and the same line goes on after it."
    return "no file was written over."


_ABOUT = """Densities of tables: fit one, judge it, score rows, draw rows.

Every command has its own help: rbig-nnx fit --help. Also: rbig-nnx --version.
"""


@contextmanager
def _progress(*, enabled: bool) -> Iterator[Any]:
    """The progress of a job, from before what it needs is imported."""
    from trainers.run.progress import show_progress

    with show_progress(enabled=enabled) as progress:
        if sys.stderr.isatty():  # elsewhere what is refused is one line
            progress.phase("starting")
        yield progress


def _complain(message: str) -> None:
    line = Text.assemble((f"{PROGRAM}:", "bold red"), f" {visible(message)}")
    Console(stderr=True, soft_wrap=True).print(line)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings as they concern people: not where in the code they arose."""

    def show(message: Any, *_: Any, **__: Any) -> None:
        line = Text(f"warning: {visible(' '.join(str(message).split()))}")
        Console(stderr=True, soft_wrap=True).print(line)

    before = warnings.showwarning
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
