"""From bytes to lines of text: the encoding, and what is no part of the table."""

import codecs
import io
import re
from typing import Any

from trainers.tables.checks import InputError, printable


def decoded(sample: bytes, complete: bool, encoding: str | None, name: str):  # noqa: FBT001
    """The encoding, the text, and a list of notes on it."""
    if encoding is not None:
        try:
            codec = codecs.lookup(encoding)
            text = codec.incrementaldecoder("strict").decode(sample, complete)
        except LookupError:
            raise InputError(
                f"--encoding must be one that Python knows, such as utf-8 or latin-1, got"
                f" {encoding!r}."
            ) from None
        except UnicodeError as error:
            raise InputError(
                f"{name} is not in the --encoding {encoding}: {printable(error)}."
            ) from None
        return codec.name, text.removeprefix("\ufeff"), []
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
    return "utf-8" if plain else codec, text, notes


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
    """

    def __init__(self, comment: str | None, *, blanks: bool):
        sign = re.escape((comment or "").encode())
        self._comment = re.compile(rb"(?m)^[ \t]*" + sign + rb".*$") if sign else None
        self._blanks = blanks
        self._rest = b""

    def __call__(self, chunk: Any) -> bytes:
        """The lines that are whole by now; an empty chunk is the end of the text."""
        data = self._rest + bytes(chunk)
        end = data.rfind(b"\n") + 1 if len(chunk) else len(data)
        data, self._rest = data[:end], data[end:]
        if self._comment:
            data = self._comment.sub(b"", data)
        if self._blanks:
            data = re.sub(rb"(?m)^[ \t]+|[ \t]+(?=\r?$)", b"", data)
            data = re.sub(rb"[ \t]+", b" ", data)
        return data


def line_of(stream: Any, text: str) -> str:
    """The first line that is this text, in words."""
    wanted = text.rstrip("\r\n")
    with stream, io.TextIOWrapper(stream, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.rstrip("\r\n") == wanted:
                return f"line {number:,}"
    return "a line"
