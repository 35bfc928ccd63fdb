"""The rows of a table that is larger than memory, encoded as they are read."""

import pathlib
from collections.abc import Sequence

import numpy as np

from trainers.tables.checks import InputError
from trainers.tables.frame import Frame, joined
from trainers.tables.parts import Parts
from trainers.tables.schema import Schema

PARTS = ("train", "valid", "test")


class EncodedParts:
    """Training rows as a flow takes them; the others can be asked for.

    Which part a row is in, and its noise, are functions of the seed and the row's place.

    Args:
      parts: the file, or several.
      schema: of its columns, found on some of its rows.
      fractions: of the rows, for training, validation and test.
      seed: of the split and of the noise.
      num_bytes: of a block.

    Attributes:
      files: their paths.
      names: of the columns before they are encoded.
      shape: training rows, encoded columns.
      first_block: how many blocks of other processes come before these.
    """

    first_block = 0

    def __init__(
        self,
        parts: Parts,
        schema: Schema,
        *,
        fractions: Sequence[float],
        seed: int,
        num_bytes: int,
    ):
        self.files, self.names = parts.files, schema.names
        self._parts, self._schema, self._seed = parts, schema, seed
        self._ends = np.cumsum(fractions)
        self._source = parts.blocks(num_bytes)
        sizes = [int((self._part(i) == 0).sum()) for i in range(len(self._source))]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self._number = {
            int(start): i
            for i, (start, size) in enumerate(zip(starts[:-1], sizes, strict=True))
            if size
        }
        self._blocks = [(start, start + sizes[i]) for start, i in self._number.items()]
        self.shape = int(starts[-1]), schema.width

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last training rows of the blocks."""
        del num_bytes  # they were cut when this was made
        return self._blocks

    def read(self, start: int, stop: int) -> np.ndarray:
        """The training rows of a block, encoded.

        Raises:
          InputError: a value that the kinds of the columns cannot hold, or none at all.
        """
        del stop
        number = self._number[start]
        frame = self._frame(number)
        frame = frame.take(self._part(number) == 0)
        random = np.random.default_rng([self._seed, self.first_block + number, 1])
        noise = random.random((len(frame), self._schema.noise))
        rows, log_det = self._schema.encode(frame, noise=noise)
        if not np.isfinite(log_det).all():
            at = int(np.argmin(np.isfinite(log_det)))
            raise InputError(
                f"{self.files[0]}: row {at} of the training rows from {start} on has a value"
                " that its column's kind cannot hold, which was found on a part of the"
                " rows. Say the kinds (`kinds`, --kinds)."
            )
        return rows

    def place(self, row: int) -> tuple[pathlib.Path, int]:
        """A file, and the number of a row among the training rows."""
        return self.files[0], row

    def held(self, name: str, most: int) -> tuple[Frame, np.ndarray]:
        """At most so many rows of a part, from all blocks alike, and their numbers."""
        part = PARTS.index(name)
        share = -(-most // len(self._source))
        frames, rows = [], []
        for number in range(len(self._source)):
            index = np.flatnonzero(self._part(number) == part)[:share]
            if index.size:
                frames.append(self._frame(number).take(index))
                rows.append(self._source[number][0] + index)
        if not frames:
            raise InputError(
                f"{self.files[0]} must have rows for every part; none is in {name}."
            )
        return joined(frames).take(slice(most)), np.concatenate(rows)[:most]

    def _frame(self, number: int) -> Frame:
        return self._parts.frame(*self._source[number])

    def _part(self, number: int) -> np.ndarray:
        """0, 1 or 2 for each row of a block: training, validation, test."""
        start, stop = self._source[number]
        place = np.random.default_rng([self._seed, number]).random(stop - start)
        return np.minimum(np.searchsorted(self._ends, place, side="right"), 2)
