"""From a file to rows that can be fitted: what was read, what its columns are, the split."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.command.output import Printer
from trainers.command.settings import FitFile, in_typed_words
from trainers.command.steps.holes import no_cell, with_missing, without_holes
from trainers.command.steps.large import LargeFile, is_large
from trainers.estimators.encoded import EncodedTable
from trainers.rows.encoded import PARTS, EncodedParts
from trainers.tables import dates
from trainers.tables.checks import InputError, near, refuse_repeated, shown
from trainers.tables.columns import without_states
from trainers.tables.files.opening import open_table as open_file
from trainers.tables.files.sources import Source, TableFile
from trainers.tables.files.texts import cells
from trainers.tables.files.texts.text import TextFile
from trainers.tables.frame import Frame
from trainers.tables.kinds import Levels, Spike
from trainers.tables.reading import read_frame
from trainers.tables.schema import Schema
from trainers.tables.splits import split_rows

_LEAST = (5, 1, 2)  # rows of each part


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows without holes, what their columns are, and which part each row is in.

    Attributes:
      frame: the columns of the file that take part, in its order.
      numbers: of the frame's rows in the file, from 0, [n].
      schema: of those that are modelled.
      given: of those that are given, or None.
      notes: what was decided and what is worth a warning.
      parts: rows of the frame, by part.
      width: columns of the file.
      stream: the training rows of a table that is larger than memory; those in `frame`
        are then a part of them.
    """

    frame: Frame
    numbers: np.ndarray
    schema: Schema
    given: Schema | None
    notes: tuple[str, ...]
    parts: dict[str, np.ndarray]
    width: int
    stream: EncodedParts | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Rows by part."""
        sizes = {name: len(rows) for name, rows in self.parts.items()}
        return sizes if self.stream is None else sizes | {"train": self.stream.shape[0]}

    def part(self, name: str) -> tuple[Frame, Frame | None]:
        """The modelled and the given columns of a part."""
        frame = self.frame.take(self.parts[name])
        context = None if self.given is None else frame.select(self.given.names)
        return frame.select(self.schema.names), context

    def encoded(self, name: str, *, seed: int) -> EncodedTable:
        """A part as a flow takes it, with noise of its own."""
        frame, context = self.part(name)
        own = len(PARTS) * seed + PARTS.index(name)
        return EncodedTable.of(
            frame, self.schema, context=context, given=self.given, seed=own
        )


def open_table(source: Source, settings: FitFile, printer: Printer) -> Table:
    """Reads a file, finds its kinds of columns and splits its rows; prints what it did.

    Raises:
      InputError: one line, for a table that cannot be fitted as it is.
    """
    file = open_file(source, **settings.reading())[0]
    large = LargeFile(source, settings) if is_large(source, settings) else None
    frame = (
        dataclasses.replace(large.sample, notes=(large.note(source.name),))
        if large
        else read_frame(
            source,
            columns=settings.columns,
            drop=settings.drop,
            date_formats=_written(settings, file),
            **settings.reading(),
        )
    )
    frame, marked, unmatched = with_missing(frame, settings.na)
    notes = [*frame.notes, *marked, *map(no_cell, unmatched)]
    given = names_in(settings.given, frame.names, "--given")
    kinds = parsed_kinds(settings.kinds, frame.names)
    missing = settings.missing
    if large and missing == "drop-rows":
        missing = "refuse"  # it would have to be done on the way
    frame, numbers, dropped = _whole(
        source.name, frame, kinds, given, missing, None if large else file
    )
    notes += dropped
    given = [name for name in given if name in frame.names]
    if len(frame) < 2:  # every column would be constant
        raise _too_few(source.name, len(frame), settings)
    schema, context = _schemas(frame, kinds, given, source.name)
    stream = None
    if large:
        stream, frame, numbers, parts = large.split(schema)
    else:
        parts = _split(frame, context, settings, source.name)
    for note in [*notes, *_left_out(schema, context)] if printer.quiet else notes:
        printer.result(note)
    warnings = [*schema.notes, *(context.notes if context else ())]
    warnings = [in_typed_words(warning, FitFile) for warning in warnings]
    printer.table(schema.table())
    if context is not None:
        table = context.table()
        table.title = "columns that are given"
        printer.table(table)
    for warning in warnings:
        printer.warn(warning)
    frame = dataclasses.replace(frame, is_named=file.is_named)
    width = len(file.names)
    told = tuple(notes + warnings)
    table = Table(frame, numbers, schema, context, told, parts, width, stream)
    sizes = ", ".join(f"{size:,} {name}" for name, size in table.sizes.items())
    rows = sum(table.sizes.values())
    name = source.name.strip("'")
    printer.line(f"{name}: {rows:,} rows of {len(frame.columns)} columns; {sizes}")
    return table


def names_in(words: Sequence[str], names: Sequence[str], option: str) -> list[str]:
    """Names of columns, each alone or several with commas between.

    Raises:
      InputError: for a column that is not there, or twice.
    """
    found = []
    for word in words:
        alone = word in names
        found += [word] if alone else [part.strip() for part in word.split(",")]
    absent = [name for name in found if name not in names]
    if absent:
        raise InputError(
            f"{option} must name columns of the file, {shown(names, 20)}; got"
            f" {shown(absent)}.{near(absent, names)}"
        )
    refuse_repeated(found, option)
    return found


def parsed_kinds(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`price=positive,grade=categorical` as a mapping; names may hold commas.

    Raises:
      InputError: for what is no pair, or a column that is not there, or twice.
    """
    pieces = [piece for word in words for piece in re.split(r",(?![^()]*\))", word)]
    kinds: dict[str, str] = {}
    name = ""
    for piece in pieces:
        left, sign, kind = piece.rpartition("=")
        name += piece if not sign else left
        if not sign:
            name += ","
            continue
        (found,) = names_in([name.strip()], names, "--kinds") or [name]
        if found in kinds:
            raise InputError(
                f"--kinds must name a column once; got {found}={kinds[found]} and"
                f" {found}={kind.strip()}."
            )
        kinds[found], name = kind.strip(), ""
    if name:
        raise InputError(
            f"--kinds must be pairs, as price=positive,grade=categorical; got"
            f" {name.rstrip(',')!r}."
        )
    return kinds


def _written(settings: FitFile, file: TableFile) -> dict[str, str]:
    """How columns are read that would be numbers without --kinds."""
    if not isinstance(file, TextFile):
        return {}
    kinds = parsed_kinds(settings.kinds, file.names)
    asked = [name for name, kind in kinds.items() if kind == "categorical"]
    zeros = dict.fromkeys(file.with_zeros(asked), cells.WORDS)
    return zeros | {n: dates.COMPACT for n, kind in kinds.items() if kind == "date"}


def _whole(
    name: str,
    frame: Frame,
    kinds: dict[str, str],
    given: Sequence[str],
    missing: str,
    file: TableFile | None,
) -> tuple[Frame, np.ndarray, list[str]]:
    """The frame without holes where they matter, its rows' numbers, and notes."""
    if not any(column.gone.any() for column in frame.columns):
        return frame, np.arange(len(frame)), []
    schemas = _schemas(frame, kinds, given, name, whole=False)
    lost = without_states(c for s in schemas if s is not None for c in s.columns)
    used = [column for column in frame.names if column not in lost]
    return without_holes(name, frame, used, missing, file)


def _left_out(*schemas: Schema | None) -> list[str]:
    """The line on the columns that are skipped, where no table of kinds shows them."""
    columns = [c for schema in schemas if schema is not None for c in schema.columns]
    told = [f"{c.name} ({c.why})" for c in columns if not c.kind.width]
    return [f"skipped: {shown(told, len(told))}"] if told else []


def _schemas(
    frame: Frame, kinds: dict[str, str], given: Sequence[str], name: str, **options: Any
) -> tuple[Schema, Schema | None]:
    def schema(names, *, as_given):
        asked = {column: kind for column, kind in kinds.items() if column in names}
        rows = frame.select(names)
        try:
            return Schema.of(rows, asked, given=as_given, name=name, **options)
        except InputError as error:
            if name in str(error):
                raise
            raise InputError(f"{name}: {error}") from None

    modelled = [column for column in frame.names if column not in given]
    if not modelled:
        raise InputError("--given must leave a column to model; it names all of them.")
    found = schema(modelled, as_given=False)
    if not given:
        return found, None
    context = schema(given, as_given=True)
    if not context.kept:
        raise InputError(
            f"--given must name columns that vary; {shown(given)} are constant, empty or"
            " free text."
        )
    return found, context


def _split(
    frame: Frame, context: Schema | None, settings: FitFile, name: str
) -> dict[str, np.ndarray]:
    """Rows of the frame by part.

    What is modelled needs no strata: discrete columns are blurred, so no part of them is
    constant. Of columns that are given, the training rows have every level.
    """
    levels = []
    for column in context.kept if context is not None else ():
        if isinstance(column.kind, Levels):
            values = frame[column.name].values
            levels.append(np.unique(values.astype(str), return_inverse=True)[1].ravel())
        elif isinstance(column.kind, Spike):
            levels.append(frame[column.name].values == column.kind.value)
    valid, test = settings.valid_fraction, settings.test_fraction
    try:
        parts = split_rows(
            len(frame),
            seed=settings.train.seed,
            fractions=(1 - valid - test, valid, test),
            least=_LEAST,
            levels=levels,
        )
    except InputError:
        raise _too_few(name, len(frame), settings) from None
    return dict(zip(PARTS, parts, strict=True))


def _too_few(name: str, num_rows: int, settings: FitFile) -> InputError:
    least = ", ".join(f"{n} {part}" for n, part in zip(_LEAST, PARTS, strict=True))
    return InputError(
        f"{name} must have rows for every part, at least {least}; got {num_rows}"
        f" row{'s' * (num_rows != 1)} with --valid-fraction {settings.valid_fraction:g} and"
        f" --test-fraction {settings.test_fraction:g}."
    )
