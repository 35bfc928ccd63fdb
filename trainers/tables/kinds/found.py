"""What is said of a column's kind."""

import dataclasses
import re
from typing import Any

from trainers.tables.checks import shown
from trainers.tables.kinds.base import Kind


@dataclasses.dataclass(frozen=True)
class Found:
    """A kind and the reason for it; `note` is worth a warning."""

    kind: Kind
    why: str
    note: str = ""


def name_in(where: str) -> str:
    """The name in "column 'price'"; "" for a number."""
    match = re.fullmatch(r"column (['\"])(.*)\1", where)
    return match[2] if match else ""


def option(where: str, option: str, kind: str = "") -> str:
    """An option for the column, as in --kinds price=positive or --drop price."""
    name = name_in(where) or "NAME"
    words = f"{name}={kind}" if kind else name
    plain = re.fullmatch(r"[\w=.()-]*", words) and "(" not in words
    return f"--{option} {words if plain else repr(words)}"


def text(value: Any) -> str:
    """A value for people."""
    return f"{value:g}" if isinstance(value, float) else shown([value])
