"""The kinds of words, and levels with their shares."""

import collections
import contextlib
import shlex
from typing import Any

import numpy as np

from trainers.tables import dates
from trainers.tables.checks import InputError
from trainers.tables.kinds.found import Found, option
from trainers.tables.kinds.levels import Levels, Skipped
from trainers.tables.kinds.remarks import grouped

_MAX_LEVELS = 100  # of words; with more they are left out
_REPEATS = 1.5  # rows a level, from which words are categories


def of_words(x: np.ndarray, where: str) -> Found:
    """The kind of a column of words, [n].

    Raises:
      InputError: words that are numbers.
    """
    levels = sorted_levels(x)
    if len(levels) <= 1:
        return Found(Skipped(reason="constant", value=levels[0]), f"always {levels[0]}")
    words = [level for level in levels if isinstance(level, str)]
    if words and sum(map(_is_number, words)) > 0.9 * len(words):
        number = next(filter(_is_number, words))
        others = [word for word in words if not _is_number(word)]
        beside = f", beside {others[0]!r}, which is none" if others else ""
        missing = (
            f" say what is missing (--na {shlex.quote(others[0])})," if others else ""
        )
        raise InputError(
            f"{where} holds numbers as words, as {number!r}{beside}. Convert it to"
            f" numbers,{missing} or say that it is categorical (`kinds`, or"
            f" {option(where, 'kinds', 'categorical')})."
        )
    enough = len(x) >= (3 if len(levels) > 10 else _REPEATS) * len(levels)
    if len(levels) > _MAX_LEVELS or not enough:
        return _left_out(len(levels), len(x), where)
    why = f"{len(levels)} words{grouped(len(levels), len(x), where)}"
    return Found(counted(x, levels, "categorical"), why)


def no_numbers(name: str, x: np.ndarray, where: str) -> InputError:
    """The error for words where numbers were asked for, and anything but dates."""
    word = x[:1].tolist()[0]
    if name == "date":
        bad = None
        if x.dtype == object:
            with contextlib.suppress(InputError):  # without pyarrow
                bad = dates.misfit([str(cell) for cell in x])
        if bad is None and isinstance(word, str):
            return InputError(
                f"`kinds` asks for date; {where} holds words, as {word!r}. Convert them,"
                " with pandas.to_datetime, or write them as 2024-01-31 in a text, where"
                " they may be day/month or month/day; or use categorical."
            )
        word = word if bad is None else bad
        return InputError(
            f"`kinds` asks for date; {where} holds {word!r}, which is no date that is read"
            " where the others are. Write 2024-01-31, 31/1/2024, 1/31/2024, 31.1.2024 or"
            " 31 Jan 2024, all alike, with or without a time, or 20240131 in a text; or"
            " use categorical."
        )
    return InputError(
        f"`kinds` asks for {name}, which needs numbers; {where} holds words, as {word!r}."
        " Use categorical or skipped."
    )


def _left_out(num_levels: int, n: int, where: str) -> Found:
    """Text, or categories of which there are too many to be taken unasked."""
    if num_levels == n:
        return Found(Skipped(reason="free text"), "free text: each row has its own")
    if n < _REPEATS * num_levels:
        why = f"free text: {num_levels:,} values in {n:,} rows"
        return Found(Skipped(reason="free text"), why)
    many = f"{num_levels:,} categories in {n:,} rows"
    way_out = option(where, "kinds", "categorical")
    why = f"{many}: {way_out} takes them{grouped(num_levels, n, where)}"
    return Found(Skipped(reason="many categories"), why)


def counted(x: np.ndarray, levels: Any, name: str) -> Levels:
    """Levels with their frequencies in x, [n]."""
    if x.dtype == object:
        held = collections.Counter(x.tolist())
        counts = np.array([held[level] for level in levels])
    else:
        levels, counts = np.unique(x, return_counts=True)
        levels = levels.tolist()
    shares = tuple((counts / len(x)).tolist())
    return Levels(kind_name=name, levels=tuple(levels), shares=shares)


def sorted_levels(x: np.ndarray) -> list[Any]:
    """The different values of x, numbers before words."""
    held = set(x.tolist())
    return sorted(held, key=lambda v: (isinstance(v, str), v))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
