"""A small text, and what must come of it."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Text:
    """A text and what is wanted of it.

    Attributes:
      text: as it stands in the file.
      columns: values by name, None where one is missing.
      notes: a pattern for each note, in order.
      options: of `read_frame`.
      sources: types in narwhals' words, where they are not obvious.
    """

    text: str | bytes
    columns: dict[str, list]
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    sources: tuple[str, ...] = ()
