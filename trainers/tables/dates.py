"""Dates in text: the formats that are read, and text in the format that was read.

A format is in the words of strptime. That of a column also says how its cells are written:
%-d is a day without a leading zero, %e one with a blank in its place.
"""

import datetime
import functools
import re
from collections.abc import Sequence
from typing import Any

from trainers.tables.arrow import import_pyarrow

COMPACT = "%Y%m%d"  # whole numbers, which are dates where the user says so
ISO = "%Y-%m-%d"
_SOME = 1_000  # words among which one that is no date is looked for
_FEW = 20  # words that show soon that a format does not fit
_DATES = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y-%m-%d", "%Y/%m/%d",
    "%Y.%m.%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d %b %Y", "%d-%b-%y",
    "%d %b %y", "%d-%m-%y", "%m-%d-%y", "%y/%m/%d", "%y-%m-%d", "%y.%m.%d",
)  # fmt: skip
_CLOCKS = ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
FORMATS = (
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
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d(:\d\d(?:\.\d+)?)?(Z?|[+-]\d\d(?::?\d\d)?)"
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?$")
_USUAL = "%Y-%m-%d %H:%M:%S", "%H:%M:%S"  # as instants and clocks are written anyway
_BARE = "~"  # before what loses its leading zero


def found(words: Any) -> dict[str, Any]:
    """The formats that fit all words, and what they give; alike ones once."""
    few = words[:_FEW].to_pylist()
    result: dict[str, Any] = {}
    for form in FORMATS:
        look = re.compile(_pattern(form))
        if not all(map(look.match, few)):
            continue
        dates = parsed(words, form)
        if not dates.null_count and not any(map(dates.equals, result.values())):
            result[form] = dates
    return _likely(words, result)


def _likely(words: Any, forms: dict[str, Any]) -> dict[str, Any]:
    """Without %y/%m/%d where the first parts differ as much as the last: those are days."""
    pc = import_pyarrow().compute
    for form in [f for f in forms if "%y/%m/%d" in re.sub("[-.]", "/", f)]:
        if len(forms) > 1:
            parts = _fields(words, form)
            first, last = (len(pc.unique(pc.struct_field(parts, s))) for s in "yd")
            if first >= last:
                forms = {f: dates for f, dates in forms.items() if f != form}
    return forms


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


def iso_as_written(words: Any) -> tuple[str, list[str]]:
    """The format of instants in ISO 8601, "" for the usual one, and their offsets."""
    found = [_ISO.fullmatch(word) for word in words.drop_null().to_pylist()]
    if not all(found):
        return "", []
    shapes = {(m[1], bool(m[2])) for m in found if m}
    zones = sorted({m[3] for m in found if m})
    between, seconds = shapes.pop() if len(shapes) == 1 else (" ", True)
    zone = zones[0] if len(zones) == 1 else "Z"
    return _unusual(f"%Y-%m-%d{between}%H:%M{':%S' * seconds}{zone}"), zones


def clock_as_written(words: Any) -> str:
    """The format of times of the day; "" for the usual one."""
    cells = words.drop_null().to_pylist()
    seconds = any(cell.count(":") == 2 for cell in cells)
    short = any(cell[1] == ":" for cell in cells)
    return _unusual(f"%{'-' * short}H:%M{':%S' * seconds}")


def are_compact(numbers: Any) -> bool:
    """Whether whole numbers look like dates written as 20200131."""
    pc = import_pyarrow().compute
    span = pc.min_max(numbers).as_py()
    if span["min"] is None or not 19000101 <= span["min"] < span["max"] <= 21001231:
        return False
    words = pc.unique(numbers.drop_null()).cast(import_pyarrow().string())
    return not parsed(words, COMPACT).null_count


def written(dates: Any, form: str) -> Any:
    """Dates, instants or times of pyarrow as text in a format."""
    arrow = import_pyarrow()
    pc = arrow.compute
    if arrow.types.is_date(dates.type):
        dates = dates.cast(arrow.timestamp("s"))
    elif arrow.types.is_time(dates.type):
        whole = arrow.int32() if arrow.types.is_time32(dates.type) else arrow.int64()
        instants = arrow.timestamp(dates.type.unit)
        dates = dates.cast(whole).cast(arrow.int64()).cast(instants)
    if offset := _OFFSET.search(form):
        minutes = int(f"{offset[1]}1") * (60 * int(offset[2]) + int(offset[3] or 0))
        shift = datetime.timedelta(minutes=minutes)
        dates = pc.add(dates, arrow.scalar(shift, arrow.duration("s")))
    text = pc.strftime(dates, format=form.replace("%-", f"{_BARE}%"))
    return pc.replace_substring_regex(text, f"{_BARE}0?", "") if "%-" in form else text


def instant(word: str, form: str) -> datetime.date | None:
    """One date or instant in a format, or None for another text."""
    return parsed(import_pyarrow().array([word]), form)[0].as_py()


def misfit(words: Sequence[str]) -> str | None:
    """The first word that is no date in the format of most; None for a date each."""
    arrow = import_pyarrow()
    cells = arrow.array(list(dict.fromkeys(words))[:_SOME])
    read = min((parsed(cells, form) for form in FORMATS), key=lambda d: d.null_count)
    return (
        cells[read.is_null().index(True).as_py()].as_py() if read.null_count else None
    )


def has_time(form: str) -> bool:
    """Whether a format tells the time of the day."""
    return "%M" in form


def is_unmistakable(form: str) -> bool:
    """Whether cells in a format can be taken for no other: they need not be known."""
    if form == COMPACT:
        return False
    return form.startswith("%Y") or not re.search("%-?[de]", form)


def spoken(form: str) -> str:
    """%d/%m/%Y as day/month/year."""
    if form == COMPACT:
        return "20200131"
    date = re.sub(r"[T ]?%H.*|[T ]?%I.*", "", _plain(form)) or _plain(form)
    date = re.sub(r"(?:%[HIMSp][: ]?)+", "", date)
    for sign, word in _SPOKEN.items():
        date = date.replace(sign, word)
    return date


def _unusual(form: str) -> str:
    return "" if form in _USUAL else form


def _plain(form: str) -> str:
    return form.replace("%-", "%").replace("%e", "%d")


def _fields(words: Any, form: str) -> Any:
    return import_pyarrow().compute.extract_regex(words, _pattern(form))


@functools.cache
def _pattern(form: str) -> str:
    if form == COMPACT:
        return r"^(?P<Y>\d{4})(?P<m>\d{2})(?P<d>\d{2})$"
    inner = re.sub(
        r"%\w|[. ]", lambda sign: _PATTERNS.get(sign[0], sign[0]), _plain(form)
    )
    return f"^{inner}$"
