"""`score`: log p of each row of a file, by parts, so that any file fits in memory."""

import collections
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from trainers.command.output import Printer
from trainers.command.steps import verdict
from trainers.command.steps.holes import no_cell, with_missing
from trainers.command.steps.runs import Run
from trainers.estimators.arguments import astray, told_astray
from trainers.placement.compilation import use_cache
from trainers.run.progress import Progress
from trainers.tables.checks import InputError, printable, shown
from trainers.tables.files.opening import open_table
from trainers.tables.files.outputs import check_output
from trainers.tables.files.sources import find
from trainers.tables.frame import Column, Frame
from trainers.tables.reading import frames_of
from trainers.tables.writing import PartWriter

_ROWS = 65_536  # of a part
_MOST_TOLD = 100  # characters of a row


def run(settings: Any, printer: Printer, progress: Progress) -> None:
    """Scores the rows of a file; the settings are those of the command.

    Raises:
      InputError: for an output that cannot be written, or a file that cannot be scored.
    """
    if settings.outliers < 0:
        raise InputError(f"`outliers` must be 0 or more; got {settings.outliers}.")
    if settings.num_draws is not None and settings.num_draws < 1:
        raise InputError(f"`num_draws` must be 1 or more; got {settings.num_draws}.")
    if settings.out is not None:
        try:
            check_output(settings.out, inputs=(settings.file,))
        except InputError as error:
            raise InputError(str(error).replace("`path`", "--out")) from None
    source = find(settings.file)
    file, chosen, notes = open_table(
        source, settings.columns, settings.drop, **settings.reading()
    )
    if settings.cache:
        use_cache()
    opened = Run.open(settings.run)
    if settings.out is not None:
        opened.keep_file(settings.out, "--out")
    if settings.num_draws:
        model = dataclasses.replace(opened.model, num_draws=settings.num_draws)
        opened = dataclasses.replace(opened, model=model)
    na = settings.na or opened.na
    names, extra = _chosen(file, opened, settings)
    frames = frames_of(
        source,
        rows=_ROWS,
        columns=names,
        drop=settings.drop,
        date_formats=opened.date_formats(chosen),
        **settings.reading(),
    )
    tally = _Tally(settings.outliers)
    unmatched = set(settings.na)
    rounded, differing = collections.Counter[str](), collections.Counter[str]()
    with contextlib.ExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryFile())
        writer = None
        total = file.about_rows()
        for frame in frames:
            frame, _, absent = with_missing(frame, na)
            unmatched &= absent
            frame = _renamed(frame, opened, settings)
            rows, context = opened.matched(frame, file=source.name)
            if not tally.num_rows:
                for note in dict.fromkeys((*frame.notes, *notes, *extra)):
                    printer.result(note)
                progress.phase("scoring", total=max(total, len(frame)))
            rounded.update(_off_whole(opened, rows))
            for schema, part in zip(opened.schemas, (rows, context), strict=False):
                differing.update(astray(schema, part))
            log_prob = _log_prob(opened, rows, context)
            tally.add(log_prob, frame)
            if settings.out is not None and settings.outliers:
                spool.write(log_prob.tobytes())  # flags are known at the end
            elif settings.out is not None:
                writer = writer or stack.enter_context(PartWriter(settings.out))
                writer.write(_scores(log_prob))
            progress.advance(tally.num_rows)
        if settings.out is not None and settings.outliers:
            writer = stack.enter_context(PartWriter(settings.out))
            for first, log_prob in _parts(spool):
                flags = np.isin(first + np.arange(len(log_prob)), tally.lowest)
                writer.write(_scores(log_prob, opened.quantile(log_prob), flags))
    for value in sorted(unmatched):
        printer.result(no_cell(value))
    for name, count in rounded.items():
        printer.result(
            f"{name}: {count:,} between the whole numbers that the fit had, rounded to them"
        )
    for schema in opened.schemas:
        for note in told_astray(schema, differing):
            printer.warn(note)
    _tell(tally, opened, printer)


class _Tally:
    """What is remembered of all rows: counts, moments, and those of lowest density."""

    def __init__(self, num_lowest: int):
        self.num_rows = self.num_empty = self.num_zero = 0
        self.lowest = np.empty(0, np.int64)  # row numbers, the lowest first
        self.lowest_log_prob = np.empty(0)
        self.lowest_values: list[str] = []  # what stands in these rows
        self._num_lowest = num_lowest
        self._count, self._mean, self._square = 0, 0.0, 0.0

    def add(self, log_prob: np.ndarray, frame: Frame) -> None:
        """The next rows of the file; NaN where a row has a hole."""
        first = self.num_rows
        self.num_rows += len(log_prob)
        self.num_empty += int(np.isnan(log_prob).sum())
        self.num_zero += int(np.isneginf(log_prob).sum())
        finite = log_prob[np.isfinite(log_prob)]
        if len(finite):  # Chan, Golub and LeVeque: two sets' moments as one's
            total = self._count + len(finite)
            apart = finite.mean() - self._mean
            between = apart**2 * self._count * len(finite) / total
            self._square += ((finite - finite.mean()) ** 2).sum() + between
            self._mean += apart * len(finite) / total
            self._count = total
        scored = np.flatnonzero(~np.isnan(log_prob))
        mine = scored[np.argsort(log_prob[scored], kind="stable")[: self._num_lowest]]
        values = np.concatenate([self.lowest_log_prob, log_prob[mine]])
        numbers = np.concatenate([self.lowest, first + mine])
        texts = self.lowest_values + [_told(frame, row) for row in mine]
        order = np.argsort(values, kind="stable")[: self._num_lowest]
        self.lowest_log_prob, self.lowest = values[order], numbers[order]
        self.lowest_values = [texts[i] for i in order]

    @property
    def num_scored(self) -> int:
        """Rows with a finite log p."""
        return self._count

    def moments(self) -> tuple[float, float | None]:
        """Mean and standard error of the finite ones."""
        if self._count < 2:
            return self._mean, None
        return self._mean, float(
            np.sqrt(self._square / (self._count - 1) / self._count)
        )


def _chosen(file, opened: Run, settings: Any) -> tuple[Sequence[str], list[str]]:
    """The columns to read, and a note on those that are there besides."""
    wanted = opened.needed
    if settings.columns or not opened.is_named or not set(wanted) <= set(file.names):
        return settings.columns, []
    wanted = [n for n in opened.told if n in file.names]
    others = [n for n in file.names if n not in (*opened.columns, *file.index)]
    if not others:
        return wanted, []
    return wanted, [
        f"columns that the fit did not have: {printable(shown(others, 20))}"
    ]


def _renamed(frame: Frame, opened: Run, settings: Any) -> Frame:
    """Columns chosen with --columns stand for those of the fit, by name or in order."""
    names = opened.needed
    if not settings.columns or set(names) <= set(frame.names):
        return frame
    if len(frame.columns) != len(names):
        raise InputError(
            f"--columns must name the {len(names)} columns of the fit, {shown(names, 20)},"
            f" or as many that stand for them; got {len(frame.columns)}."
        )
    pairs = zip(frame.columns, names, strict=True)
    columns = (dataclasses.replace(column, name=name) for column, name in pairs)
    return dataclasses.replace(frame, columns=tuple(columns), is_named=True)


def _off_whole(opened: Run, rows: Frame) -> dict[str, int]:
    """How many values are not whole, in columns that the fit had whole."""
    counts = {}
    for c in opened.model.schema.kept:
        values = rows[c.name].values[~rows[c.name].gone]
        if np.dtype(c.dtype).kind in "iu" and values.dtype.kind == "f":
            counts[c.name] = int((values != np.rint(values)).sum())
    return {name: count for name, count in counts.items() if count}


def _log_prob(opened: Run, rows: Frame, context: Frame | None) -> np.ndarray:
    """log p of every row, NaN where it has a hole or a context that the fit has not."""
    gone = np.zeros(len(rows), bool)
    for schema, part in zip(opened.schemas, (rows, context), strict=False):
        for column in schema.kept:
            gone |= part[column.name].gone
    if context is not None and opened.model.given is not None:
        at = np.flatnonzero(~gone)
        gone[at] = ~opened.model.given.knows(context.take(at))
    result = np.full(len(rows), np.nan)
    whole = np.flatnonzero(~gone)
    if len(whole):
        given = None if context is None else context.take(whole)
        result[whole] = opened.model.log_prob(rows.take(whole), given)
    return result


def _scores(
    log_prob: np.ndarray,
    quantile: np.ndarray | None = None,
    outlier: np.ndarray | None = None,
) -> Frame:
    gone = np.isnan(log_prob)
    columns = [Column("log_prob", log_prob, gone, "Float64")]
    if quantile is not None and outlier is not None:
        columns.append(Column("quantile", quantile, gone, "Float64"))
        columns.append(Column("outlier", outlier, np.zeros_like(gone), "Boolean"))
    return Frame(tuple(columns))


def _parts(spool: Any) -> Iterator[tuple[int, np.ndarray]]:
    """First row and log p of each part."""
    spool.seek(0)
    first = 0
    while words := spool.read(8 * _ROWS):
        log_prob = np.frombuffer(words)
        yield first, log_prob
        first += len(log_prob)


def _told(frame: Frame, row: int) -> str:
    """A row, on one line."""
    told = []
    for column in frame.columns:
        value = column.values[row]
        text = f"{value:.6g}" if isinstance(value, np.floating) else str(value)
        told.append(f"{column.name} {text}")
    return ", ".join(told)


def _tell(tally: _Tally, opened: Run, printer: Printer):
    n, mean, error = tally.num_scored, *tally.moments()
    if n:
        figure = verdict.shown(mean, error)
        printer.result(f"mean log p {figure} nats over {n:,} rows")
    else:
        printer.result("no row has a finite log p")
    if tally.num_empty:
        printer.warn(
            f"{tally.num_empty:,} of {tally.num_rows:,} rows have missing values, or"
            " given values that the fit has not seen; their score is empty."
        )
    if tally.num_zero:
        printer.warn(
            f"{tally.num_zero:,} of {tally.num_rows:,} rows hold values that have no mass"
            " under the fit: log p -inf, left out of the mean."
        )
    if len(tally.lowest):
        table = Table(title=f"the {len(tally.lowest)} rows of lowest log p")
        for name in ("rank", "row\n(from 0)", "log p", "below, of\ntraining"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("what stands there")
        quantiles = opened.quantile(tally.lowest_log_prob)
        lines = zip(
            tally.lowest,
            tally.lowest_log_prob,
            quantiles,
            tally.lowest_values,
            strict=True,
        )
        for rank, (row, log_prob, quantile, text) in enumerate(lines, start=1):
            numbers = (str(rank), f"{row:,}", f"{log_prob:.4f}", f"{quantile:.4f}")
            table.add_row(*numbers, Text(printable(text, _MOST_TOLD)))
        printer.table(table)
    printer.line(verdict.units(opened.model.schema.about()))
