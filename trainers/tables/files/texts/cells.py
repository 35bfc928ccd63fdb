"""What the text of a cell may be: a number, a date, nothing, or a word."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from trainers.tables.arrow import import_pyarrow, may_be_rounded
from trainers.tables.checks import printable, shown

# What pandas takes for missing, and what files of instruments and of UCI have. "none" is a
# level of too many columns to be among them.
MISSING = (
    *(
        "",
        "NA",
        "N/A",
        "n/a",
        "na",
        "NAN",
        "NaN",
        "nan",
        "-nan",
        "-NaN",
        "<NA>",
        "#N/A",
    ),
    *("#NA", "NaT", "null", "NULL", "Null", "None", "?", "-", "--", "."),
)
_MISSING = frozenset(MISSING)
WORDS = "words"  # in place of a format of dates: the column is left as words
OR = "|"  # between the words for true and false, in that place
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")

_DIGITS = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
NUMBER = rf"^[+-]?(?:{_DIGITS}|inf|Inf|INF|infinity|Infinity|INFINITY)$"
INTEGER = r"^[+-]?\d+$"
_BLANK = "[ \u00a0\u2009\u202f]"  # also those that do not break, and the thin ones
_GROUPING = {".": (",", "'", _BLANK), ",": (r"\.", "'", _BLANK)}  # by the decimal sign
GROUPS = {
    point: r"^[+-]?[1-9]\d{0,2}(?:"
    + "|".join(rf"(?:{sign}\d{{3}})+" for sign in signs)
    + rf")(?:[{point}]\d*)?$"
    for point, signs in _GROUPING.items()
}
# What stands for a sign or an exponent elsewhere, and what it becomes.
_MINUS = "^\u2212", "-"
_FORTRAN = r"^([+-]?\d*[.,]\d*)[dD]([+-]?\d+)$", r"\1E\2"
_LONGEST_NUMBER = 100  # characters; of a longer text the patterns would take long
_MOST_DIGITS = 1_000  # characters of a number that is one without them
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?"
_ANY_ZONE = r"(?:[Zz]|[A-Z]{3,4}|(?:GMT|UTC)?[+-]\d{1,2}:?(?:\d{2})?)"
_ZONE = r"(?:Z|[+-]\d{2}:?\d{2})?"
_DATE = (
    r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
    r"|\d{1,2}[- ][A-Za-z]{3}[- ]\d{2,4})"
)
_INSTANT = re.compile(rf"(?:{_DATE}(?:[T ]{_CLOCK}{_ZONE})?|{_CLOCK}(?: +{_DATE})?)$")
_NUMBER, _INTEGER = re.compile(NUMBER), re.compile(INTEGER)
_GROUPS = {point: re.compile(form) for point, form in GROUPS.items()}
# Surely a decimal comma (point): what follows is no group of three digits, or nothing
# stands before that a group could follow, or the other sign stands between groups.
_SURE = {
    point: re.compile(
        rf"[+-]?(?:\d*[{point}](?!\d{{3}}(?:$|[eE]))\d+|0?[{point}]\d+|\d{{4,}}[{point}]\d+"
        rf"|\d{{1,3}}(?:[{group}]\d{{3}})+[{point}]\d+|\d{{1,3}}(?:[{group}]\d{{3}}){{2,}})"
        r"(?:[eE][+-]?\d+)?$"
    )
    for point, group in ((".", ","), (",", "."))
}
# What is no number or date here, but was meant as one.
_LOOKED_AT, _FEW_LEVELS = 200, 20  # words; more that end alike have a unit
_FIGURE = r"[+\-\u2212]?[\d.,' \u00a0\u202f]*\d"
_NEGATIVE = re.compile(rf"(?:{_FIGURE}|\({_FIGURE}\))$")
_DRESSED = re.compile(
    rf"[+\-\u2212]?([^\W\d]{{0,3}}|[^\w\s()]?)\s?{_FIGURE}\s?([^\d\s()]{{0,4}})"
)
_MONEY = re.compile(r"[%\u2030$\u20ac\u00a3\u00a5\u20b9]|EUR|USD|GBP|CHF|JPY")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_WEEKDAY = r"[^\W\d_]{2,10}\.?,? +"
_NAMED = r"[^\W\d_]{3,10}\.?"  # a month in any language
_LIKE = (
    rf"{_MONTH} (?:\d{{1,2}},? )?\d{{4}}|(?:\d{{1,2}}\.? )?{_MONTH}[ -]\d{{2,4}}"
    rf"|\d{{1,2}}\.? {_NAMED} \d{{4}}|\d{{4}}[-/]\d{{2,3}}|\d{{4}}[- ]?[QW]\d{{1,2}}"
    rf"|\d{{8}}T\d{{4,6}}|{_DATE}"
)
_DATE_LIKE = re.compile(
    rf"(?:{_WEEKDAY})?(?:{_LIKE})(?:,?[Tt ] ?{_CLOCK}(?:,\d+)?)?(?: ?{_ANY_ZONE})?$"
    rf"|(?:{_WEEKDAY})?{_MONTH} +\d{{1,2}} {_CLOCK}(?: {_ANY_ZONE})? \d{{4}}$"
)
_TIME_LIKE = re.compile(
    r"-?(?:\d+ days?,? )?\d+:[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?$"
)
_AWARE = re.compile(r":\d\d(?:\.\d+)? ?(?:Z|[+-]\d\d:?(?:\d\d)?)$")
_HEXADECIMAL = re.compile(r"0[xX][0-9A-Fa-f]+$")
# <0.5, ($3), ='7', 12.3 N, 0.5 µg/m³, 1/3, 1.5±0.2, 1,00,000: no version 1.2.3
_ODD = re.compile(
    rf"(?!\d+\.\d+\.)(?:[^\w\s]{{0,3}}|[^\W\d_]{{1,2}}\$)\s?{_FIGURE}"
    rf"(?:[^\w\s.,]\s?{_FIGURE})?\D{{0,6}}$"
)
_EITHER = {point: re.compile(rf"[+-]?\d{{1,3}}[{point}]\d{{3}}$") for point in ".,"}


def kind(cell: str, decimal: str = ".") -> str:
    """Is it "missing", a "number", an "instant" (date, time, truth), or a "word"?"""
    cell = cell.strip()
    if cell in _MISSING:
        return "missing"
    if len(cell) <= _MOST_DIGITS and is_number(cell, decimal):
        return "number"
    if len(cell) > _LONGEST_NUMBER:
        return "word"
    if _INSTANT.match(cell) or cell in TRUE or cell in FALSE:
        return "instant"
    return "word"


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether it is a number, with or without groups of three digits."""
    if decimal == "." and _NUMBER.match(cell):
        return True  # as most
    for form, usual in (_MINUS, _FORTRAN):
        cell = re.sub(form, usual, cell)
    if _GROUPS[decimal].match(cell):
        return True
    if decimal == ",":
        if "." in cell:
            return False
        cell = cell.replace(",", ".")
    return bool(_NUMBER.match(cell))


def is_integer(cell: str) -> bool:
    """Whether digits are all it has, and not thousands of them."""
    cell = cell.strip()
    return len(cell) <= _LONGEST_NUMBER and bool(_INTEGER.match(cell))


def is_unit(cell: str) -> bool:
    """Whether a word may be one: km, °C, (m/s); not a number that is damaged."""
    word = cell.strip()
    return word.isprintable() and not re.match(r"[\d+.,;:'\"\u2212-]", word)


def decimal_of(cells: list[str], sep: str) -> str:
    """Point or comma, as the numbers among the cells have it; a point where none tells."""
    found = {p: sum(bool(_SURE[p].match(c)) for c in cells) for p in ".,"}
    if found["."] == found[","] == 0 and sep != ",":
        # 1,234 alone, where commas do not separate cells: a comma in most such files.
        found = {p: sum(bool(_EITHER[p].match(c)) for c in cells) for p in ".,"}
    return "," if found[","] > found["."] else "."


def notation(words: Any, kind: str, decimal: str) -> list[str]:
    """What is told of how words, which are all of a kind, write numbers."""
    pc = import_pyarrow().compute
    if kind not in ("integer", "number"):
        return []
    plain = _plain(words)
    held = plain.filter(pc.match_substring_regex(plain, GROUPS[decimal]))
    found = {
        f"'{sign.strip(chr(92))}'" if sign != _BLANK else "a blank": (held, sign)
        for sign in _GROUPING[decimal]
    }
    said = [
        f"{sign} groups the digits of numbers (--decimal)"
        for sign, (cells, form) in found.items()
        if pc.any(pc.match_substring_regex(cells, form)).as_py()
    ]
    for (form, _), name in ((_MINUS, "'\u2212' is read as minus"),
                            (_FORTRAN, "D is read as E, before exponents")):  # fmt: skip
        if pc.any(pc.match_substring_regex(words, form)).as_py():
            said.append(name)
    return said


def contradict(words: Any, others: list[str], decimal: str) -> bool:
    """Whether words have groups, and others are numbers by the other sign: 1.234 and 0.5."""
    pc = import_pyarrow().compute
    grouped = pc.match_substring_regex(_plain(words), GROUPS[decimal])
    other = "," if decimal == "." else "."
    return any(is_number(w, other) for w in others) and bool(pc.any(grouped).as_py())


def looks_like(words: Any) -> str:
    """What words may have been meant as, and the way to have them so; "" for words."""
    held = words.drop_null().to_pylist()[:_LOOKED_AT]
    if not held or max(map(len, held)) > _LONGEST_NUMBER:
        return ""
    left = "and is left as words:"
    hexadecimal = [word for word in held if _HEXADECIMAL.match(word)]
    if hexadecimal and all(w in hexadecimal or _NUMBER.match(w) for w in held):
        return f"numbers, as {hexadecimal[0]!r}, {left} write them as decimal ones"
    if all(map(_DATE_LIKE.match, held)):
        aware = [word for word in held if _AWARE.search(word)]
        if 0 < len(aware) < len(held) and all(":" in word for word in held):
            return (
                f"times, some with a time zone, as {aware[0]!r}, and others without, {left}"
                " write one behind all or none"
            )
        return f"dates, as {held[0]!r}, {left} write them as year-month-day"
    if all(map(_TIME_LIKE.match, held)):
        return (
            f"times, as {held[0]!r}, {left} write them as numbers, of seconds or hours"
        )
    if all(map(_NEGATIVE.match, held)) and any(word[0] == "(" for word in held):
        example = next(word for word in held if word[0] == "(")
        return f"numbers, as {example!r}, {left} write - before negative ones"
    found = [_DRESSED.fullmatch(word) for word in held]
    signs = {m[1] + m[2] for m in found if m} - {""}
    odd = [word for word in held if not _NUMBER.match(word)]
    if len(held) <= _FEW_LEVELS or not all(map(_ODD.match, held)):
        odd = []
    by_digits = f"numbers, as {odd[0]!r}, {left} write digits alone" if odd else ""
    if not all(found) or len(signs) != 1:
        return by_digits
    (sign,) = signs
    if sign in ("-", "\u2212"):  # behind some of them, or a second one before
        example = next(word for word in held if _NUMBER.match(word) is None)
        return f"numbers, as {example!r}, {left} write - before negative ones"
    unit = len(held) > _FEW_LEVELS and not any(m and m[1] for m in found)
    if not unit and not _MONEY.fullmatch(sign):
        return by_digits  # none for Q1, Q2, ...: names
    return (
        f"numbers with {sign!r}, as {held[0]!r}, {left} leave {sign!r} out in the file"
    )


def has_zeros(words: Any) -> bool:
    """Whether some start with a zero that numbers do not keep: 007."""
    pc = import_pyarrow().compute
    return bool(pc.any(pc.match_substring_regex(words, r"^\s*0\d")).as_py())


def zeros(texts: Mapping[str, Any]) -> list[str]:
    """A note on the columns of text, by name, that numbers do not keep: 007."""
    if not (found := [name for name, words in texts.items() if has_zeros(words)]):
        return []
    return [
        f"leading zeros of {printable(shown(found))} are not kept (--kinds"
        f" {printable(found[0])}=categorical keeps them)"
    ]


def rounding(words: Any, numbers: Any, name: str) -> list[str]:
    """A note, where some of the words are whole numbers that are one as float64."""
    if not may_be_rounded(numbers):
        return []
    pc = import_pyarrow().compute
    long = pc.fill_null(pc.match_substring_regex(words, r"^[+-]?\d{16,}$"), False)  # noqa: FBT003
    distinct = [pc.count_distinct(x.filter(long)).as_py() for x in (words, numbers)]
    if distinct[0] == distinct[1]:
        return []
    return [f"`{name}`: integers beyond 2^53 are rounded (--drop {name})"]


def misfits(words: Any, read: Callable[[Any], Any], limit: int) -> list[str] | None:
    """The words that `read` gives null for, or fails at; None for more than the limit."""
    found = read(words)
    if found is not None:
        bad = words.filter(import_pyarrow().compute.is_null(found)).drop_null()
        return bad.to_pylist() if len(bad) <= limit else None
    if len(words) == 1:
        return words.to_pylist() if limit else None
    # It fails as a whole: at which, is found by halves.
    left = misfits(words[: len(words) // 2], read, limit)
    if left is None:
        return None
    right = misfits(words[len(words) // 2 :], read, limit - len(left))
    return None if right is None else left + right


def without(words: Any, others: list[str]) -> Any:
    """The words, null for the others."""
    arrow = import_pyarrow()
    gone = arrow.compute.is_in(words, arrow.array(others, arrow.string()))
    return arrow.compute.if_else(gone, arrow.scalar(None, arrow.string()), words)


def integers(words: Any) -> Any:
    """Whole numbers, null where a word is none."""
    arrow = import_pyarrow()
    pc = arrow.compute
    words = _plain(words)
    whole = pc.match_substring_regex(words, INTEGER)
    none = arrow.scalar(None, arrow.string())
    bare = pc.if_else(whole, pc.replace_substring_regex(words, r"^\+", ""), none)
    try:
        return bare.cast(arrow.int64())
    except arrow.ArrowInvalid:
        return bare.cast(arrow.uint64())


def numbers(words: Any, decimal: str) -> Any:
    """Numbers, null where a word is none."""
    arrow = import_pyarrow()
    pc = arrow.compute
    words = _plain(words)
    grouped = pc.match_substring_regex(words, GROUPS[decimal])
    if pc.any(grouped).as_py():
        signs = "|".join(_GROUPING[decimal])
        bare = pc.replace_substring_regex(words, signs, "")
        words = pc.if_else(grouped, bare, words)
    if decimal == ",":
        pointed = pc.and_(pc.match_substring(words, "."), pc.invert(grouped))
        words = pc.replace_substring(pc.if_else(pointed, "", words), ",", ".")
    right = pc.match_substring_regex(words, NUMBER)
    none = arrow.scalar(None, arrow.string())
    return pc.if_else(right, words, none).cast(arrow.float64())


def _plain(words: Any) -> Any:
    """With the usual signs of numbers."""
    for form, usual in (_MINUS, _FORTRAN):
        words = import_pyarrow().compute.replace_substring_regex(words, form, usual)
    return words


def instants(words: Any) -> Any:
    """ISO 8601, in the coarsest unit that holds them, with a zone where all have one."""
    arrow = import_pyarrow()
    for zone in (None, "UTC"):
        for unit in ("s", "ms", "us", "ns"):
            try:
                return words.cast(arrow.timestamp(unit, zone))
            except arrow.ArrowInvalid:
                continue
    return None


def clock(words: Any) -> Any:
    """Times of the day, as the time since midnight."""
    arrow = import_pyarrow()
    padded = arrow.compute.replace_substring_regex(words, r"^(\d):", r"0\1:")
    instants = arrow.compute.binary_join_element_wise("1970-01-01", padded, " ")
    for unit in ("s", "ms", "us"):
        try:
            since = instants.cast(arrow.timestamp(unit)).cast(arrow.int64())
        except arrow.ArrowInvalid:
            continue
        return since.cast(arrow.duration(unit))
    return None
