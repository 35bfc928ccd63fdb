"""What is said of a column's kind."""

import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from trainers.tables.checks import InputError, shown
from trainers.tables.kinds.base import Kind
from trainers.tables.natives.labels import unboxed


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


class KindsTable(Table):
    """A table of rich, which is its own text too: for `print`."""

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), color_system=None)
        with console.capture() as text:
            console.print(self)
        return text.get().rstrip("\n")


def kinds_table(
    about: Iterable[Mapping[str, Any]], *, title: str = "columns"
) -> KindsTable:
    """What `Schema.about` says as an aligned table."""
    result = KindsTable(title=title)
    for name in ("column", "kind", "why", "range", "missing"):
        justify = "right" if name == "missing" else "left"
        result.add_column(name, justify=justify, overflow="fold")
    for c in about:
        missing = f"{c['missing']:,}" if c["missing"] else ""
        result.add_row(c["column"], c["kind"], c["why"], span(c), missing)
    return result


def span(about: Mapping[str, Any]) -> str:
    """From the lowest to the highest value of a column, or ""."""
    ends = about["low"], about["high"]
    if ends[0] is None:
        return ""
    return " to ".join(f"{e:.6g}" if isinstance(e, float) else str(e) for e in ends)


def asked_of(kinds: str | Mapping[Any, str], names: Sequence[str]) -> dict[str, str]:
    """The kinds that were asked for, by name; columns may be given by number.

    Raises:
      InputError: no mapping, or of other columns.
    """
    if isinstance(kinds, str) and kinds == "auto":
        return {}
    if not isinstance(kinds, Mapping):
        raise InputError(
            f"`kinds` must be 'auto' or a mapping of columns to kinds; got {kinds!r}."
        )
    result = {}
    for key, words in zip(map(unboxed, kinds), kinds.values(), strict=True):
        number = isinstance(key, int) and str(key) not in names
        if number and 0 <= key < len(names):
            result[names[key]] = words
        elif str(key) in names:
            result[str(key)] = words
        else:
            raise InputError(
                f"`kinds` must name columns, {shown(names, 20)}; got {key!r}."
            )
    return result
