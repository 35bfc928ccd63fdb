"""What the text of a cell may be: a number, a date, nothing, or a word."""

import re

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
WORDS = "words"  # in place of a format of dates: the column is left as words
OR = "|"  # between the words for true and false, in that place
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")

_DIGITS = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
NUMBER = rf"^[+-]?(?:{_DIGITS}|inf|Inf|INF|infinity|Infinity|INFINITY)$"
INTEGER = r"^[+-]?\d+$"
# Groups of three digits, behind a decimal point and behind a decimal comma.
GROUPS = {
    ".": r"^[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?$",
    ",": r"^[+-]?[1-9]\d{0,2}(?:[.' ]\d{3})+(?:,\d*)?$",
}
_LONGEST_NUMBER = 100  # characters; of a longer text the patterns would take long
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?"
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
_EITHER = {point: re.compile(rf"[+-]?\d{{1,3}}[{point}]\d{{3}}$") for point in ".,"}


def kind(cell: str, decimal: str = ".") -> str:
    """Is it "missing", a "number", an "instant" (date, time, truth), or a "word"?"""
    cell = cell.strip()
    if cell in MISSING:
        return "missing"
    if len(cell) > _LONGEST_NUMBER:
        return "word"
    if is_number(cell, decimal):
        return "number"
    if _INSTANT.match(cell) or cell in TRUE or cell in FALSE:
        return "instant"
    return "word"


def is_number(cell: str, decimal: str = ".") -> bool:
    """Whether it is a number, with or without groups of three digits."""
    if _GROUPS[decimal].match(cell):
        return True
    if decimal == ",":
        if "." in cell:
            return False
        cell = cell.replace(",", ".")
    return bool(_NUMBER.match(cell))


def is_integer(cell: str) -> bool:
    """Whether digits are all it has."""
    return bool(_INTEGER.match(cell.strip()))


def decimal_of(cells: list[str], sep: str) -> str:
    """Point or comma, as the numbers among the cells have it; a point where none tells."""
    found = {p: sum(bool(_SURE[p].match(c)) for c in cells) for p in ".,"}
    if found["."] == found[","] == 0 and sep != ",":
        # 1,234 alone, where commas do not separate cells: a comma in most such files.
        found = {p: sum(bool(_EITHER[p].match(c)) for c in cells) for p in ".,"}
    return "," if found[","] > found["."] else "."
