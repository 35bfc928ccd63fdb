"""Texts that are refused by their first lines: they hold a table in another way, or two."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from trainers.tables.checks import InputError
from trainers.tables.files.texts import cells

_FEW_SIGNS = 10_000  # of a text that show its format
_PAIRS = re.compile(r"[+-]?[\d.]+(?: +\d+:[+-]?[\d.eE+-]+){2,}")


class Record(NamedTuple):
    """A line, or several where a quoted cell goes on; `line` is the last one's number."""

    line: int
    cells: tuple[str, ...]

    @property
    def first(self) -> str:
        """The first cell."""
        return self.cells[0].strip()


def refuse_formats(text: str, name: str):
    """Raises for texts that hold a table, though not in lines of cells."""
    lines = [line for line in text[:_FEW_SIGNS].splitlines() if line.strip()]
    pairs = [bool(_PAIRS.fullmatch(line.strip())) for line in lines[1:-1]]
    if re.match(r"\s*<(!doctype|html|\?xml)", text, re.IGNORECASE):
        found = "is a page of markup, no table. Save its table as .csv."
    elif re.match(r"\s*(?:\[\s*)?\{\s*\"", text):
        found = "holds JSON. Write it as .csv, with pandas.read_json(...).to_csv(...)."
    elif re.search(r"^@data\s*$", text, re.IGNORECASE | re.MULTILINE):
        found = "holds ARFF. Write it as .csv, with scipy.io.arff.loadarff."
    elif pairs and all(pairs):
        found = (
            "holds pairs as 3:0.5, as LIBSVM writes them. Write them as .npy, with"
            " sklearn.datasets.load_svmlight_file(...)[0].toarray()."
        )
    else:
        return
    raise InputError(f"{name} {found}")


def refuse_split(records: Sequence[Record], name: str):
    """Raises where numbers with a decimal comma stand, unquoted, between commas: 1,5,2,5."""
    top, width = records[0], len(records[0].cells)
    if width < 2 or {cells.kind(c) for c in top.cells} != {"word"}:
        return
    kinds = [[cells.kind(c) for c in r.cells] for r in records[1:]]
    rows = [r for r, k in zip(records[1:], kinds, strict=True) if "missing" not in k]
    counts = {len(r.cells) for r in rows}
    dated = any(cells.kind(r.first) == "instant" for r in rows)
    wider = sum(len(r.cells) > width for r in rows)
    if wider < max(2, len(rows) / 5) or (counts == {width + 1} and not dated):
        return  # a line too long, or names of rows, without a name
    whole = all(
        cells.is_integer(c) or (dated and cells.kind(c) == "instant")
        for r in rows
        for c in r.cells
    )
    if whole and width <= min(counts) and max(counts) <= 2 * width:
        wide = max(rows, key=lambda r: len(r.cells))
        raise InputError(
            f"{name} must have as many cells as names; line {top.line} names {width}"
            f" columns, and line {wide.line} has {len(wide.cells)} cells, as where"
            " 1,5 stands for 1.5 between commas. Write it with semicolons between cells"
            " (--sep ';' --decimal ,), with quotes around the numbers, or with decimal"
            " points; --header none takes every number as a cell."
        )


def refuse_unclear(before: Sequence[Record], width: int, name: str):
    """Raises where lines above few rows may be rows."""
    for line, found in before:
        if len(found) > width or any(cells.kind(c) == "number" for c in found):
            raise InputError(
                f"--header must say which line of {name} names the columns, or none: line"
                f" {line} has {len(found)} cells, not {width} as most, and the rows are few."
            )
