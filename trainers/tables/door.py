"""The one door for tables: in memory or in a file."""

import os
from typing import Any

from trainers.tables.frame import Frame, frame_of


def as_frame(table: Any, *, name: str = "X") -> Frame:
    """A table, whatever it came as, with every column in its own type.

    Args:
      table: an array, a DataFrame, a mapping of columns, a `Frame`, or a path.
      name: what the messages call it.

    Raises:
      InputError: for what is no table of numbers, words and dates.
    """
    if isinstance(table, str | os.PathLike):
        from trainers.tables.reading import read_frame

        return read_frame(table)
    return frame_of(table, name=name)
