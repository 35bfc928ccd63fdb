"""Cells without a value: those that the user names, and what becomes of their rows."""

import dataclasses
import shlex
from collections.abc import Sequence

import numpy as np

from trainers.tables.checks import InputError, printable, shown
from trainers.tables.files.sources import TableFile
from trainers.tables.files.texts import cells
from trainers.tables.files.texts.text import TextFile
from trainers.tables.frame import Column, Frame

_SHOWN = 12  # columns with missing values named in a message


def with_missing(
    frame: Frame, values: Sequence[str]
) -> tuple[Frame, list[str], set[str]]:
    """The frame where cells of some values count as missing.

    Returns:
      The frame, a note on each column, and the values that no cell has.
    """
    columns, notes = [], []
    # What counts as missing anyway has been told by the reader.
    read = "".join(frame.notes)
    unmatched = {v for v in values if v not in cells.MISSING and f"'{v}'" not in read}
    for column in frame.columns:
        marked = np.zeros(len(column), bool)
        for value in values:
            equal = _equals(column, value) & ~column.missing
            marked |= equal
            if equal.any():
                unmatched.discard(value)
        if marked.any():
            notes.append(
                f"{column.name}: {marked.sum():,} cells count as missing (--na"
                f" {' '.join(values)})"
            )
        columns.append(dataclasses.replace(column, missing=column.missing | marked))
    return dataclasses.replace(frame, columns=tuple(columns)), notes, unmatched


def no_cell(value: str) -> str:
    """A note on a value of --na that is not there."""
    return f"--na {value} matches no cell"


def without_holes(
    name: str,
    frame: Frame,
    used: Sequence[str],
    missing: str,
    file: TableFile | None = None,
) -> tuple[Frame, np.ndarray, list[str]]:
    """The frame without the rows, or columns, that have holes, the rows' numbers, and notes.

    Args:
      name: what messages call the file.
      frame: the table.
      used: the columns in which holes matter.
      missing: "refuse", "drop-rows" or "drop-columns".
      file: what it was read from, as a whole, to name the first holes.

    Raises:
      InputError: one line, where holes are refused, or no row is without.
    """
    counts = {name: int(frame[name].gone.sum()) for name in frame.names if name in used}
    holes = {column: n for column, n in counts.items() if n}
    numbers = np.arange(len(frame))
    if not holes:
        return frame, numbers, []
    gone = np.any([frame[column].gone for column in holes], axis=0)
    told = shown([f"{n:,} in {column}" for column, n in holes.items()], _SHOWN)
    rows = f"{gone.sum():,} of {len(frame):,} rows"
    if missing == "drop-columns":
        kept = [column for column in frame.names if column not in holes]
        note = f"left out, with missing values: {told} (--missing drop-columns)"
        return frame.select(kept), numbers, [note]
    drop = f"--drop {shlex.join(holes)}"
    if gone.all():
        raise InputError(
            f"{name} has no row without missing values: {told}. Use --missing"
            f" drop-columns, which is {drop}, or --drop those with the most."
        )
    if missing == "refuse":
        firsts = _firsts(frame, list(holes)[:_SHOWN], file)
        told = shown(
            [
                f"{n:,} in {column}{firsts.get(column, '')}"
                for column, n in holes.items()
            ],
            _SHOWN,
        )
        raise InputError(
            f"{name} has missing values in {rows}: {told}. Use --missing drop-rows, which"
            f" leaves {(~gone).sum():,} rows, or --missing drop-columns, which is {drop}."
        )
    note = f"{rows} have missing values and are left out: {told} (--missing drop-rows)"
    return frame.take(~gone), numbers[~gone], [note]


def _firsts(
    frame: Frame, names: Sequence[str], file: TableFile | None
) -> dict[str, str]:
    """What the first hole of each column is and where."""
    rows = {name: int(frame[name].gone.argmax()) for name in names}
    if file is None:
        return {}
    if not isinstance(file, TextFile):
        return {name: f" (row {row:,} from 0)" for name, row in rows.items()}
    return {
        name: f" ({repr(printable(cell, 30)) if cell else 'empty'} in line {line:,})"
        for name, (line, cell) in file.cells(rows).items()
    }


def _equals(column: Column, value: str) -> np.ndarray:
    """Where a column holds what a word says, [n]."""
    dtype = column.values.dtype
    if dtype.kind == "O":
        return np.array([word == value for word in column.values], bool)
    read = {"M": np.datetime64, "m": _duration}.get(dtype.kind, float)
    try:
        wanted = read(value)
    except ValueError:
        return np.zeros(len(column), bool)
    if dtype.kind not in "iufMm":
        return np.zeros(len(column), bool)
    return column.values == wanted


def _duration(clock: str) -> np.timedelta64:
    """Of hours:minutes or hours:minutes:seconds."""
    sign = -1 if clock.startswith("-") else 1
    parts = [float(part) for part in clock.lstrip("-").split(":")]
    if not 2 <= len(parts) <= 3:
        raise ValueError(clock)
    seconds = sum(
        60.0**power * part for power, part in zip((2, 1, 0), parts, strict=False)
    )
    return np.timedelta64(sign * round(seconds * 1e6), "us")
