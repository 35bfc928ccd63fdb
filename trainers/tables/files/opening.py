"""A file as a table: which reader, and which columns are kept."""

from collections.abc import Sequence
from typing import Any

from trainers.tables.checks import (
    InputError,
    near,
    printable,
    refuse_repeated,
    shown,
)
from trainers.tables.files.arrays import ArrayFile
from trainers.tables.files.parquet import ParquetFile
from trainers.tables.files.sources import TableFile, find
from trainers.tables.files.texts.text import TextFile


def open_table(
    path: Any,
    columns: str | Sequence[str] = (),
    drop: str | Sequence[str] = (),
    *,
    array: str | None = None,
    **text: Any,
) -> tuple[TableFile, tuple[str, ...], tuple[str, ...]]:
    """The file at a path, the names of the columns to keep, and notes on those."""
    source = find(path)
    idle = {} if source.kind == "text" else text
    if source.kind in ("text", "parquet"):
        idle = idle | {"array": array}
    if given := [
        name
        for name, value in idle.items()
        if value is not None and name != "date_formats"
    ]:
        kinds = ".npz files" if given[0] == "array" else "tables in text"
        raise InputError(
            f"--{given[0]} is for {kinds}; got {source.name}. Leave it out."
        )
    if source.kind == "text":
        file: TableFile = TextFile(source, **text)
    elif source.kind == "parquet":
        file = ParquetFile(source)
    else:
        file = ArrayFile(source, array=array)
    if not file.names:
        raise InputError(
            f"`path` must be a file with rows and columns, got {source.name} with"
            f" {file.num_rows or 0} rows of 0 columns. Write it again."
        )
    return file, *choose(file, columns, drop)


def without_rows(file: TableFile, names: Sequence[str]) -> InputError:
    """The error for a table that has columns only."""
    return InputError(
        f"`path` must be a file with rows and columns, got {file.source.name} with 0 rows"
        f" of {len(names)} columns. Write it again, with its rows."
    )


def choose(
    file: TableFile, columns: str | Sequence[str], drop: str | Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the columns to keep, in order, and notes.

    Args:
      file: with the names of all.
      columns: those to keep, in this order; none for all but the index.
      drop: those to leave out.

    Raises:
      InputError: for names that the file does not have, or that come twice, or where none
        is left.
    """
    columns = _listed(columns, file, "--columns")
    drop = _listed(drop, file, "--drop")
    notes = []
    kept = tuple(columns)
    if not kept:
        kept = tuple(name for name in file.names if name not in file.index)
        left = [name for name in file.index if name not in drop]
        if left and kept:
            notes.append(
                f"the first column or index, {printable(shown(left))}, only counts or"
                f" names the rows and is left out (--columns with its name keeps it)"
            )
        kept = kept or file.names
    kept = tuple(name for name in kept if name not in drop)
    if not kept:
        raise InputError(
            f"{file.source.name} must keep at least one column, got --drop"
            f" {printable(shown(drop))} of {printable(shown(file.names, 20))}."
        )
    return kept, tuple(notes)


def _listed(given: str | Sequence[str], file: TableFile, option: str) -> list[str]:
    """The names, of which the file has each; "a,b" is two unless it is one."""
    given = [given] if isinstance(given, str) else list(given)
    names: list[str] = []
    for item in given:
        parts = [item] if item in file.names else [p.strip() for p in item.split(",")]
        names += parts if all(p in file.names for p in parts) else [item]
    unknown = [name for name in names if name not in file.names]
    if unknown:
        raise InputError(
            f"{option} must be among the columns of {file.source.name},"
            f" {printable(shown(file.names, 20), 400)}; got {printable(shown(unknown))}."
            f"{near(unknown, file.names)}"
        )
    refuse_repeated(names, option)
    return names
