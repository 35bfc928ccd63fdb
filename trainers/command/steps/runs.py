"""The folder of a run: its name, what is in it, and how it is opened again."""

import dataclasses
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from trainers.checkpoints.format import CheckpointError, damaged
from trainers.checkpoints.identity import digest
from trainers.checkpoints.model import load_with_about
from trainers.command.settings import FitFile
from trainers.command.steps import declared
from trainers.estimators.table_flow import FLOW, TableFlow
from trainers.paths import Path, in_bucket, located, placed, refusal, write_whole
from trainers.tables.checks import InputError, printable, shown
from trainers.tables.files.outputs import is_same
from trainers.tables.files.sources import is_there
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema

REPORT = "report.json"
PAGE = "report.html"
_ANEW = f"The line of the fit writes it anew where {FLOW} and {REPORT} are removed."
_KEY = "fit"  # of what is kept with the flow
# Probabilities at which log p of the training rows is remembered.
_AT = np.unique(np.concatenate([np.linspace(0, 1, 101), np.geomspace(1e-4, 0.5, 60)]))


def default_workdir(settings: FitFile, file: pathlib.Path) -> pathlib.Path:
    """runs/<stem of the file>-<8 digits of its place and the settings>."""
    if str(file) == "-":
        stem, place = "stdin", "-"
    else:
        stem, place = file.name.partition(".")[0], str(located(file))
    stem = re.sub(r"[^\w.-]+", "_", stem) or "table"
    code = digest(settings.result_settings() | {"file": place})[:8]
    return pathlib.Path("runs") / f"{stem}-{code}"


def check_workdir(path: Path):
    """Raises unless the folder is there, or can be made, and can be written to."""
    if is_there(path, "--workdir") and not path.is_dir():
        raise InputError(f"--workdir must be a folder; {path} is a file.")
    if in_bucket(path):
        if reason := refusal(path):
            raise InputError(
                f"--workdir must be in a bucket that you may write to; got {path}:"
                f" {reason}."
            )
        return
    if path.is_symlink() and not path.exists():
        raise InputError(f"--workdir must be a folder; {path} is a link to none.")
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".rbig-nnx-"):
            pass  # permissions alone do not tell
    except OSError as error:
        raise InputError(
            f"--workdir must be a folder that you may write to; got {path}:"
            f" {error.strerror}."
        ) from None


def write_report(path: Path, report: Mapping[str, Any]):
    """Writes report.json, whole or not at all."""
    text = json.dumps(report, indent=2, allow_nan=False, default=str)
    write_whole(path / REPORT, f"{text}\n")


def read_report(run: Path) -> dict[str, Any]:
    """The report of a finished fit.

    Raises:
      InputError: a folder without one.
    """
    run = placed(run)
    there, report = is_there(run / REPORT, "RUN"), {}
    try:
        if there:
            report = json.loads((run / REPORT).read_text())
            declared.check_report(report)
    except OSError:
        pass  # told below
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"RUN must have its report as `rbig-nnx fit` wrote it; {run / REPORT} is damaged:"
            f" {printable(str(error).replace('`', ''))}. Remove it, and the line of the fit"
            " writes it anew."
        ) from None
    if not report:
        started = (run / "start").is_dir() or (run / "checkpoints").is_dir()
        why = "its fit is not finished" if started else "it holds no report.json"
        raise InputError(
            f"RUN must be the folder of a finished `rbig-nnx fit`, as --workdir names it;"
            f" {run}: {why}."
        )
    return report


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished fit, opened to be used.

    Attributes:
      path: the folder.
      model: the density.
      columns: of the file that was fitted, in its order, the given ones too.
      is_named: whether the file named them.
      width: how many columns that file had.
      na: values that counted as missing.
      quantiles: log p of training rows at probabilities, [2, k].
    """

    path: Path
    model: TableFlow
    columns: tuple[str, ...]
    is_named: bool
    width: int
    na: tuple[str, ...]
    quantiles: np.ndarray

    @classmethod
    def open(cls, path: Path) -> Self:
        """The run in a folder.

        Raises:
          InputError: a folder without a finished fit.
          CheckpointError: a damaged model.
        """
        path = placed(path)
        if not is_there(path / FLOW, "RUN"):
            read_report(path)  # says what is wrong
            raise InputError(f"RUN must have its flow; {path / FLOW} is gone. {_ANEW}")
        try:
            return cls._of(path)
        except CheckpointError as error:
            if (path / REPORT).exists():
                raise CheckpointError(f"{error} {_ANEW}") from None
            raise

    @classmethod
    def _of(cls, path: Path) -> Self:
        flow, about = load_with_about(path / FLOW)
        if _KEY not in about:
            raise InputError(
                f"RUN must be the folder of a finished `rbig-nnx fit`; {path} is of an"
                " older version or another program. Fit the file again."
            )
        try:
            kept = declared.kept_of(about[_KEY])
        except ValueError as error:
            raise damaged(path / FLOW, f"what the fit kept with it: {error}") from None
        return cls(
            path=path,
            model=TableFlow.of_saved(flow, about, path / FLOW),
            columns=tuple(kept.columns),
            is_named=kept.is_named,
            width=kept.width,
            na=tuple(kept.na),
            quantiles=np.array([kept.probabilities, kept.train_log_prob]),
        )

    @property
    def schemas(self) -> list[Schema]:
        """Of the modelled columns, and of the given ones if there are any."""
        return [self.model.schema, *([self.model.given] if self.model.given else [])]

    @property
    def needed(self) -> list[str]:
        """The columns that a table must have to be scored, in the order of the file."""
        kept = {column.name for schema in self.schemas for column in schema.kept}
        return [name for name in self.columns if name in kept]

    @property
    def told(self) -> list[str]:
        """Also the constants and copies of the fit, in which a row may differ now."""
        columns = [c for schema in self.schemas for c in schema.columns]
        lost = {c.name for c in columns if not (c.kind.width or c.kind.is_known)}
        return [name for name in self.columns if name not in lost]

    def keep_file(self, out: str | os.PathLike, option: str):
        """Raises InputError if `out` is the very file that was fitted."""
        report = read_report(self.path)
        fitted = report.get("path") or report["file"]
        if is_same(out, fitted):
            raise InputError(
                f"{option} must be another file than the one that was fitted; got"
                f" {placed(out)}."
            )

    def date_formats(self, names: Sequence[str]) -> dict[str, str]:
        """How the columns of a file that are dates are written, as in the file of the fit.

        By name or, where the names are others, by place, as `matched` and --columns do.
        """
        given = self.model.given
        columns = (*self.model.schema.columns, *(given.columns if given else ()))
        formats = {c.name: c.known_format for c in columns if c.known_format}
        if set(self.needed) <= set(names):
            return formats
        alike = (self.needed, self.columns)
        own = next((order for order in alike if len(order) == len(names)), ())
        places = dict(zip(own, names, strict=False))
        return {places[n]: form for n, form in formats.items() if n in places}

    def quantile(self, log_prob: np.ndarray) -> np.ndarray:
        """The share of the training rows with a lower density, [n]."""
        probabilities, values = self.quantiles
        return np.interp(log_prob, values, probabilities)

    def matched(self, frame: Frame, *, file: str) -> tuple[Frame, Frame | None]:
        """The modelled and the given columns of a table, by name or by place.

        Raises:
          InputError: for columns that are not there.
        """
        names = frame.names
        if not frame.is_named and names != self.columns:
            # Without names: the columns that were fitted, or all that the file had then.
            chosen = len(names) == self.width and set(self.columns) <= set(names)
            if not (chosen and not self.is_named):
                frame = self._by_place(frame, file)
        given = self.model.given
        absent = [name for name in self.needed if name not in frame.names]
        if absent:
            raise InputError(
                f"{file} must have the columns of the fit; {shown(absent)} not among"
                f" {shown(frame.names, 20)}. Rename or add them."
            )
        model = [n for n in self.model.schema.names if n in frame.names]
        context = [n for n in given.names if n in frame.names] if given else []
        return frame.select(model), frame.select(context) if given else None

    def _by_place(self, frame: Frame, file: str) -> Frame:
        if len(frame.columns) != len(self.columns):
            raise InputError(
                f"{file} must have the {len(self.columns)} columns of the fit, for it does"
                f" not name them; it has {len(frame.columns)}. Choose them with --columns."
            )
        pairs = zip(frame.columns, self.columns, strict=True)
        columns = (dataclasses.replace(column, name=name) for column, name in pairs)
        return dataclasses.replace(frame, columns=tuple(columns))


def about_fit(
    frame: Frame, *, width: int, na: tuple[str, ...], train_log_prob: np.ndarray
) -> dict[str, Any]:
    """What is kept with the flow, so that the run folder is all that is needed later."""
    finite = train_log_prob[np.isfinite(train_log_prob)]
    return {
        _KEY: {
            "columns": list(frame.names),
            "is_named": frame.is_named,
            "width": width,
            "na": list(na),
            "probabilities": _AT.tolist(),
            "train_log_prob": np.quantile(finite, _AT).tolist(),
        }
    }
