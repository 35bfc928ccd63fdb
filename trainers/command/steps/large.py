"""Tables that are larger than memory: a part of the rows decides, the rest are streamed."""

import contextlib
import os
import pathlib
import sys

import numpy as np

from trainers.command.settings import FitFile
from trainers.rows.encoded import PARTS, EncodedParts
from trainers.tables.checks import InputError
from trainers.tables.files.sources import Source
from trainers.tables.frame import Frame, joined
from trainers.tables.parts import Parts, open_blocks, size_of
from trainers.tables.schema import Schema

_SHARE = 4  # a table may take one in so many bytes of memory
_BLOCK_BYTES = 2**24
# Rows that are held in memory: those that the kinds and the warm start come from, ...
_HELD = {"train": 262_144, "valid": 20_000, "test": 50_000}


def memory_bytes() -> int:
    """Of this machine, or of the container that the process runs in."""
    sizes = [sys.maxsize]
    # Neither is there on every system, nor is every container's a number.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes)


def is_large(source: Source, settings: FitFile) -> bool:
    """Whether a file must be read by parts.

    Raises:
      InputError: one that must be and cannot.
    """
    size = size_of(
        source, columns=settings.columns, drop=settings.drop, **settings.reading()
    )
    memory = memory_bytes()
    if size <= memory / _SHARE:
        return False
    if source.kind not in ("npy", "parquet") or source.copy is not None:
        if size < memory:
            return False
        raise InputError(
            f"{source.name} would take about {size / 2**30:.1f} GiB of {memory / 2**30:.1f}"
            " GiB of memory. Write it as .parquet, which is read by parts."
        )
    for option, given in (("--na", settings.na), ("--given", settings.given)):
        if given:
            raise InputError(
                f"{option} must be left out where a table is larger than a quarter of the"
                f" memory; {source.name} would take {size / 2**30:.1f} GiB. Give a part of"
                " it."
            )
    return True


class LargeFile:
    """A file whose rows are read by parts.

    Args:
      source: the file.
      settings: columns, and the seed of the sample.

    Attributes:
      parts: of it.
      sample: rows from everywhere in it.
    """

    def __init__(self, source: Source, settings: FitFile):
        self._options = {"columns": settings.columns, "drop": settings.drop}
        self._path, self._settings = source.path, settings
        self.parts: Parts = open_blocks(source.path, **self._options)
        self.sample = self._sample(_HELD["train"])

    def note(self, name: str) -> str:
        """What is said of it."""
        return (
            f"{name} takes more than a quarter of the memory and is read by parts; the"
            f" kinds are those of {len(self.sample):,} rows from everywhere in it (--kinds)"
        )

    def split(
        self, schema: Schema
    ) -> tuple[EncodedParts, Frame, np.ndarray, dict[str, np.ndarray]]:
        """The training rows as they are streamed; rows in memory, as `Table` has them."""
        valid, test = self._settings.valid_fraction, self._settings.test_fraction
        parts = open_blocks(self._path, columns=list(schema.names))
        stream = EncodedParts(
            parts,
            schema,
            fractions=(1 - valid - test, valid, test),
            seed=self._settings.train.seed,
            num_bytes=_BLOCK_BYTES,
        )
        held = [stream.held(part, _HELD[part]) for part in PARTS]
        frames, numbers = zip(*held, strict=True)
        ends = np.cumsum([len(frame) for frame in frames])
        rows = np.split(np.arange(ends[-1]), ends[:-1])
        by_part = dict(zip(PARTS, rows, strict=True))
        return stream, joined(frames), np.concatenate(numbers), by_part

    def _sample(self, most: int) -> Frame:
        blocks = self.parts.blocks(_BLOCK_BYTES)
        share = -(-most // len(blocks))
        random = np.random.default_rng(self._settings.train.seed)
        frames = []
        for start, stop in blocks:
            frame = self.parts.frame(start, stop)
            if len(frame) > share:
                frame = frame.take(
                    np.sort(random.choice(len(frame), share, replace=False))
                )
            frames.append(frame)
        return joined(frames)
