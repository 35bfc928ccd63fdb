"""How a text holds a table: judged by its first lines, or as the options say."""

import collections
import csv
import dataclasses
import re
from collections.abc import Sequence

from trainers.tables.checks import InputError, printable
from trainers.tables.files.texts import cells, header
from trainers.tables.files.texts.decoding import (
    BLANKS,
    decoded,
    loose_blanks,
)
from trainers.tables.files.texts.refusing import Record, refuse_formats, refuse_split

_SEPARATORS = (",", ";", "\t", "|")
_SPOKEN = {
    "tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|",
    "space": BLANKS, "blank": BLANKS, " ": BLANKS, BLANKS: BLANKS,
}  # fmt: skip
_SHOWN = {"\t": "tab", BLANKS: "blanks"}
_SIGNS = ("#", "%")  # of lines that are comments
_NUM_LINES, _NUM_CELLS = 1_000, 2_000  # that are looked at
_CONSISTENT = 0.5  # of the lines must have as many cells as the others


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How the text is to be read.

    Attributes:
      encoding: in Python's words.
      sep: what separates cells; `BLANKS` for runs of blanks.
      quote: what stands around cells, and whether a backslash goes before it inside.
      escape: whether a backslash goes before it inside.
      decimal: point or comma.
      skip: lines before the first row.
      names: of all columns, each once; as many as the rows have cells.
      is_named: whether a line names them.
      index: the columns that only count or name the rows.
      hollow: columns that are neither named nor filled: a separator ends every line.
      comment: lines among the rows that start so are left out.
      missing: words that stand for no value, by column, as far as the lines show.
      padded: whether cells start with a zero before another digit, or x.
      blanks: lines of these signs only are blank.
      tail: lines of these signs only are left out at the end.
      loose: whether blanks stand between a separator and the quote of the next cell.
      bytes_a_row: on average.
      notes: what was guessed, one line each, with the option that overrides it.
    """

    encoding: str = "utf-8"
    sep: str = ","
    quote: str = '"'
    escape: bool = False
    decimal: str = "."
    skip: int = 0
    names: tuple[str, ...] = ()
    is_named: bool = True
    index: tuple[str, ...] = ()
    hollow: tuple[str, ...] = ()
    comment: str | None = None
    missing: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    padded: bool = False
    blanks: str = ""
    tail: str = ""
    loose: bool = False
    bytes_a_row: float = 0
    notes: tuple[str, ...] = ()


def sniff(
    sample: bytes,
    *,
    complete: bool = True,
    name: str = "the text",
    tabs: bool = False,
    sep: str | None = None,
    decimal: str | None = None,
    header_line: int | str | None = None,
    encoding: str | None = None,
) -> Dialect:
    """Finds out how a text holds a table.

    Args:
      sample: its first bytes.
      complete: whether that is all.
      name: what messages call the file.
      tabs: whether tabs are expected.
      sep: what separates cells: one character, or "tab", "space", ...
      decimal: "." or ",".
      header_line: number of the line (from 1) that names the columns, or "none".
      encoding: in Python's words.

    Raises:
      InputError: for a text without rows, what is no text, and bad options.
    """
    sep, header_line = _separator(sep, decimal), _header_line(header_line)
    if decimal not in (None, ".", ","):
        raise InputError(f"--decimal must be '.' or ',', got {decimal!r}.")
    encoding, text, notes = decoded(sample, complete, encoding, name)
    lines = re.split(r"\r\n|\n|\r", text)
    if len(lines) > 1 and (not complete or not lines[-1]):
        lines.pop()
    lines = lines[:_NUM_LINES]
    refuse_formats(text, name)
    spoken = re.match(r"\s*sep=(.)$", lines[0])  # Excel's first line
    if spoken:
        sep = sep or _separator(spoken[1], decimal)
        lines[0] = ""
    first, sign, comment = _comments(lines)
    quote = _quote_of(lines[first:])
    escape = r"\"" in text and '""' not in text
    body = [
        "" if i < first or (comment and line.lstrip().startswith(comment)) else line
        for i, line in enumerate(lines)
    ]
    if not any(line.strip() for line in body):
        raise InputError(
            f"{name} must hold rows; it has only blank lines and comments."
        )
    guessed = sep is None
    sep = sep or _guess_separator(body, quote, escape, tabs)
    records = split(body, sep, quote, escape=escape)
    width = collections.Counter(len(r.cells) for r in records).most_common(1)[0][0]
    if sep == "," and header_line is None:
        refuse_split(records, name)
    if comment is None and sign is None:
        comment = _stray_comments(records, width, body)
        records = [r for r in records if not (comment and r.first.startswith(comment))]
    if guessed and sep != ("\t" if tabs else ",") and width > 1:
        notes.append(f"separator {shown(sep)} (--sep)")
    if quote != '"':
        notes.append(f"the quote is {quote}")
    if decimal is None:
        inner = [c.strip() for r in records for c in r.cells]
        decimal = cells.decimal_of(inner, sep)
        if decimal == ",":
            notes.append("decimal comma (--decimal)")
    comments = [i + 1 for i, line in enumerate(lines[:first]) if line.strip()]
    top = header.find(
        records, width, decimal, name=name, line=header_line, lines=lines, comments=comments,
        quote=quote,
        cut=lambda line: split([_bare(line)], sep, quote, escape=escape)[0].cells,
    )  # fmt: skip
    if len(comments) > top.commented:
        said = header.counted(comments[top.commented :])
        notes.append(f"{said} of comments at the top left out (--header)")
    if comment:
        notes.append(f"lines that start with {comment} are comments and left out")
    if width == 1 and "" in body[records[0].line : records[-1].line]:
        notes.append("blank lines are left out")
    return Dialect(
        encoding=encoding,
        sep=sep,
        quote=quote,
        escape=escape,
        decimal=decimal,
        skip=max(top.skip, spoken is not None),
        names=top.names,
        is_named=top.is_named,
        index=top.index,
        hollow=top.hollow,
        comment=comment,
        missing=_missing(records, top),
        loose=_is_loose(body, sep, quote),
        bytes_a_row=sum(len(line) + 1 for line in body) / max(len(records) - 1, 1),
        notes=(*notes, *top.notes),
    )


def shown(sep: str) -> str:
    """A separator in a message."""
    return _SHOWN.get(sep, f"'{sep}'")


def split(lines: Sequence[str], sep: str, quote: str, *, escape: bool) -> list[Record]:
    """The records of lines, without blank ones."""
    if sep == BLANKS:
        lines = [" ".join(line.split()) for line in lines]
    else:
        lines = [loose_blanks(sep, quote).sub("", line) for line in lines]
    reader = csv.reader(
        (line + "\n" for line in lines),
        delimiter=" " if sep == BLANKS else sep,
        quotechar=quote,
        escapechar="\\" if escape else None,
        skipinitialspace=True,
    )
    records = []
    try:
        for found in reader:
            if (found and any(cell.strip() for cell in found)) or len(found) > 1:
                records.append(Record(reader.line_num, tuple(found)))
    except csv.Error:  # a cell without end
        pass
    return records or [Record(1, tuple(lines[:1]))]


def _missing(records: Sequence[Record], top: header.Top) -> dict[str, list[str]]:
    """Words that stand for no value, by column."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.line > top.skip:
            for name, cell in zip(top.names, record.cells, strict=False):
                word = cell.strip()
                if word and word in cells.MISSING and word not in found.get(name, ()):
                    found.setdefault(name, []).append(word)
    return found


def _bare(line: str) -> str:
    """A line without the sign of a comment."""
    line = line.strip(" ")
    sign = line[:1] if line[:1] in _SIGNS else ""
    return (line.lstrip(sign) if sign else line).strip(" ") or sign


def _separator(sep: str | None, decimal: str | None) -> str | None:
    if sep is None:
        return None
    if sep == decimal:
        raise InputError(
            f"--sep and --decimal must differ; got {printable(sep)!r} twice."
        )
    sep = _SPOKEN.get(sep.lower(), sep)
    if sep != BLANKS and (len(sep) != 1 or sep in "\r\n\"'" or sep.isalnum()):
        raise InputError(
            f"--sep must be one character, tab or space, got {printable(sep)!r}."
        )
    return sep


def _header_line(line: int | str | None) -> int | None:
    """0 for none; 1 may also be said as "first"."""
    spoken = {"none": 0, "no": 0, "false": 0, "first": 1, "yes": 1, "true": 1}
    text = str(line).lower()
    if line is None or text == "auto":
        return None
    if text in spoken:
        return spoken[text]
    if not text.isdigit() or not int(text):
        raise InputError(
            "--header must be none, or the number of the line, counted from 1, that names"
            f" the columns, got {printable(line)!r}."
        )
    return int(text)


def _comments(lines: Sequence[str]) -> tuple[int, str | None, str | None]:
    """The first line that is none, their sign, and it again where they go on below."""
    filled = [line.lstrip() for line in lines]
    sign = next((line[0] for line in filled if line), "")
    if sign not in _SIGNS or all(line.startswith(sign) for line in filled if line):
        return 0, None, None
    first = next(i for i, line in enumerate(filled) if line and line[0] != sign)
    below = any(line.startswith(sign) for line in filled[first:])
    return first, sign, sign if below else None


def _stray_comments(
    records: Sequence[Record], width: int, lines: Sequence[str]
) -> str | None:
    """The sign of comments among the rows: lines that would be rows of another width."""
    for sign in _SIGNS:
        marked = [r for r in records if lines[r.line - 1].lstrip().startswith(sign)]
        if marked and all(len(r.cells) != width for r in marked):
            return sign
    return None


def _quote_of(lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    if '"' in text:
        return '"'
    quoted = re.findall(r"(?m)(?:^|[,;\t| ])'[^'\n]*'(?=[,;\t| ]|$)", text)
    return "'" if len(quoted) >= len(lines) / 2 else '"'


def _is_loose(lines: Sequence[str], sep: str, quote: str) -> bool:
    filled = [line for line in lines if line.strip()]
    between = loose_blanks(sep, quote)
    return sep != BLANKS and 2 * sum(map(bool, map(between.search, filled))) >= len(
        filled
    )


def _guess_separator(lines, quote, escape, tabs) -> str:
    """The one that cuts most lines into as many cells, most of them numbers."""
    found = {
        sep: _score(split(lines, sep, quote, escape=escape), sep)
        for sep in (*_SEPARATORS, BLANKS)
    }
    if tabs and found["\t"] > 0:
        return "\t"
    best = max(_SEPARATORS, key=found.__getitem__)
    filled = [line for line in lines if line.strip()]
    alone = [cells.kind(line) != "word" for line in filled][1:]
    # Blanks stand in dates and in words too: a line must be more when it is cut.
    least = max(found[best], 0.5 + sum(alone) / max(len(alone), 1)) + 0.05
    tabbed = found["\t"] and sum("\t" in line for line in filled) > 0.9 * len(filled)
    if found[BLANKS] >= least and not tabbed:
        return BLANKS
    return ";" if best == "," and _is_one_column(filled) else best


def _is_one_column(lines: Sequence[str]) -> bool:
    """A name without a comma above numbers with a decimal comma."""
    rows = [line.strip(' "') for line in lines[1:]]
    numbers = [row for row in rows if cells.kind(row, ",") != "missing"]
    whole = [row.partition(",")[0].strip() for row in numbers]
    counts = (
        whole == [str(int(whole[0]) + i) for i in range(len(whole))]
        if (numbers and cells.is_integer(whole[0]))
        else True
    )  # rows that are numbered, under a header of R
    return (
        "," not in lines[0]
        and not counts
        and all(cells.is_number(row, ",") for row in numbers)
    )


def _score(records: Sequence[Record], sep: str) -> float:
    """0 where few lines have as many cells as the others, or one."""
    counts = collections.Counter(len(r.cells) for r in records)
    width, most = max(counts.items(), key=lambda item: (item[1], item[0]))
    share = most / len(records)
    if width < 2 or share < _CONSISTENT:
        return 0.0
    rows = [r for r in records if len(r.cells) == width]
    inner = [c for r in (rows[1:] or rows) for c in r.cells]
    inner = inner[:: len(inner) // _NUM_CELLS + 1]
    words = [c for c in inner if all(cells.kind(c, p) == "word" for p in ".,")]
    others = set(_SEPARATORS) - {sep}
    uncut = sum(bool(others & set(word)) for word in words)
    return share * (1.5 - (len(words) + 0.5 * uncut) / len(inner))
