"""Columns of text to the type that all of it has, by pyarrow."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

from trainers.tables import dates
from trainers.tables.arrow import encoded, import_pyarrow
from trainers.tables.checks import printable, shown
from trainers.tables.files.texts import cells

_MOSTLY_NUMBERS = 0.9  # of the cells: the others are holes, if they are few words
_MAX_HOLES = 5
_FEW_LEVELS = 20  # integers: no more, and a word among them is a level too
_FEW = 20  # words that show soon that a form does not fit


@dataclasses.dataclass(frozen=True)
class Rule:
    """How the text of a column is read.

    Attributes:
      kind: "integer", "number", "boolean", "date", "instant", "clock", "words", or "empty"
        for a column without a value.
      decimal: point or comma.
      form: of dates, as `dates` reads and writes them; None for ISO 8601.
      look: how cells are written, as `Column.date_format`.
      holes: words that count as missing beside those of `cells.MISSING`.
    """

    kind: str
    decimal: str = "."
    form: str | None = None
    holes: tuple[str, ...] = ()
    look: str = ""

    def may_become(self, other: "Rule") -> bool:
        """Whether rows further down may show that this rule was too narrow."""
        wider = ({"integer", "number"}, {"date", "instant"})
        kinds = {self.kind, other.kind}
        return "empty" in kinds or len(kinds) == 1 or kinds in wider


def settle(
    column: Any,
    name: str,
    decimal: str = ".",
    other: str | None = None,
    known: str = "",
) -> tuple[Any, Rule, list[str]]:
    """A column of text in the narrowest type that holds every cell.

    Args:
      column: of strings, a chunked array.
      name: of the column, for the notes.
      decimal: point or comma.
      other: comma or point, where all cells may be numbers with that one instead.
      known: `Column.date_format`, where it is not to be guessed.

    Returns:
      The column, the rule that was found, and notes.
    """
    arrow = import_pyarrow()
    text = _without_holes(column)
    if text.null_count == len(text):
        return arrow.nulls(len(column), arrow.float64()), Rule("empty"), []
    if known == cells.WORDS:
        return text, Rule("words", decimal, look=known), []
    if known == dates.COMPACT and (as_dates := _as_dates(*encoded(text), name, known)):
        return as_dates
    few = text[:_FEW].drop_null()
    for kind in ("integer", "number"):
        rule = Rule(kind, decimal)
        if _cast(few, rule) is not None and (found := _cast(text, rule)) is not None:
            return found, rule, cells.rounding(text, found, name)
    indices, words = encoded(text)
    for kind in ("integer", "number", "boolean", "date", "instant", "clock"):
        rule = Rule(kind, decimal)
        found = _convert(words[:_FEW], rule)
        if found is None or found.null_count:  # an error for each cell takes long
            continue
        found = _convert(words, rule)
        if found is not None and not found.null_count:
            notes = [f"`{name}`: {how}" for how in cells.notation(words, kind, decimal)]
            look, said = _look(words, kind, name)
            rule = dataclasses.replace(rule, look=look)
            return found.take(indices), rule, notes + said
    if as_dates := _as_dates(indices, words, name, known):
        return as_dates
    if other is not None:
        rule = Rule("number", other)
        found = _convert(words, rule)
        if found is not None and not found.null_count:
            said = "comma" if other == "," else "point"
            note = f"`{name}`: decimal {said}, unlike other columns (--decimal)"
            return found.take(indices), rule, [note]
    if found := _mostly_numbers(indices, words, name, decimal):
        return found
    expected = dates.ISO if known else ""
    if found := _mostly_dates(indices, words, name, expected):
        return found
    look = cells.looks_like(words)
    note = f"`{name}` looks like {look}"
    return words.take(indices), Rule("words", decimal), [note] * bool(look)


def _look(words: Any, kind: str, name: str) -> tuple[str, list[str]]:
    """How words of a kind are written, "" for as usual, and notes."""
    if kind == "clock":
        return dates.clock_as_written(words), []
    if kind == "boolean":
        pairs = [
            f"{t}{cells.OR}{f}" for t, f in zip(cells.TRUE, cells.FALSE, strict=True)
        ]
        held = set(words.drop_null().to_pylist())
        fits = (pair for pair in pairs[1:] if held <= set(pair.split(cells.OR)))
        return next(fits, ""), []
    if kind != "instant":
        return "", []
    look, zones = dates.iso_as_written(words)
    note = f"`{name}`: offsets {shown(zones)} are read, and written, as UTC"
    return look, [note] * (len(zones) > 1)


def _as_dates(
    indices: Any, words: Any, name: str, known: str
) -> tuple[Any, Rule, list[str]] | None:
    """Words that are dates, or may be in more than one way; None for others."""
    if known and not dates.is_unmistakable(known):
        found = dates.parsed(words, known)
        said = dates.spoken(known)
        if not found.null_count:
            known_from = "" if known == dates.COMPACT else ", as in the fit"
            note = f"`{name}`: dates as {said}{known_from}"
            return found.take(indices), _rule_of(known), [note]
        if mostly := _mostly_dates(indices, words, name, known):
            return mostly
        if known == dates.COMPACT:
            return None
        bad = words.filter(import_pyarrow().compute.is_null(found))[0].as_py()
        note = f"`{name}`: {printable(bad, 30)!r} is no date as {said}, as in the fit"
        return words.take(indices), Rule("words"), [note]
    forms = dates.found(words.drop_null())
    if len(forms) == 1:
        (form,) = forms
        found = dates.parsed(words, form)
        rule = _rule_of(dates.as_written(words.drop_null(), form))
        years = ", 69 as 1969 and 68 as 2068" if "%y" in form else ""
        note = f"`{name}`: dates as {dates.spoken(form)}{years}"
        return found.take(indices), rule, [note]
    if not forms:
        return None
    return _undecided(indices, words, name, forms)


def _undecided(
    indices: Any, words: Any, name: str, forms: Iterable[str]
) -> tuple[Any, Rule, list[str]]:
    """Dates that may be read in several ways are words."""
    ways = " or ".join(dict.fromkeys(map(dates.spoken, forms)))
    note = f"`{name}` holds dates as {ways}, and is left as words: write them as year-month-day"
    return words.take(indices), Rule("words"), [note]


def _rule_of(form: str) -> Rule:
    kind = "instant" if dates.has_time(form) else "date"
    return Rule(kind, form=form, look=form)


def _mostly_numbers(
    indices: Any, words: Any, name: str, decimal: str
) -> tuple[Any, Rule, list[str]] | None:
    """The column as numbers, where a few other words must be holes; else None."""
    pc = import_pyarrow().compute
    found = _convert(words, Rule("number", decimal))
    if found is None or not 0 < found.null_count <= _MAX_HOLES:
        return None
    others = words.filter(pc.is_null(found)).to_pylist()
    column = found.take(indices)
    integers = _convert(words, Rule("integer", decimal))
    whole_only = integers is not None and integers.null_count == len(others)
    if whole_only and len(words) <= _FEW_LEVELS:
        return None  # 4, 6, 8, rotary: names of classes
    whole = len(indices) - indices.null_count
    held = len(column) - column.null_count
    if held < _MOSTLY_NUMBERS * whole:
        return None
    kept = cells.without(words, others)
    if cells.contradict(kept, others, decimal):
        return None
    rule = Rule("number", decimal, holes=tuple(others))
    if integers is not None and whole_only:
        rule, column = dataclasses.replace(rule, kind="integer"), integers.take(indices)
    notes = [f"`{name}`: {how}" for how in cells.notation(kept, rule.kind, decimal)]
    notes += cells.rounding(kept.take(indices), column, name)
    notes.append(_holes_note(name, others, whole - held, whole, "number"))
    return column, rule, notes


def _mostly_dates(
    indices: Any, words: Any, name: str, known: str
) -> tuple[Any, Rule, list[str]] | None:
    """The column as dates or times, where a few other words must be holes; else None."""
    if not known and len(words) <= _FEW_LEVELS < len(indices):
        return None  # 9:00, 10:00, closed: names of classes
    if known and not dates.is_unmistakable(known):
        ways = [_rule_of(known)]
    else:
        ways = [Rule(kind) for kind in ("date", "instant", "clock")]
        ways += map(_rule_of, dates.FORMATS)
    found: list[tuple[list[str], Rule]] = []
    few = words[:_FEW]
    for rule in ways:
        read = functools.partial(_convert, rule=rule)
        if cells.misfits(few, read, min(_MAX_HOLES, len(few) // 2)) is not None:
            others = cells.misfits(words, read, _MAX_HOLES)
            found += [(others, rule)] if others is not None else []
    if not found:
        return None
    least = min(len(others) for others, _ in found)
    best = [pair for pair in found if len(pair[0]) == least]
    others, rule = best[0]
    if rule.form and any(left != others for left, _ in best):
        return _undecided(indices, words, name, [str(r.form) for _, r in best])
    held = cells.without(words, others)
    found_at = _convert(held, rule)
    if found_at is None:  # half of them have a time zone
        return None
    column = found_at.take(indices)
    whole = len(indices) - indices.null_count
    count = whole - (len(column) - column.null_count)
    if count > (1 - _MOSTLY_NUMBERS) * whole:
        return None
    if rule.form and not known:
        read = _as_dates(indices, held, name, "")
    else:
        look, said = _look(held, rule.kind, name)
        if rule.form:
            look, said = known, [f"`{name}`: dates as {dates.spoken(known)}"]
        read = column, dataclasses.replace(rule, look=look), said
    if read is None or read[1].kind == "words":
        return read and (words.take(indices), *read[1:])
    what = "time" if rule.kind == "clock" else "date"
    note = _holes_note(name, others, count, whole, what)
    return read[0], dataclasses.replace(read[1], holes=tuple(others)), [*read[2], note]


def _holes_note(name: str, others: list[str], count: int, whole: int, what: str) -> str:
    told = ", ".join(f"'{printable(word, 30)}'" for word in others)
    return (
        f"`{name}`: {told} ({count:,} of {whole:,} cells) is no {what} and counts"
        f" as missing (--drop {name} leaves the column out)"
    )


def follow(column: Any, rule: Rule) -> tuple[Any, str | None]:
    """More of a column by a rule that is known, and the first cell that does not fit it.

    Integers may become numbers; what is a number, boolean or date must stay one.
    """
    arrow = import_pyarrow()
    pc = arrow.compute
    text = _without_holes(column, rule.holes)
    if rule.kind == "words":
        return text, None
    if rule.kind == "empty":
        none = text.null_count == len(text)
        return (arrow.nulls(len(text), arrow.float64()) if none else None), None
    rules = [rule]
    if rule.kind == "integer":
        rules.append(dataclasses.replace(rule, kind="number"))
    for each in rules:
        if (found := _cast(text, each)) is not None:
            return found, None
    indices, words = encoded(text)
    bad = words
    for each in rules:
        found = _convert(words, each)
        if found is not None and not found.null_count:
            return found.take(indices), None
        bad = words if found is None else words.filter(pc.is_null(found))
    return None, bad[0].as_py()


def missing_words(column: Any) -> list[str]:
    """The words of a column of text that count as missing, but not the empty cell."""
    arrow = import_pyarrow()
    pc = arrow.compute
    trimmed = pc.utf8_trim_whitespace(column)
    gone = pc.is_in(trimmed, arrow.array([word for word in cells.MISSING if word]))
    return pc.unique(trimmed.filter(gone)).to_pylist()


def _cast(text: Any, rule: Rule) -> Any:
    """All cells as pyarrow reads numbers, which is fast, or None where it does not."""
    arrow = import_pyarrow()
    pc = arrow.compute
    if rule.kind not in ("integer", "number"):
        return None
    if rule.kind == "number" and rule.decimal == ",":
        if pc.any(pc.match_substring(text, ".")).as_py():
            return None
        text = pc.replace_substring(text, ",", ".")
    whole = rule.kind == "integer"
    if whole and pc.any(pc.starts_with(text, "+")).as_py():
        text = pc.replace_substring_regex(text, r"^\+(\d)", r"\1")
    for kind in (arrow.int64(), arrow.uint64()) if whole else (arrow.float64(),):
        try:
            found = text.cast(kind)
        except arrow.ArrowInvalid:
            continue
        # pyarrow reads 0x1F as 31 in integers, and in no other numbers.
        hexadecimal = pc.match_substring(text, "x", ignore_case=True)
        return None if whole and pc.any(hexadecimal).as_py() else found
    return None


def _without_holes(column: Any, holes: tuple[str, ...] = ()) -> Any:
    arrow = import_pyarrow()
    pc = arrow.compute
    trimmed = pc.utf8_trim_whitespace(column.cast(arrow.string()))
    gone = pc.is_in(trimmed, arrow.array([*cells.MISSING, *holes]))
    return pc.if_else(gone, arrow.scalar(None, arrow.string()), trimmed)


def _convert(words: Any, rule: Rule) -> Any:
    """The words by a rule, null where they do not fit; None where none can."""
    arrow = import_pyarrow()
    pc = arrow.compute
    try:
        match rule.kind:
            case "integer":
                return cells.integers(words)
            case "number":
                return cells.numbers(words, rule.decimal)
            case "boolean":
                true = pc.is_in(words, arrow.array(cells.TRUE))
                false = pc.is_in(words, arrow.array(cells.FALSE))
                return pc.if_else(pc.or_(true, false), true, None)
            case "clock":
                return cells.clock(words)
        if rule.form is not None:
            return dates.parsed(words, rule.form)
        if rule.kind == "date":
            return words.cast(arrow.date32())
        return cells.instants(words)
    except arrow.ArrowInvalid:
        return None
