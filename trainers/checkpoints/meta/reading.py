"""The `meta` item of a step: read, and believed once it is checked."""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from trainers.checkpoints.meta import declared
from trainers.paths import Path, size_of
from trainers.tables.checks import printable

FORMAT = "rbig-nnx"
FORMAT_VERSION = 2
_LONGEST = 2**28  # bytes of the item
_SMALL = 2**28  # bytes of arrays that are believed
_PACKED = 2**15  # times that zstd, which Orbax packs arrays with, makes zeros smaller


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of something else.

    Example:
      >>> import trainers
      >>> issubclass(trainers.CheckpointError, ValueError)
      True
    """


def damaged(path: Path, reason: str) -> CheckpointError:
    """The error that names the checkpoint and what is wrong with it."""
    return CheckpointError(f"the checkpoint {path} is damaged: {printable(reason)}.")


def peek(step: Path) -> Any:
    """What the item of a folder says, unchecked: JSON, or None where it does not parse.

    Raises:
      OSError: there is no such item.
      ValueError: it is no file of its folder, or too long.
    """
    file = step / "meta" / "metadata"
    if isinstance(file, pathlib.Path):
        if file.parent.is_symlink() or file.is_symlink():
            raise ValueError("its `meta` item is a link")
        if file.exists() and not file.is_file():
            raise ValueError("its `meta` item is no file")
        if file.stat().st_size > _LONGEST:
            raise ValueError(f"its `meta` item is longer than {_LONGEST} bytes")
    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError):
        return None


def read_meta(folder: Path, step: int) -> dict[str, Any]:
    """The `meta` item of a step, checked.

    Raises:
      CheckpointError: no checkpoint of this library or version, or a damaged one.
    """
    place = folder / str(step)
    try:
        meta = peek(place)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{place} is no checkpoint of this library, or lost its"
            " `meta` item. Load it with the program that wrote it."
        ) from None
    except (OSError, ValueError) as error:
        raise damaged(place, str(error)) from None
    if meta is None:
        raise damaged(place, "its `meta` item does not parse")
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{place} was written by another program; `path` must be a"
            " checkpoint of trainers.save or trainers.fit."
        )
    if meta.get("format_version") != FORMAT_VERSION:
        version = printable(meta.get("format_version"), 20)
        raise CheckpointError(
            f"{place} has format version {version}; this"
            f" release reads version {FORMAT_VERSION}. Use the release that wrote it."
        )
    if meta.pop("checksum", None) != json_checksum(meta):
        raise damaged(place, "the checksum of its `meta` item does not match")
    try:
        declared.check(meta)
    except (ValueError, RecursionError) as error:
        raise damaged(place, f"its `meta` item is not as declared: {error}") from None
    # `save` may have been cut off before it gave the step its own number.
    if "run" in meta and meta["step"] != step:
        raise damaged(
            place, f"it is step {meta['step']} of its run, and its folder was renamed"
        )
    _check_files(place, meta)
    return meta


def json_checksum(meta: Mapping[str, Any]) -> int:
    """32 bits of the item."""
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _check_files(place: Path, meta: Mapping[str, Any]) -> None:
    """Raises for links, and for arrays that the files cannot hold."""
    if isinstance(place, pathlib.Path):
        for file in place.rglob("*"):
            if file.is_symlink():
                raise damaged(place, f"{file.relative_to(place)} is a link")
    claimed = declared.size_of(meta["arrays"])
    if claimed > _SMALL and claimed > _SMALL + _PACKED * size_of(place):
        raise damaged(place, f"its files cannot hold arrays of {claimed:,} bytes")
