"""Where a table goes: a file that is whole or not there, or standard output."""

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from trainers import paths
from trainers.tables.arrow import import_pyarrow
from trainers.tables.checks import InputError, printable
from trainers.tables.files.sources import COMPRESSIONS, STANDARD

TEXT = {".csv": ",", ".tsv": "\t"}  # what separates the cells
_BINARY = (".parquet", ".npy", ".npz")


def check_output(path: str | pathlib.Path, *, inputs: Sequence[Any] = ()) -> None:
    """Raises where a table cannot be written; called before any work.

    Args:
      path: the file to be written, also in a bucket; "-" is standard output.
      inputs: the files that are read, none of which is written over.

    Raises:
      InputError: for another suffix, a folder that is not there or not writable, a folder
        in place of a file, one of the inputs, or an address of no bucket.
      ImportError: without what writes to such a bucket.
    """
    if str(path) == STANDARD:
        return
    path = _placed(path)
    name = repr(printable(path))
    suffix, compression = kind_of(path)
    if suffix not in (*TEXT, *_BINARY) or (compression and suffix not in TEXT):
        raise InputError(
            f"`path` to write must end in one of {', '.join((*TEXT, *_BINARY))}, or in"
            f" .csv or .tsv with {' or '.join(COMPRESSIONS)} behind, got {name}."
        )
    if suffix not in (".npy", ".npz"):
        import_pyarrow()
    if paths.in_bucket(path):
        if reason := paths.refusal(path.parent):
            raise InputError(
                f"`path` must be in a bucket that you may write to, got {name}:"
                f" {printable(reason)}."
            )
    elif not path.parent.is_dir():
        raise InputError(
            f"`path` must be in an existing folder, got {name}. Make the folder"
            f" {printable(path.parent)!r} first."
        )
    if path.exists() and not path.is_file():
        raise InputError(
            f"`path` to write must be a file, got {name}, which is not one."
        )
    places = (path if path.exists() else path.parent, path.parent)
    if not all(paths.in_bucket(p) or os.access(p, os.W_OK) for p in places):
        raise InputError(f"`path` must be where you may write, got {name}.")
    for other in inputs:
        if is_same(path, other):
            raise InputError(
                f"`path` to write must be another file than the one that is read, got"
                f" {name}."
            )


def _placed(path: str | os.PathLike) -> paths.Path:
    try:
        return paths.placed(path)
    except ValueError as error:
        raise InputError(f"`path`: {error}") from None


def folder_of(path: str | os.PathLike) -> pathlib.Path:
    """The folder of this machine that a table is written in, before it goes to a bucket."""
    place = _placed(path)
    return (
        place.parent
        if isinstance(place, pathlib.Path)
        else pathlib.Path(tempfile.gettempdir())
    )


def is_same(path: str | os.PathLike, other: str | os.PathLike) -> bool:
    """Whether they are one file, by links or any spelling, or as standard input."""
    path = _placed(path)
    if not path.exists():
        return False
    if paths.in_bucket(path):
        return str(path) == str(_placed(other))
    try:
        read = (
            os.fstat(sys.stdin.fileno()) if str(other) == STANDARD else os.stat(other)
        )
    except (OSError, ValueError):  # not there, or no file of the system
        return False
    return os.path.samestat(path.stat(), read)


def kind_of(path: str | pathlib.Path) -> tuple[str, str | None]:
    """The suffix that says the format, and the compression; standard output is .csv."""
    if str(path) == STANDARD:
        return ".csv", None
    suffixes = [suffix.lower() for suffix in pathlib.Path(path).suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    left = suffixes[:-1] if compression else suffixes
    return left[-1] if left else "", compression


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of the one at a path, once all went well.

    What was there stays if anything fails.
    """
    if str(path) == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = _placed(path)
    if paths.in_bucket(path):  # whose objects are written in one go
        with tempfile.TemporaryFile() as file:
            yield file
            with _told(path), path.open("wb") as there:
                file.seek(0)
                shutil.copyfileobj(file, there)
        return
    path = path.resolve()  # not the link but the file behind it
    beside = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with _told(path):
            file = beside.open("wb+")
        with file:
            yield file
        with _told(path):
            if path.exists():
                shutil.copymode(path, beside)
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: paths.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"`path` {printable(path)!r} cannot be written: {printable(error)}."
        ) from error
