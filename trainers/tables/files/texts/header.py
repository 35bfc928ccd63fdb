"""Which line names the columns, and which columns only count the rows."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from trainers.tables.checks import InputError, shown
from trainers.tables.files.texts import cells
from trainers.tables.files.texts.refusing import Record, refuse_unclear

# What pandas and R call a first column without a name, when they write it again.
INDEX = ("Unnamed: 0", "rownames", "row.names")
_FEW_ROWS = 5  # at most: a line of another kind may be a row that is damaged
_MOSTLY = 0.6  # of a column's cells are numbers: it is one of numbers


@dataclasses.dataclass(frozen=True)
class Top:
    """What stands above the rows.

    Attributes:
      skip: lines before the first row.
      names: of all columns.
      index: columns that only count or name the rows.
      hollow: columns without name and values.
      commented: whether a comment names the columns.
      is_named: whether anything names them.
      notes: what was guessed.
    """

    skip: int
    names: tuple[str, ...]
    index: tuple[str, ...] = ()
    hollow: tuple[str, ...] = ()
    commented: bool = False
    is_named: bool = True
    notes: tuple[str, ...] = ()


def find(
    records: Sequence[Record],
    width: int,
    decimal: str,
    *,
    name: str,
    line: int | None,
    lines: Sequence[str],
    comments: Sequence[int],
    quote: str,
    cut: Callable[[str], tuple[str, ...]],
) -> Top:
    """Finds the line that names the columns.

    Args:
      records: of the text without comments.
      width: cells in most of them.
      decimal: point or comma.
      name: what messages call the file.
      line: number of the line that names the columns, 0 for none; None to guess.
      lines: of the text, comments too.
      comments: numbers of the comments at the top.
      quote: what stands around cells.
      cut: the cells of a line without the sign of a comment.
    """
    start = next(i for i, r in enumerate(records) if len(r.cells) == width)
    rows, before = list(records[start:]), list(records[:start])
    notes: list[str] = []
    named, commented = None, False
    if line:
        if line > len(lines) or not lines[line - 1].strip():
            raise InputError(f"--header must name a line with words, got line {line}.")
        named = Record(line, cut(lines[line - 1]))
        rows = [r for r in records if r.line > line and len(r.cells) == width]
        before = []
    elif line is None and (
        why := _is_header(rows, decimal)
        or (not before and _is_quoted(rows, lines, quote))
    ):
        named = rows.pop(0)
        notes += [why] * (why != "words")
    elif line is None and before and _names_all_but_one(before[-1], rows, width):
        named = before.pop()
    elif line is None and before and _with_last_sep(before[-1], width):
        last = before.pop()
        named = last._replace(cells=last.cells[:-1])
    elif line is None and comments:
        named = _commented(comments[-1], cut(lines[comments[-1] - 1]), width, decimal)
        if named and (width > 1 or len(comments) == 1):
            commented = True
            notes.append("the last comment names the columns (--header none)")
        else:
            named = None
    if before:
        if len(rows) <= _FEW_ROWS:
            refuse_unclear(before, width, name)
        notes.append(f"{counted(before)} above the table left out (--header)")
    above = [r.line for r in records if not rows or r.line < rows[0].line]
    skip = max([0, *comments[-1:], *above[-1:], named.line if named else 0])
    if named and not line and (units := _units(rows, decimal, width)):
        skip, rows = units.line, rows[1:]
        notes.append(f"line {skip} holds units and is left out (--header {named.line})")
    given = _bare([" ".join(c.split()) for c in named.cells] if named else [""] * width)
    if len(given) == width - 1:
        given = [*given, ""] if _is_hollow(rows, width - 1) else ["", *given]
    if len(given) != width and rows:
        raise InputError(
            f"--header must name a line with as many names as the rows have cells,"
            f" {width}; line {line} has {len(given)}."
        )
    hollow = {j for j, n in enumerate(given) if not n and _is_hollow(rows, j)}
    hollow = hollow if named and len(hollow) < width else set()
    called = [n or (f"Unnamed: {j}" if named else f"x{j}") for j, n in enumerate(given)]
    names, renamed = _unique(called)
    index: tuple[str, ...] = ()
    if named and width > 1 and called[0] in INDEX and 0 not in hollow:
        quoted = all(lines[r.line - 1].lstrip().startswith(quote) for r in rows)
        if _is_index(rows, decimal, trusted=quoted and not given[0]):
            index = names[:1]
    nameless = [names[j] for j, n in enumerate(given) if not n and j not in hollow]
    if named and (nameless := [n for n in nameless if n not in index]):
        notes.append(f"columns without a name are called {shown(nameless)} (--header)")
    notes += _said(named, names, rows, renamed, guessed=line is None)
    return Top(
        skip=skip,
        names=names,
        index=index,
        hollow=tuple(names[j] for j in sorted(hollow)),
        commented=commented,
        is_named=named is not None,
        notes=tuple(notes),
    )


def counted(lines: Sequence[Any]) -> str:
    """1 line, 2 lines."""
    return f"{len(lines)} line{'s' * (len(lines) != 1)}"


def _is_header(rows: Sequence[Record], decimal: str) -> str:
    """Why the first row names the columns: a note, or "words"; empty if it does not."""
    top, body = rows[0].cells, [r.cells for r in rows[1:]]
    kinds = [cells.kind(c, decimal) for c in top]
    if not body and "word" in kinds and "number" not in kinds:
        return "words"
    if (note := _is_count(top, body)) or not body:
        return note
    for_it = against = 0
    for j, kind in enumerate(kinds):
        column = [row[j].strip() for row in body if len(row) == len(top)]
        inner = collections.Counter(cells.kind(c, decimal) for c in column)
        filled = len(column) - inner.pop("missing", 0)
        mostly, most = max(inner.items(), key=lambda item: item[1], default=("", 0))
        if mostly in ("number", "instant") and most >= _MOSTLY * filled:
            for_it += kind not in (mostly, "missing")
            against += kind == mostly
    if for_it or against:
        return "words" if for_it > against else ""
    if "number" in kinds or "instant" in kinds:
        return ""
    # Words above words: a row of data repeats what others hold.
    repeats = any(
        c.strip() in {row[j].strip() for row in body if len(row) == len(top)}
        for j, c in enumerate(top)
        if c.strip()
    )
    filled = [c.strip() for c in top if c.strip()]
    if not filled or repeats or len(set(filled)) < len(filled):
        return ""
    return f"the first line, {shown(filled)}, is taken for the header (--header none)"


def _is_quoted(rows: Sequence[Record], lines: Sequence[str], quote: str) -> str:
    """A note, where every cell of the first row is quoted and of no other row."""
    quotes = [lines[r.line - 1].count(quote) for r in rows]
    whole = 2 * len(rows[0].cells)
    if len(rows) < 2 or quotes[0] < whole or max(quotes[1:]) >= whole:
        return ""
    filled = [c for c in rows[0].cells if c.strip()]
    return f"the first line, {shown(filled)}, is the header (--header none)"


def _is_count(top: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A note, where the first row counts the columns as pandas does."""
    start = 1 if len(top) > 1 and top[0].strip() in ("", *INDEX) else 0
    given = [c.strip() for c in top[start:]]
    if not all(cells.is_integer(c) for c in given):
        words = [c for c in given if cells.kind(c) == "word"]
        numbers = [c for c in given if cells.is_integer(c)]
        if not words or not _consecutive(numbers, 3) or _any_consecutive(body):
            return ""
        return "words"  # country, 1990, 1991, 1992
    inner = [c.strip() for row in body for c in row[start:]]
    whole = all(cells.is_integer(c) for c in inner if c)
    if given == [str(j) for j in range(len(given))]:
        repeated = list(top) in [list(row) for row in body]
        if not repeated and body and not (whole and len(top) == 1):
            return f"the first line, {shown(given)}, is the header (--header none)"
    elif _consecutive(given, 2) and not any(cells.is_integer(c) for c in inner):
        return f"the first line, {shown(given)}, is the header (--header none)"
    return ""


def _consecutive(given: Sequence[str], least: int) -> bool:
    numbers = [int(c) for c in given]
    return len(numbers) >= least and all(
        b - a == 1 for a, b in itertools.pairwise(numbers)
    )


def _any_consecutive(body: Sequence[Sequence[str]]) -> bool:
    return any(_consecutive([c for c in row if cells.is_integer(c)], 3) for row in body)


def _names_all_but_one(top: Record, rows: Sequence[Record], width: int) -> bool:
    """A header without a name for the row names (R), or without the last separator."""
    kinds = {cells.kind(c) for c in top.cells}
    if len(top.cells) != width - 1 or kinds != {"word"}:
        return False
    if _is_hollow(rows, width - 1):
        return True
    firsts = [r.first for r in rows]
    counts = all(cells.is_integer(c) for c in firsts)
    return len(set(firsts)) == len(firsts) and (width > 2 or counts)


def _commented(line, given: tuple[str, ...], width: int, decimal: str):
    """The record of a comment that can name the columns, or None."""
    if len(given) == width + 1 and not given[0].strip():
        given = given[1:]
    if len(given) == width and not given[0].strip():
        given = ("#", *given[1:])  # a column that is called so
    words = all(cells.kind(c, decimal) == "word" for c in given)
    if len(given) != width or not words or len(set(given)) < width:
        return None
    return Record(line, given) if width > 1 or len(given[0].split()) == 1 else None


def _units(rows: Sequence[Record], decimal: str, width: int) -> Record | None:
    """The first row, where it holds what may be units in all columns of numbers."""
    if len(rows) < 3 or len(rows[0].cells) != width:
        return None
    words = 0
    for j, cell in enumerate(rows[0].cells):
        below = [cells.kind(r.cells[j], decimal) for r in rows[1:] if j < len(r.cells)]
        if below.count("word") > 0.1 * len(below) or set(below) == {"missing"}:
            continue
        kind = cells.kind(cell, decimal)
        if kind in ("number", "instant") or (
            kind == "word" and not cells.is_unit(cell)
        ):
            return None
        words += kind == "word"
    return rows[0] if words > (len(rows) <= _FEW_ROWS) else None


def _with_last_sep(top: Record, width: int) -> bool:
    """A header that a separator ends, above rows that end without."""
    kinds = {cells.kind(c) for c in top.cells[:-1]}
    return (
        len(top.cells) == width + 1 and not top.cells[-1].strip() and kinds == {"word"}
    )


def _bare(given: list[str]) -> list[str]:
    """Names without quotes of a sign that the rows do not have."""
    for quote in ("'", '"'):
        if all(len(n) > 1 and n[0] == n[-1] == quote for n in given):
            return [n[1:-1] for n in given]
    return given


def _is_hollow(rows: Sequence[Record], j: int) -> bool:
    return bool(rows) and all(not r.cells[j].strip() for r in rows if j < len(r.cells))


def _is_index(rows: Sequence[Record], decimal: str, *, trusted: bool) -> bool:
    """Integers, or words or dates of which none comes twice; if trusted, numbers too."""
    firsts = [r.first for r in rows]
    if firsts and all(cells.is_integer(c) for c in firsts):
        return True
    numbers = any(cells.kind(c, decimal) in ("number", "missing") for c in firsts)
    return (trusted or not numbers) and len(set(firsts)) == len(firsts)


def _unique(given: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Names, each once, and those that were changed: a.1 where a was before."""
    taken, seen = set(given), set()
    names: list[str] = []
    renamed = []
    for wanted in given:
        name, k = wanted, 0
        while name in seen or (k and name in taken):
            k += 1
            name = f"{wanted}.{k}"
        seen.add(name)
        names.append(name)
        renamed += [f"{wanted} as {name}"] * (k > 0)
    return tuple(names), renamed


def _said(named, names, rows, renamed, *, guessed: bool) -> list[str]:
    notes = []
    if renamed:
        notes.append(f"columns of one name are called apart: {shown(renamed)} (--drop)")
    if named is None and guessed:
        notes.append(f"no header: the columns are called {shown(names, 3)} (--header)")
    if named is None and rows:
        holes = [n for n, c in zip(names, rows[0].cells, strict=False) if not c.strip()]
        if holes and any(c.strip() for c in rows[0].cells):
            notes.append(
                f"the empty cell of the first row, in {shown(holes)}, counts as missing"
                " (--header)"
            )
    return notes
