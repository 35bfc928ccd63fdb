"""Where a table lies: a file, compressed or not, or standard input."""

import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from trainers.paths import Path, exists, in_bucket, placed
from trainers.tables.arrow import import_pyarrow
from trainers.tables.checks import InputError, printable
from trainers.tables.frame import Frame

TEXT = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
SUFFIXES = (*TEXT, ".npy", ".npz", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
STANDARD = "-"  # the name of standard input and output
_MAGIC = {b"\x93NUMPY": "npy", b"PAR1": "parquet", b"PK\x03\x04": "zip"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SAMPLE_BYTES = 64 * 2**10  # of a text that its look is judged by
_LONGEST_SAMPLE = 16 * 2**20  # where the lines are so long that few fit
_LEAST_LINES = 30
_WILD = "*?["  # of the patterns of `glob`


@dataclasses.dataclass(frozen=True)
class Source:
    """A file on this machine.

    Attributes:
      name: what messages call it.
      path: where it lies; for standard input, and for arrays and Parquet that come
        compressed, a temporary copy.
      kind: "text", "npy", "npz" or "parquet".
      compression: of a text: "gzip", "zstd" or None.
      tabs: whether the suffix says that tabs separate the cells.
      notes: what was decided.
      copy: keeps the temporary copy alive.
    """

    name: str
    path: Path
    kind: str
    compression: str | None = None
    tabs: bool = False
    notes: tuple[str, ...] = ()
    copy: Any = None

    def stream(self) -> Any:
        """The bytes of a text, decompressed, as a stream of pyarrow."""
        return _stream(self.path, self.compression)

    def sample(self) -> tuple[bytes, bool]:
        """The start of a text, and whether that is all of it."""
        size, sample = _SAMPLE_BYTES, b""
        try:
            with self.stream() as stream:
                while chunk := stream.read(size - len(sample)):
                    sample += chunk
                    lines = max(sample.count(b"\n"), sample.count(b"\r"))
                    if len(sample) == size and lines < _LEAST_LINES:
                        size = min(2 * size, _LONGEST_SAMPLE)
        except InputError:  # pyarrow is not there
            raise
        except (OSError, EOFError, ValueError) as error:
            raise InputError(
                f"{self.name} cannot be read: {printable(error)}. Write the file again."
            ) from error
        return sample, len(sample) < size


class TableFile(Protocol):
    """A table in a file, whose columns can be chosen.

    Attributes:
      source: where it lies.
      names: of all columns, each once.
      notes: what was decided so far.
    """

    source: Source
    names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_named(self) -> bool:
        """Whether the file names the columns; otherwise they are x0, x1, ..."""
        ...

    @property
    def index(self) -> tuple[str, ...]:
        """The columns that only count or name the rows: left out where not asked for."""
        ...

    @property
    def num_rows(self) -> int | None:
        """The number of rows where the file says so."""
        ...

    def whole(self, names: Sequence[str], limit: int | None = None) -> Frame:
        """The columns of these names, in this order; at most so many rows."""
        ...

    def parts(self, names: Sequence[str], rows: int) -> Iterator[Frame]:
        """The same, so many rows at a time."""
        ...

    def about_rows(self) -> int:
        """The number of rows, or a guess from the size of the file."""
        ...


def find(path: Any) -> Source:
    """The file at a path; "-" is standard input, and a source is itself.

    The first bytes say what it is. Only text, which has no such bytes, needs a suffix.
    """
    if isinstance(path, Source):
        return path
    if str(path) == STANDARD:
        copy = _Copy(sys.stdin.buffer)
        found = _look(copy.path, "standard input", suffix=None, copy=copy)
        note = f"standard input is read as {found.kind}"
        return dataclasses.replace(found, notes=(note, *found.notes))
    path = as_path(path)
    name = repr(str(path))
    if not is_there(path, "`path`"):
        raise InputError(
            f"`path` must be an existing file, got {name}. Check the name and the folder."
        )
    if path.is_dir():
        raise InputError(f"`path` must be a file, got the folder {name}.")
    if not in_bucket(path) and not path.is_file():  # it would be waited for
        raise InputError(
            f"`path` must be a file that can be read again; got {name}, a pipe or a device."
            f" Use - for the path, and < {path}."
        )
    if not in_bucket(path) and not os.access(path, os.R_OK):
        raise InputError(f"`path` must be a file that you may read, got {name}.")
    suffixes = [s.lower() for s in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    return _look(
        path, name, suffix="".join(suffixes[-2:-1] if packed else suffixes[-1:])
    )


def is_there(path: Path, name: str) -> bool:
    """Whether something is at a place, which the argument `name` gave.

    Raises:
      InputError: in a bucket that cannot be looked at.
    """
    try:
        return exists(path)
    except ConnectionError as error:
        raise InputError(
            f"{name} must be in a bucket that you may read; got {path}: {printable(error)}."
        ) from None


def as_path(path: Any) -> Path:
    """A path on this machine, or in a bucket ("gs://bucket/rows.npy").

    Raises:
      InputError: another address, or a bucket without the package that reads it.
    """
    try:
        return placed(path)
    except (ValueError, ImportError) as error:
        raise InputError(str(error)) from error


def matching(pattern: str) -> list[Path]:
    """The files that a pattern such as "gs://bucket/rows-*.npy" names, by name."""
    first = min(pattern.index(sign) for sign in _WILD if sign in pattern)
    folder = pattern[:first].rpartition("/")[0]
    rest = pattern[len(folder) :].lstrip("/")
    folder = as_path(folder or ("/" if pattern.startswith("/") else "."))
    if not folder.exists():
        return []
    return sorted(path for path in folder.glob(rest) if not path.is_dir())


def is_pattern(path: Any) -> bool:
    """Whether a path is a pattern for several, and not the name of a file."""
    return any(sign in str(path) for sign in _WILD) and not as_path(path).exists()


def _stream(path: Path, compression: str | None) -> Any:
    """The bytes of a file, decompressed, as a stream of pyarrow."""
    file = path.open("rb") if in_bucket(path) else str(path)
    return import_pyarrow().input_stream(file, compression=compression)


def suffixes_shown() -> str:
    """The suffixes in a message."""
    return f"{', '.join(SUFFIXES)}, each also with {' or '.join(COMPRESSIONS)}"


def _look(path: Path, name: str, *, suffix: str | None, copy: Any = None):
    """What kind of file it is; suffix None for standard input."""
    head = _head(path)
    if not head:
        raise InputError(
            f"`path` must be a file with rows, got {name} of 0 bytes. Write it again."
        )
    compression = next((c for m, c in _COMPRESSED.items() if head.startswith(m)), None)
    if compression:
        head = _head(path, compression, name)
    kind = next((k for m, k in _MAGIC.items() if head.startswith(m)), None)
    if kind == "zip":
        kind = "npz" if suffix in (".npz", None) else _refuse_archive(name)
    wanted = None if suffix is None else suffix.removeprefix(".")
    if kind is None and wanted in ("npy", "npz", "parquet"):
        kind = wanted  # its reader says what is wrong
    if kind is None and suffix not in (*TEXT, None):
        raise InputError(
            f"`path` must end in one of {suffixes_shown()}, got {name}. Convert the file"
            " to one of them."
        )
    if kind is None:
        return Source(
            name, path, "text", compression, suffix in (".tsv", ".tab"), (), copy
        )
    if compression:
        copy = _unpacked(path, compression, name)
        path = copy.path
    return Source(name, path, kind, copy=copy)


def _head(path: Path, compression: str | None = None, name: str = "") -> bytes:
    if compression is None:
        with path.open("rb") as file:
            return file.read(8)
    try:
        with _stream(path, compression) as file:
            return file.read(8)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} is no whole {compression} file: {printable(error)}. Write it again."
        ) from error


def _unpacked(path: Path, compression: str, name: str) -> "_Copy":
    """A temporary copy without compression: these formats are read at any place."""
    try:
        with _stream(path, compression) as file:
            return _Copy(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} is no whole {compression} file: {printable(error)}. Write it again."
        ) from error


class _Copy:
    """A temporary file, which is there as long as this object."""

    def __init__(self, stream: Any):
        handle, name = tempfile.mkstemp(prefix="rbig-nnx-")
        self.path = pathlib.Path(name)
        weakref.finalize(self, self.path.unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(stream, file)


def _refuse_archive(name: str):
    raise InputError(
        f"`path` must be a table, got {name}, which holds a zip archive or an Excel file."
        " Save its table as .csv."
    )
