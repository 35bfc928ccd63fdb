"""Folders and files by path: of this machine, or of a bucket through `etils.epath`."""

import contextlib
import importlib.util
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, TypeAlias

from etils import epath
from etils.epath import backend

Path: TypeAlias = pathlib.Path | epath.Path

# What reads and writes a kind of bucket, and what brings it. Orbax knows no others.
_BUCKETS = {"gs": ("gcsfs", "'rbig-nnx[gcs]'"), "s3": ("s3fs", "s3fs")}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://?(?=[^/])", re.IGNORECASE)
_OTHER_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:(?=/)", re.IGNORECASE)


def located(path: str | os.PathLike) -> Path:
    """The place of a path, absolute on this machine; see `placed`."""
    place = placed(path)
    return place.absolute() if isinstance(place, pathlib.Path) else place


def placed(path: str | os.PathLike) -> Path:
    """The place of a path, as it is given on this machine, or in a bucket.

    Args:
      path: text, a path of `pathlib`, which writes gs:/ for gs://, or one of `epath`.

    Raises:
      TypeError: no path at all.
      ValueError: an address of another kind than gs:// and s3://.
      ImportError: without what reads such a bucket, naming what brings it.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a path must be a text or a pathlib.Path; got {path!r}.")
    text = os.fspath(path)
    found = _ADDRESS.match(text)
    scheme = found.group(1).lower() if found else ""
    if found is None or scheme not in _BUCKETS:
        other = _OTHER_ADDRESS.match(text)
        if other and not os.path.exists(other[0]):  # a folder may have such a name
            kinds = " and ".join(f"{kind}://" for kind in _BUCKETS)
            raise ValueError(
                f"a path must be one of this machine, or in a bucket ({kinds}); got"
                f" {text}. Copy it, or mount it as a folder."
            )
        return pathlib.Path(path)
    package, source = _BUCKETS[scheme]
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{scheme}://{text[found.end() :]} needs {package}; install it with"
            f" pip install {source}"
        )
    place = epath.Path(f"{scheme}://{text[found.end() :].rstrip('/')}")
    look_again(place)
    return place


def in_bucket(path: Path) -> bool:
    """Whether a place is in a bucket."""
    return not isinstance(path, pathlib.Path)


def look_again(path: Path) -> None:
    """Forgets what a bucket was seen to hold: others may write to it."""
    if in_bucket(path):
        _files(path).invalidate_cache()


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it, if there is one."""
    if in_bucket(path):
        look_again(path)
        if path.exists():
            _files(path).rm(str(path), recursive=True)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def move(path: Path, to: Path) -> None:
    """Gives a folder or a file another name, in place of what is there.

    In a bucket, whose objects have no other name, everything is copied first.
    """
    remove(to)
    if in_bucket(path):
        look_again(path)
        files = _files(path)
        old, new = (files._strip_protocol(str(place)) for place in (path, to))
        for name in files.find(old):  # one by one: a folder's own name is no object
            files.copy(name, new + name.removeprefix(old))
        files.rm(str(path), recursive=True)
    else:
        path.rename(to)


def refusal(folder: Path) -> str | None:
    """Why nothing can be written in a folder of a bucket; None where a probe could be."""
    probe = folder / ".rbig-nnx"
    try:
        with _errors_of_buckets():
            probe.write_text("")
            remove(probe)
    except ConnectionError as error:
        return str(error)
    return None


def exists(path: Path) -> bool:
    """Whether something is there.

    Raises:
      ConnectionError: a bucket that cannot be looked at.
    """
    if not in_bucket(path):
        return path.exists()
    with _errors_of_buckets():
        return path.exists()


@contextlib.contextmanager
def _errors_of_buckets() -> Iterator[None]:
    """Each kind of bucket has errors of its own: all as one, and without their tracebacks."""
    loggers = [logging.getLogger(package) for package, _ in _BUCKETS.values()]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        raise ConnectionError(str(error)) from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def write_whole(path: Path, text: str) -> None:
    """Writes a file, whole or not at all: until then the earlier one is there."""
    if in_bucket(path):
        path.write_text(text)
        return
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


@contextlib.contextmanager
def local_folder(path: Path) -> Iterator[pathlib.Path]:
    """A folder of this machine for those who write to no other; it ends up at `path`."""
    if isinstance(path, pathlib.Path):
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)
        _files(path).put(f"{folder}/", f"{path}/", recursive=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all that is in a folder."""
    if isinstance(path, pathlib.Path):
        if path.is_file():
            return path.stat().st_size
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return _files(path).du(str(path))


def _files(path: Path) -> Any:
    """What `epath` reads and writes a bucket with."""
    return backend.fsspec_backend.fs(path)
