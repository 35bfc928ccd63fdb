"""Dates in text: the formats that are read, and text in the format that was read.

A format is in the words of strptime. That of a column also says how its cells are written:
%-d is a day without a leading zero, %e one with a blank in its place.
"""

import datetime
import functools
import re
from typing import Any

from trainers.tables.arrow import import_pyarrow

_FEW = 20  # words that show soon that a format does not fit
_DATES = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y-%m-%d", "%Y/%m/%d",
    "%Y.%m.%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d %b %Y", "%d-%b-%y",
    "%d %b %y",
)  # fmt: skip
_CLOCKS = ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
_FORMATS = (
    *(
        f"{date}{clock}"
        for date in _DATES
        for clock in ("", *(f" {c}" for c in _CLOCKS))
    ),
    *(f"{date}T%H:%M:%S" for date in _DATES),
    *(f"{clock} {date}" for date in _DATES for clock in _CLOCKS),
)
_SPOKEN = {"%d": "day", "%m": "month", "%b": "month", "%Y": "year", "%y": "year"}
_PATTERNS = {
    ".": r"\.", " ": " +", "%b": "(?P<b>[A-Za-z]{3})", "%Y": r"(?P<Y>\d{4})",
    "%y": r"(?P<y>\d{2})", "%M": r"\d{2}", "%S": r"\d{2}", "%p": "[AaPp][Mm]",
    **{f"%{sign}": rf"(?P<{sign}>\d{{1,2}})" for sign in "dmHI"},
}  # fmt: skip
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d(:\d\d(?:\.\d+)?)?(Z?)")
_USUAL = (" ", True, "")  # as instants are written anyway
_BARE = "~"  # before what loses its leading zero


def found(words: Any) -> dict[str, Any]:
    """The formats that fit all words, and what they give; alike ones once."""
    few = words[:_FEW].to_pylist()
    result: dict[str, Any] = {}
    for form in _FORMATS:
        look = re.compile(_pattern(form))
        if not all(map(look.match, few)):
            continue
        dates = parsed(words, form)
        if not dates.null_count and not any(map(dates.equals, result.values())):
            result[form] = dates
    return result


def parsed(words: Any, form: str) -> Any:
    """By strptime, null for what does not fit; 31/02 is no third of March."""
    arrow = import_pyarrow()
    pc = arrow.compute
    form = _plain(form)
    parts = _fields(words, form)
    dates = pc.strptime(words, format=form, unit="s", error_is_null=True)
    day = pc.struct_field(parts, "d").cast(arrow.int64())
    right = pc.equal(day, pc.day(dates))
    dates = pc.if_else(right, dates, arrow.scalar(None, dates.type))
    return dates if has_time(form) else dates.cast(arrow.date32())


def as_written(words: Any, form: str) -> str:
    """The format with the leading zeros and blanks that the words, which fit it, have."""
    pc = import_pyarrow().compute
    parts = _fields(words, form)
    signs = [sign for sign in "dmHI" if f"%{sign}" in form]
    cells = {sign: pc.struct_field(parts, sign) for sign in signs}
    short = {s for s in signs if pc.any(pc.equal(pc.utf8_length(cells[s]), 1)).as_py()}
    zeros = {s for s in signs if pc.any(pc.starts_with(cells[s], "0")).as_py()}
    blank = pc.any(pc.match_substring(words, "  ")).as_py()
    for sign in signs:
        # Where no value is below ten, it is as the others are.
        if sign in short or (short and sign not in zeros):
            other = "%e" if sign == "d" and blank else f"%-{sign}"
            form = form.replace(f"%{sign}", other)
    return form


def iso_as_written(words: Any) -> str:
    """The format of instants in ISO 8601; "" for the usual one, or where they differ."""
    looks = set()
    for word in words.drop_null().to_pylist():
        match = _ISO.fullmatch(word)
        looks.add(match and (match[1], bool(match[2]), match[3]))
    look = looks.pop() if len(looks) == 1 else None
    if look in (None, _USUAL):
        return ""
    between, seconds, zone = look
    return f"%Y-%m-%d{between}%H:%M{':%S' if seconds else ''}{zone}"


def written(dates: Any, form: str) -> Any:
    """Dates or instants of pyarrow as text in a format."""
    arrow = import_pyarrow()
    pc = arrow.compute
    if arrow.types.is_date(dates.type):
        dates = dates.cast(arrow.timestamp("s"))
    text = pc.strftime(dates, format=form.replace("%-", f"{_BARE}%"))
    return pc.replace_substring_regex(text, f"{_BARE}0?", "") if "%-" in form else text


def instant(word: str, form: str) -> datetime.date | None:
    """One date or instant in a format, or None for another text."""
    return parsed(import_pyarrow().array([word]), form)[0].as_py()


def has_time(form: str) -> bool:
    """Whether a format tells the time of the day."""
    return "%M" in form


def is_year_first(form: str) -> bool:
    """Whether a format can be taken for no other."""
    return form.startswith("%Y")


def spoken(form: str) -> str:
    """%d/%m/%Y as day/month/year."""
    date = re.sub(r"[T ]?%H.*|[T ]?%I.*", "", _plain(form)) or _plain(form)
    date = re.sub(r"(?:%[HIMSp][: ]?)+", "", date)
    for sign, word in _SPOKEN.items():
        date = date.replace(sign, word)
    return date


def _plain(form: str) -> str:
    return form.replace("%-", "%").replace("%e", "%d")


def _fields(words: Any, form: str) -> Any:
    return import_pyarrow().compute.extract_regex(words, _pattern(form))


@functools.cache
def _pattern(form: str) -> str:
    inner = re.sub(
        r"%\w|[. ]", lambda sign: _PATTERNS.get(sign[0], sign[0]), _plain(form)
    )
    return f"^{inner}$"
