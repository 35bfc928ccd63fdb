"""The table of a finished fit, read and split again as it was."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from trainers.checkpoints.identity import file_digest
from trainers.command.output import Printer
from trainers.command.settings import FitFile
from trainers.command.steps import runs
from trainers.command.steps.entrance import Table, open_table
from trainers.paths import Path, placed
from trainers.tables.checks import InputError, printable
from trainers.tables.files.sources import find


class Reopened(NamedTuple):
    """A finished fit with its table."""

    report: Mapping[str, Any]
    run: runs.Run
    settings: FitFile
    table: Table


def reopened(folder: Path, *, instead: str) -> Reopened:
    """What a run was fitted to.

    Args:
      folder: of a finished fit.
      instead: the way out, where its file is not there.

    Raises:
      InputError: a folder without a finished fit, or whose file is gone or has changed.
    """
    report = runs.read_report(folder)
    path = placed(report.get("path", ""))
    if not path.is_file() or file_digest(path) != report.get("digest"):
        raise InputError(
            f"RUN must have its file as it was, to judge on its test rows; {path} is gone"
            f" or has changed. {instead}"
        )
    try:
        settings = FitFile.from_options(report["settings"])
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"RUN must have its report as `rbig-nnx fit` wrote it; {folder / runs.REPORT} has"
            f" settings that are none: {printable(error)}. {instead}"
        ) from None
    table = open_table(find(path), settings, Printer(quiet=True, silent=True))
    return Reopened(report, runs.Run.open(folder), settings, table)
