"""`sample`: rows drawn from a fitted density into a file, by parts."""

import contextlib
import dataclasses
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from trainers.command.output import Printer
from trainers.command.steps.holes import with_missing
from trainers.command.steps.runs import Run
from trainers.paths import placed
from trainers.placement.compilation import use_cache
from trainers.run.progress import Progress
from trainers.tables import dates
from trainers.tables.arrow import import_pyarrow
from trainers.tables.checks import InputError, near, printable, refuse_repeated, shown
from trainers.tables.columns import ColumnSchema, is_zoned
from trainers.tables.files.outputs import check_output, folder_of
from trainers.tables.files.sources import STANDARD, find
from trainers.tables.files.texts import cells
from trainers.tables.frame import Column, Frame
from trainers.tables.reading import read_frame
from trainers.tables.schema import Schema
from trainers.tables.writing import PartWriter

_ROWS = 65_536  # of a part
_DEFAULT = 1_000  # rows
_LEAST_BYTES = 0.25  # of a row, packed as well as may be
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def run(settings: Any, printer: Printer, progress: Progress) -> None:
    """Draws rows; the settings are those of the command.

    Raises:
      InputError: for an output that cannot be written, or contexts that do not fit.
    """
    asked = settings.num_rows
    if asked is not None and asked < 1:
        raise InputError(f"`num_rows` must be 1 or more; got {asked}.")
    if not 0 <= settings.seed < 2**32:
        raise InputError(f"`seed` must be 0 to {2**32 - 1}; got {settings.seed}.")
    given_file = settings.given_values and "=" not in settings.given_values
    inputs = (pathlib.Path(settings.given_values),) if given_file else ()
    check_output(settings.file, inputs=inputs)
    _check_space(settings.file, asked or 0)
    if settings.cache:
        use_cache()
    opened = Run.open(settings.run)
    opened.keep_file(settings.file, "FILE")
    model = opened.model
    contexts = None
    if given_file:
        contexts = _read(inputs[0], opened)
    elif settings.given_values:
        contexts = _parsed(settings.given_values, model.given)
    if contexts is None and model.given is not None:
        names = [c.name for c in model.given.kept]
        example = ",".join(f"{name}=..." for name in names)
        raise InputError(
            f"`given_values` must give {shown(names)}, on which the density is"
            f" conditional, as {example} or in a file."
        )
    if contexts is not None and model.given is not None:
        contexts, *_ = with_missing(contexts, opened.na)
        model.given.context(contexts, name="given_values")  # before any work
    num_rows = _DEFAULT if asked is None else asked
    if contexts is not None and len(contexts) != 1:
        if asked not in (None, len(contexts)):
            raise InputError(
                f"`num_rows` must be left out, or one for each of {len(contexts)} rows of"
                f" {settings.given_values}; got {asked}."
            )
        num_rows = len(contexts)
    first, written = 0, ()
    with PartWriter(settings.file) as writer:
        progress.phase("sampling", total=num_rows or None)
        for frame in model.samples(
            num_rows, seed=settings.seed, context=contexts, rows=_ROWS
        ):
            whole = _whole(frame, contexts, first, opened)
            written = whole.names
            writer.write(whole)
            first += len(frame)
            progress.advance(first)
    printer.line(f"{num_rows:,} rows: {placed(settings.file)}")
    absent = [name for name in opened.columns if name not in written]
    if absent:
        printer.line(f"left out, since the model does not hold them: {shown(absent)}")


def _check_space(path: str | pathlib.Path, num_rows: int) -> None:
    """Refuses rows that the disk cannot hold, however short they are written."""
    if str(path) == STANDARD:
        return
    folder = folder_of(path)
    free = shutil.disk_usage(folder).free
    if num_rows * _LEAST_BYTES > free:
        raise InputError(
            f"`num_rows` must fit on the disk of {printable(folder)}, which has"
            f" {free / 1e9:.0f} GB left; got {num_rows:,}. Draw fewer, or to standard"
            " output."
        )


def _whole(frame: Frame, contexts: Frame | None, first: int, opened: Run) -> Frame:
    """Drawn and given columns in the order of the file that was fitted."""
    if contexts is None or opened.model.given is None:
        return frame
    matched = opened.model.given.matched(contexts, name="given_values")
    rows = np.arange(first, first + len(frame)) if len(contexts) != 1 else None
    at = np.zeros(len(frame), int) if rows is None else rows
    columns = {c.name: c for c in (*matched.take(at).columns, *frame.columns)}
    names = [name for name in opened.columns if name in columns]
    return dataclasses.replace(frame, columns=tuple(columns[name] for name in names))


def _read(path: pathlib.Path, opened: Run) -> Frame:
    """The contexts of a file."""
    try:
        return read_frame(find(path), date_formats=opened.date_formats(opened.columns))
    except InputError as error:
        words = str(error).replace("`path`", "`given_values`")
        words = words.replace("be an existing", "be pairs, as a=1,b=x, or an existing")
        raise InputError(words) from None


def _parsed(words: str, given: Schema | None) -> Frame:
    """a=1,b=x as a table of one row, in the types of the fit.

    Raises:
      InputError: for what is no pair, another column, or a value of another type.
    """
    if given is None:
        raise InputError(
            "`given_values` must be left out: the fit was without --given."
        )
    known = {column.name: column for column in given.columns}
    columns = []
    for pair in re.split(rf",(?=(?:{'|'.join(map(re.escape, known))})=)", words):
        name, _, value = pair.partition("=")
        if name.strip() not in known:
            raise InputError(
                f"`given_values` must name {shown(list(known), 20)}, as a=1,b=x; got"
                f" {name!r}.{near([name.strip()], list(known))}"
            )
        columns.append(_value(known[name.strip()], value.strip()))
    refuse_repeated([column.name for column in columns], "`given_values`")
    return Frame(tuple(columns))


def _value(column: ColumnSchema, word: str) -> Column:
    dtype, source = np.dtype(column.dtype), column.source
    try:
        if dtype.kind == "O":
            value = np.array([word], object)
        elif dtype.kind == "b":
            value = np.array([_TRUTH[word.lower()]])
        elif dtype.kind == "m":
            time = cells.clock(import_pyarrow().array([word]))
            value = np.array([word if time is None else time[0].as_py()], dtype)
        elif dtype.kind == "M":
            value, source = _instant(column, word)
        else:
            value, source = _number(column, word)
    except (ValueError, KeyError):
        wanted = {"b": "true or false", "m": "a time", "M": "a date"}.get(
            dtype.kind, "a number"
        )
        raise InputError(
            f"`given_values` must give {wanted} for {column.name}; got {word!r}."
        ) from None
    return Column(
        column.name, value, np.zeros(1, bool), source, date_format=column.date_format
    )


def _instant(column: ColumnSchema, word: str) -> tuple[np.ndarray, str]:
    """A date in the format of the fit, or in ISO 8601, and its type: with a zone or without."""
    dtype, form = np.dtype(column.dtype), column.date_format
    if form and not dates.is_unmistakable(form):
        date = dates.instant(word, form)
        if date is not None:
            return np.array([date], dtype), column.source
    found = cells.instants(import_pyarrow().array([word]))
    if found is None:
        return np.array([word], dtype), column.source
    value, zone = found.to_numpy(zero_copy_only=False), found.type.tz
    if (value.astype(dtype) == value).all() and bool(zone) == is_zoned(column):
        return value.astype(dtype), column.source
    return value, f"Datetime(time_unit={found.type.unit!r}, time_zone={zone!r})"


def _number(column: ColumnSchema, word: str) -> tuple[np.ndarray, str]:
    """A number, and its type: that of the fit where it holds it."""
    dtype = np.dtype(column.dtype)
    if not cells.is_number(word):
        raise ValueError
    if dtype.kind in "iu":
        with contextlib.suppress(ValueError, OverflowError):
            return np.array([int(word)], dtype), column.source
    return np.array([float(word)]), column.source if dtype.kind == "f" else "Float64"
