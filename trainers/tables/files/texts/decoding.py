"""From bytes to lines of text: the encoding, and what is no part of the table."""

import codecs
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from trainers.tables.checks import InputError, printable

BLANKS = "blanks"  # the separator that is any run of blanks
_CHUNK_BYTES = 2**20
_LARGE_BLOCK_BYTES = 2**28  # pyarrow reads, where a row does not fit in its own


def decoded(sample: bytes, complete: bool, encoding: str | None, name: str):  # noqa: FBT001
    """The encoding, the text, and a list of notes on it."""
    if encoding is not None:
        try:
            " ".encode(encoding)  # a LookupError also for zip, hex, rot13
            codec = codecs.lookup(encoding)
            text = codec.incrementaldecoder("strict").decode(sample, complete)
        except LookupError:
            raise InputError(
                f"--encoding must be one of text that Python knows, such as utf-8 or"
                f" latin-1, got {encoding!r}."
            ) from None
        except UnicodeError as error:
            raise InputError(
                f"{name} is not in the --encoding {encoding}: {printable(error)}."
            ) from None
        return codec.name, text.lstrip("\ufeff"), []
    marks = {
        codecs.BOM_UTF8: "utf-8-sig",
        codecs.BOM_UTF32_LE: "utf-32",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    codec = next((c for mark, c in marks.items() if sample.startswith(mark)), None)
    codec = codec or _without_mark(sample, complete, name)
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample, complete)
    except UnicodeError:
        raise InputError(
            f"{name} is not in {codec}, as its first bytes say. Name the --encoding."
        ) from None
    said = {"cp1252": "Latin-1 (cp1252), as it is not UTF-8", "latin-1": "Latin-1"}
    plain = codec in ("utf-8", "utf-8-sig")
    notes = [] if plain else [f"encoding {said.get(codec, codec)} (--encoding)"]
    return "utf-8" if plain else codec, text.lstrip("\ufeff"), notes


def _without_mark(sample: bytes, complete: bool, name: str) -> str:  # noqa: FBT001
    if b"\0" in sample:
        even, odd = sample[0::2].count(0), sample[1::2].count(0)
        if max(even, odd) > 0.2 * len(sample) > 4 * min(even, odd):
            return "utf-16-le" if odd > even else "utf-16-be"
        raise InputError(
            f"{name} must be text; it holds zero bytes. Convert it to .csv."
        )
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, complete)
    except UnicodeDecodeError:
        return single_byte(sample)
    return "utf-8"


def single_byte(sample: bytes) -> str:
    """The encoding of western texts that are not UTF-8."""
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


class Lines:
    """A filter of bytes, for `pyarrow.TransformInputStream`.

    Args:
      comment: lines that start so become blank, which leaves the numbers of the others.
      blanks: runs of blanks become one.
      hollow: lines that hold only these become blank too.
      loose: a separator and a quote, between which blanks are left out.
      tail: what follows the last line that holds more than these is left out.
    """

    def __init__(
        self,
        comment: str | None,
        *,
        blanks: bool,
        hollow: str = "",
        loose: str = "",
        tail: str = "",
    ):
        sign = re.escape((comment or "").encode())
        self._comment = re.compile(rb"(?m)^[ \t]*" + sign + rb".*$") if sign else None
        self._blanks = blanks
        signs = hollow.encode()
        self._hollow = re.compile(rb"(?m)^[%b]+(?=\r?$)" % signs) if signs else None
        between = loose_blanks(*loose).pattern.encode() if loose else b""
        self._loose = re.compile(between) if loose else None
        self._tail = tail.encode()
        self._rest = b""

    def __call__(self, chunk: Any) -> bytes:
        """The lines that are whole by now; an empty chunk is the end of the text."""
        data = self._rest + bytes(chunk)
        end = data.rfind(b"\n") + 1 if len(chunk) else len(data)
        if self._tail:
            filled = len(data.rstrip(self._tail))
            last = end if not len(chunk) else data.rfind(b"\n", 0, filled) + 1
            end = (data.find(b"\n", filled) + 1 or last) if filled else 0
        data, self._rest = data[:end], data[end:]
        if self._comment:
            data = self._comment.sub(b"", data)
        if self._hollow:
            data = self._hollow.sub(b"", data)
        if self._loose:
            data = self._loose.sub(b"", data)
        if self._blanks:
            data = re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", data)
            data = re.sub(rb"[ \t]+", b" ", data)
        return data


def loose_blanks(sep: str, quote: str) -> re.Pattern[str]:
    """Blanks between a separator and the quote that opens a cell; not one that is doubled."""
    sep, quote = re.escape(sep), re.escape(quote)
    opens = f"{quote}(?!{quote})|{quote}{quote}[ \\t]*(?:{sep}|\\r?$)"
    return re.compile(f"(?m)(?<={sep})[ \\t]+(?={opens})")


def unreadable(
    error: Exception, name: str, encoding: str, stream: Callable[[], Any]
) -> InputError:
    """What pyarrow could not read, in a line."""
    text = str(error)
    if "Expected" in text and "columns, got" in text:
        wanted, _, rest = text.partition("Expected ")[2].partition(" columns, got ")
        got, _, row = rest.partition(": ")
        line = _line_of(stream(), row)
        return InputError(
            f"{name} must have {wanted} cells in every line, as most have; {line} has"
            f" {got}: {printable(row, 60)!r}. Mend it, or set --sep or --header."
        )
    if isinstance(error, UnicodeError) or "decode" in text or "UTF8" in text:
        return InputError(
            f"{name} is not in {encoding} throughout:"
            f" {printable(text)}. Name another --encoding."
        )
    if "Could not skip initial" in text:  # the header, without the end of its line
        return InputError(f"{name} must hold rows; it has no line below its header.")
    return InputError(
        f"{name} cannot be read as a table: {printable(text)}. Check --sep and"
        " --header, or write the file again."
    )


def another_way(error: Exception, options: dict[str, Any]) -> dict[str, Any]:
    """Options for another try, or none."""
    text = str(error)
    if "straddling" in text and options.get("block") != _LARGE_BLOCK_BYTES:
        return options | {"block": _LARGE_BLOCK_BYTES}
    out_of_step = "chunker" in text or "Expected" in text
    if out_of_step and not options.get("quoted_lines"):
        return options | {"quoted_lines": True}
    return {}


def cells_at(
    look: Any, stream: Any, rows: Mapping[str, int]
) -> dict[str, tuple[int, str]]:
    """The line and the text of one cell of some columns, each in a row (from 0) of its own."""
    found, last = {}, max(rows.values(), default=-1)
    with stream, io.TextIOWrapper(stream, "utf-8", "replace", newline="") as lines:
        reader = csv.reader(
            itertools.islice(lines, look.skip, None),
            delimiter=" " if look.sep == BLANKS else look.sep,
            quotechar=look.quote,
            escapechar="\\" if look.escape else None,
        )
        records = (r for r in reader if len(r) > 1 or (r and r[0].strip()))
        for row, record in enumerate(itertools.islice(records, last + 1)):
            for name in (n for n, wanted in rows.items() if wanted == row):
                cell = record[look.names.index(name)].strip()
                found[name] = look.skip + reader.line_num, cell
    return found


def _line_of(stream: Any, text: str) -> str:
    """The first line that is this text, in words."""
    wanted = text.rstrip("\r\n")
    with stream, io.TextIOWrapper(stream, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.rstrip("\r\n") == wanted:
                return f"line {number:,}"
    return "a line"


def looked_over(look: Any, stream: Callable[[], Any], name: str) -> Any:
    """The dialect with what only all of the text shows: blank lines, zeros, and quotes.

    Raises:
      InputError: a cell in quotes that never ends, ends where no other begins, or goes
        on behind its end; zero bytes.
    """
    blanks = " " if look.sep == "\t" else " \t"
    marks = _marks(stream(), look, blanks, name)
    if marks.hollow:
        said = f"{_lines(marks.hollow)} of blanks left out"
        look = dataclasses.replace(look, blanks=blanks, notes=(*look.notes, said))
    if marks.tail:
        said = f"{_lines(marks.tail)} of empty cells at the end left out"
        tail = f"{look.sep}{blanks}\r\n"
        look = dataclasses.replace(look, tail=tail, notes=(*look.notes, said))
    look = dataclasses.replace(look, padded=marks.padded)
    if marks.quoted:
        with io.TextIOWrapper(stream(), "utf-8", "replace") as lines:
            notes = (*look.notes, *_check_quotes(lines, look, name))
        look = dataclasses.replace(look, notes=notes)
    return look


class _Marks(NamedTuple):
    """Whether a text has quotes and cells that start with 0, and its lines without cells."""

    quoted: bool
    padded: bool
    hollow: int
    tail: int


def _marks(stream: Any, look: Any, blanks: str, name: str) -> _Marks:
    """What is found in all of a text; `blanks` are the signs of a blank line."""
    hollow = re.compile(rb"\n[%b]+(?=\r?\n)" % blanks.encode())
    sep = b"" if look.sep == BLANKS else look.sep.encode()
    signs = sep + blanks.encode() + b"\r\n"
    before = {look.quote.encode(), sep or b"\t", b" ", b"\n", b"\r"}
    # One search each, by its first byte, is faster than one for all.
    zeros = [re.compile(re.escape(sign) + b"[+-]?0[0-9xX]") for sign in before]
    quoted = padded = False
    count, line, rest, tail = 0, 1, b"\n", b""
    with stream:
        while chunk := stream.read(_CHUNK_BYTES):
            if b"\0" in chunk:
                line += chunk[: chunk.index(b"\0")].count(b"\n")
                raise InputError(
                    f"{name} must be text; it holds a zero byte in line {line:,}. Leave it"
                    " out, or name another --encoding."
                )
            data, ending = rest + chunk, tail + chunk
            line += chunk.count(b"\n")
            quoted = quoted or look.quote.encode() in chunk
            padded = padded or any(zero.search(data) for zero in zeros)
            rest = data[data.rfind(b"\n") :]
            tail = ending[len(ending.rstrip(signs)) :]
            count += len(hollow.findall(data))
    count += len(hollow.findall(rest + b"\n"))
    below = tail.partition(b"\n")[2].split(b"\n") if sep else []
    return _Marks(quoted, padded, count, sum(sep in line for line in below))


def _lines(count: int) -> str:
    return f"{count:,} line{'s' * (count != 1)}"


def _check_quotes(lines: Iterable[str], look: Any, name: str) -> list[str]:
    """Notes on cells over several lines that look like rows."""
    quote, width = look.quote, len(look.names)
    sep = " " if look.sep == BLANKS else look.sep
    mark = sep + quote
    inner, bare = f"(?:[^{quote}]|{quote}{quote})*+", f"[^{re.escape(sep)}]*+"
    cell = f"(?:{quote}{inner}{quote}{bare}|(?!{quote}){bare})"
    opens = re.compile(f"(?:{cell}{re.escape(sep)})*+{quote}{inner}$")
    closes = re.compile(f"({inner}){quote}(.*)$")
    # Text behind a quote that has closed, "1"2: first what is seen at once.
    other = f"[^{re.escape(sep)}{quote}"
    within = re.compile(f"{quote}(?={other}\\s])(?<={other}]{quote})")
    blank = "" if sep == " " else " *+"
    strict = f"(?:{quote}{inner}{quote}{blank}|(?!{quote}){bare})"
    whole = re.compile(f"(?:{strict}{re.escape(sep)})*+(?:{strict}|{quote}{inner})$")
    notes, first, seps, start = [], 0, 0, ""
    for number, line in enumerate(lines, 1):
        line = line.replace(f"\\{quote}", "") if look.escape else line
        odd, text = line.count(quote) % 2, line.rstrip("\r\n")
        if not first and (odd or within.search(line)) and not whole.match(text):
            raise InputError(
                f"{name} must have a separator behind every quote {quote} that closes; line"
                f" {number:,}, {printable(text, 60)!r}, has not. Mend the line."
            )
        if not first and not (odd or line.rpartition(mark)[2].count(quote) % 2 == 0):
            continue  # as nearly all lines
        if first:
            end = closes.match(text)
            seps += (end[1] if end else text).count(sep)
            if not end:
                continue
            if not f"{end[2].strip(' ')}{sep}".startswith(sep):
                raise _unclosed(
                    name, quote, first, start, f"the next is in line {number:,}"
                )
            if width > 1 and seps >= (width - 1) * (number - first):
                notes.append(
                    f"the quote {quote} in line {first:,} closes in line {number:,}: what is"
                    " between is one cell, though it looks like rows"
                )
            first, text = 0, f"{quote}{quote}{end[2]}"
        if quote in text and opens.match(text):
            first, seps, start = number, 0, text
    if first:
        raise _unclosed(name, quote, first, start, "none follows")
    return notes


def _unclosed(name: str, quote: str, line: int, text: str, why: str) -> InputError:
    return InputError(
        f"{name} must close every quote {quote}; that of line {line:,},"
        f" {printable(text, 60)!r}, does not close: {why}. Mend the line."
    )
