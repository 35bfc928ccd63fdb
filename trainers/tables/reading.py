"""Tables out of files."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rbig_nnx.math.arrays import coarse_columns
from trainers.tables.checks import InputError, as_float32, printable
from trainers.tables.columns import refuse_missing
from trainers.tables.files.opening import open_table, without_rows
from trainers.tables.files.sources import Source, TableFile
from trainers.tables.frame import Frame


class Numbers(NamedTuple):
    """Rows of float32, [n, d], and the columns' names."""

    values: np.ndarray
    names: tuple[str, ...]


def read_frame(
    path: str | pathlib.Path | Source,
    *,
    columns: str | Sequence[str] = (),
    drop: str | Sequence[str] = (),
    sep: str | None = None,
    decimal: str | None = None,
    header: int | str | None = None,
    encoding: str | None = None,
    array: str | None = None,
    date_formats: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Frame:
    r"""Reads a table from a file, every column in the type that it has there.

    What has to be guessed is told in the frame's `notes`, with the option of the command
    that overrides it.

    Args:
      path: .csv, .tsv, .txt, .npy, .npz or .parquet, also with .gz or .zst behind; "-" is
        standard input.
      columns: those to keep, in this order; none for all but an index.
      drop: those to leave out.
      sep: of a text: the character between cells, or "tab" or "space".
      decimal: of a text: "." or ",".
      header: of a text: the number of the line (from 1) that names the columns, or "none",
        which calls them x0, x1, ...
      encoding: of a text, in Python's words.
      array: the array to take from a .npz file. None: its only one, or all those of one
        dimension as columns.
      date_formats: of a text: how columns of dates are written, where that is known, as in
        `Column.date_format`; guessed otherwise.
      limit: read so many rows at most.

    Raises:
      InputError: one line, for a file that is missing, empty or no table, for names of
        columns that it does not have, and for a missing extra.

    Example:
      >>> import pathlib, tempfile
      >>> from trainers.tables import read_frame
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name) / "rows.csv"
      >>> _ = path.write_text("day;price\n2024-01-31;1,5\n2024-02-29;2,25\n")
      >>> frame = read_frame(path)
      >>> print(frame.names, frame["price"].values, *frame.notes, sep="\n")
      ('day', 'price')
      [1.5  2.25]
      separator ';' (--sep)
      decimal comma (--decimal)
      >>> folder.cleanup()
    """
    text = {"sep": sep, "decimal": decimal, "header": header, "encoding": encoding}
    text["date_formats"] = date_formats
    file, names, notes = open_table(path, columns, drop, array=array, **text)
    frame = file.whole(names, limit)
    if not len(frame):
        raise without_rows(file, names)
    return dataclasses.replace(
        frame,
        notes=(*frame.notes, *notes),
        is_named=file.is_named,
    )


def read_table(path: str | pathlib.Path | Source, **options: Any) -> Numbers:
    r"""The numbers of a file as they are, for what knows no kinds of columns.

    `FlowDensity` and the commands take text, dates, holes and offsets; a flow, `warm_start`
    and `fit` take an array, which this reads.

    Args:
      path: as for `read_frame`.
      **options: those of `read_frame`.

    Raises:
      InputError: as `read_frame`; columns that are no numbers or have holes, and those
        of which float32 loses more than a thousandth of their spread.

    Example:
      >>> import pathlib, tempfile
      >>> from trainers.tables import read_table
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name) / "rows.csv"
      >>> _ = path.write_text("a,b\n1,2.5\n2,3.5\n")
      >>> print(read_table(path).values)
      [[1.  2.5]
       [2.  3.5]]
      >>> folder.cleanup()
    """
    frame = read_frame(path, **options)
    refuse_missing(frame, name=printable(path))
    values = np.empty((len(frame), len(frame.columns)), np.float32)
    for j, column in enumerate(frame.columns):
        values[:, j] = _float32(
            column.values, f"{printable(column.name)} of {printable(path)}"
        )
    return Numbers(values, frame.names)


def _float32(values: np.ndarray, name: str) -> np.ndarray:
    rounded, exact = as_float32(values, name), values.astype(np.float64)
    spread = np.ptp(exact)
    if spread and len(coarse_columns(exact[:, None], np.float32, spread)[0]):
        raise InputError(
            f"`{name}` must keep its digits in float32; got values near {exact[0]:.12g}"
            f" that vary by {spread:.3g}. Subtract an offset, or use FlowDensity, which"
            " does."
        )
    return rounded


def frames_of(
    path: str | pathlib.Path | Source,
    *,
    rows: int = 100_000,
    columns: str | Sequence[str] = (),
    drop: str | Sequence[str] = (),
    sep: str | None = None,
    decimal: str | None = None,
    header: int | str | None = None,
    encoding: str | None = None,
    array: str | None = None,
    date_formats: Mapping[str, str] | None = None,
) -> Iterator[Frame]:
    r"""Reads a table so many rows at a time.

    The types of a text are those of the first rows. Integers may become float64 later, and
    dates instants; words where numbers were are holes if they are few, else an error. Each
    frame's `notes` hold what was decided so far.

    Args:
      path: as for `read_frame`.
      rows: of each frame but the last.
      columns: as for `read_frame`, and so on.
      drop: columns to leave out.
      sep: what separates cells.
      decimal: "." or ",".
      header: number of the line that names the columns, or "none".
      encoding: in Python's words.
      array: of an .npz file.
      date_formats: of columns of dates.

    Raises:
      InputError: as `read_frame`; what is wrong further down, once it is reached.

    Example:
      >>> import pathlib, tempfile
      >>> from trainers.tables import frames_of
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = pathlib.Path(folder.name) / "rows.csv"
      >>> _ = path.write_text("a,b\n1,2.5\n2,3.5\n4,4.5\n")
      >>> [frame["a"].values.tolist() for frame in frames_of(path, rows=2)]
      [[1, 2], [4]]
      >>> folder.cleanup()
    """
    text = {"sep": sep, "decimal": decimal, "header": header, "encoding": encoding}
    text["date_formats"] = date_formats
    file, names, notes = open_table(path, columns, drop, array=array, **text)
    return _frames(file, names, notes, rows)


def _frames(
    file: TableFile, names: Sequence[str], notes: tuple[str, ...], rows: int
) -> Iterator[Frame]:
    empty = True
    for frame in file.parts(names, rows):
        if not len(frame):
            continue
        empty = False
        notes_here = (*frame.notes, *notes)
        yield dataclasses.replace(frame, notes=notes_here, is_named=file.is_named)
    if empty:
        raise without_rows(file, names)
