"""What several processes of one run tell each other of their rows, on the host.

Every process must make the same calls in the same order.
"""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from trainers.paths import in_bucket
from trainers.placement import sharding
from trainers.placement.processes import together
from trainers.rows import memory
from trainers.tables.checks import InputError, shown

T = TypeVar("T")
_LOOKED_AT = 2**16  # bytes at both ends of a file, which tell it from others


class Block(NamedTuple):
    """Rows of the data set that are read together.

    Attributes:
      start: number of the first.
      size: how many.
      owner: the process that reads them; None where each of them could.
    """

    start: int
    size: int
    owner: int | None


class Placed(NamedTuple):
    """Where the rows of a data set in files are.

    Attributes:
      blocks: of the data set, in order.
      first_row: of this process's files, in the data set.
      first_block: likewise.
      is_shared: whether all processes have the same files.
      note: who reads what, in several processes.
    """

    blocks: list[Block]
    first_row: int
    first_block: int
    is_shared: bool
    note: str | None


def in_all(call: Callable[[], T]) -> T:
    """The value of a call in this process; what is raised in one is raised in all.

    Raises:
      InputError: another process raised; its number and what it said.
    """
    return together(call, error=InputError)  # pyright: ignore[reportReturnType]


def texts(text: str) -> list[str]:
    """One text from every process."""
    own = np.frombuffer(text.encode(), np.uint8)
    return [rows.tobytes().decode() for rows in arrays(own)]


def arrays(rows: np.ndarray) -> list[np.ndarray]:
    """One array from every process, [n, ...], each with its own n; bit for bit."""
    if jax.process_count() == 1:
        return [rows]
    counts = sharding.gathered(np.int64(len(rows)))
    most = int(counts.max())
    if not most:
        return [rows] * len(counts)
    # A power of two, so that few sizes are compiled.
    padded = np.zeros((1 << (most - 1).bit_length(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    found = sharding.gathered(padded)
    return [part[:count] for part, count in zip(found, counts, strict=True)]


def share(rows: np.ndarray) -> np.ndarray:
    """This process's part of rows that all have; parts differ by one row at most."""
    count, index = jax.process_count(), jax.process_index()
    first, last = len(rows) * index // count, len(rows) * (index + 1) // count
    return rows[first:last]


def joined(own: np.ndarray, blocks: Sequence[Block]) -> np.ndarray:
    """The rows of blocks, of which this process has read its own, in their order."""
    if jax.process_count() == 1:
        return own
    parts = arrays(own)
    read = [0] * len(parts)
    pieces = []
    for block in blocks:
        owner = block.owner or 0
        pieces.append(parts[owner][read[owner] : read[owner] + block.size])
        read[owner] += block.size
    return np.concatenate(pieces)


def placed(
    files: Sequence[pathlib.Path], columns: Sequence[str], sizes: Sequence[int]
) -> Placed:
    """The data set of all processes, each of which calls this with its own files.

    Args:
      files: of this process.
      columns: of them.
      sizes: rows of their blocks, one after another.

    Raises:
      InputError: columns that differ, or a file that some of the processes have in common.
    """
    own = in_all(lambda: {"files": _sketches(files), "columns": list(columns)})
    told = [json.loads(text) for text in texts(json.dumps(own))]
    _check_columns([about["columns"] for about in told])
    is_shared = len(told) == 1 or all(about == own for about in told)
    if not is_shared:
        _check_apart([about["files"] for about in told])
    lengths = arrays(np.array(sizes, np.int64))
    if is_shared:
        lengths = [np.array(sizes, np.int64)]
    rows = [int(part.sum()) for part in lengths]
    starts = itertools.accumulate((int(n) for n in np.concatenate(lengths)), initial=0)
    owners = (
        None if is_shared else owner
        for owner, part in enumerate(lengths)
        for _ in range(len(part))
    )
    blocks = [
        Block(start, int(size), owner)
        for start, size, owner in zip(
            starts, np.concatenate(lengths), owners, strict=False
        )
    ]
    before = 0 if is_shared else jax.process_index()
    return Placed(
        blocks,
        first_row=sum(rows[:before]),
        first_block=sum(map(len, lengths[:before])),
        is_shared=is_shared,
        note=_note(rows, len(files), is_shared=is_shared),
    )


def _sketches(files: Sequence[pathlib.Path]) -> list[str]:
    """What tells files apart: of a bucket the path, of a machine's own disk the content."""
    if jax.process_count() == 1:
        return []
    return [str(file) if in_bucket(file) else _sketch(file) for file in files]


def _sketch(file: pathlib.Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        ends = stream.read(_LOOKED_AT)
        stream.seek(max(size - _LOOKED_AT, 0))
        ends += stream.read()
    digest = hashlib.blake2b(ends, digest_size=16).hexdigest()
    return f"{file.name} {size} {digest}"


def _check_columns(columns: Sequence[Sequence[str]]):
    for number, names in enumerate(columns):
        if names != columns[0]:
            raise InputError(
                "`x_train` must have the same columns in every process; got"
                f" {shown(columns[0], 20)} in process 0 and {shown(names, 20)} in process"
                f" {number}. Choose them (RowFiles, `columns`)."
            )


def _check_apart(files: Sequence[Sequence[str]]):
    """Raises for files that some processes have in common, whose rows would count twice."""
    owner: dict[str, int] = {}
    for number, names in enumerate(files):
        for name in names:
            first = owner.setdefault(name, number)
            if first != number:
                raise InputError(
                    "`x_train` must name the same files in every process, or in each of"
                    f" them its own; got {name.split()[0]} in processes {first} and"
                    f" {number}, and others in one of them alone. Name them all"
                    " everywhere: they are shared out."
                )


def _note(rows: Sequence[int], num_files: int, *, is_shared: bool) -> str | None:
    count = jax.process_count()
    if count == 1:
        return None
    files = f"{num_files} files" if num_files > 1 else "one file"
    if is_shared:
        return f"`x_train`: {count} processes share the {rows[0]:,} rows of {files}"
    numbers = ", ".join(f"{n:,}" for n in rows[:8]) + ", …" * (len(rows) > 8)
    return (
        f"`x_train`: each process reads its own files, of {numbers} rows: one data set of"
        f" {sum(rows):,}, of which none is left out or comes twice in an epoch"
    )


def check_shares(rows: Any) -> None:
    """Raises where a process has none of the rows that are scored."""
    if not sharding.gathered(np.int64(memory.num_rows(rows))).all():
        raise InputError(
            f"`x_train` must have a row at least for each of the {jax.process_count()}"
            " processes among those that are scored: `eval_rows`, and all of `x_valid`."
        )
