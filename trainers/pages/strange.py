"""The rows that a model finds strangest, and which of their values are to blame."""

import dataclasses
from typing import Any

import numpy as np

from trainers.pages.subject import Subject
from trainers.tables.columns import ColumnSchema
from trainers.tables.frame import Column, joined

_TRIED = 33  # values of a column in place of its own
_DRAWS = 4  # of the noise of discrete columns


@dataclasses.dataclass(frozen=True)
class Blame:
    """A value, one that the rest of the row would rather have, and the gain in nats."""

    column: str
    value: str
    instead: str
    gain: float


@dataclasses.dataclass(frozen=True)
class Strange:
    """A row of low density.

    Attributes:
      number: what it is called, of `Subject.numbers`.
      log_prob: in nats.
      rank: the share of drawn rows with a lower density.
      blame: its columns, those first whose exchange would gain most.
    """

    number: int
    log_prob: float
    rank: float
    blame: tuple[Blame, ...]


def strangest(subject: Subject, most: int = 8, shown: int = 3) -> list[Strange]:
    """The rows of lowest log p.

    A column is to blame for log p(row with the best of 33 other values in it) − log p(row):
    values are quantiles of the column, or its most frequent words. Where that gain is large
    the value does not go with the rest of the row, whether or not it is rare by itself.

    Args:
      subject: what is looked at.
      most: rows.
      shown: columns for each.
    """
    rows = np.argsort(subject.log_prob, kind="stable")[:most]
    model = dataclasses.replace(
        subject.model, num_draws=min(_DRAWS, subject.model.num_draws)
    )
    data, context = subject.data.take(rows), subject.context
    columns = model.schema.kept
    frames, values = [data], {}
    for column in columns:
        tried = values[column.name] = _values(subject.data[column.name])
        at = np.repeat(np.arange(len(rows)), len(tried))
        frame = data.take(at)
        own = tried.take(np.tile(np.arange(len(tried)), len(rows)))
        others = (own if c.name == column.name else c for c in frame.columns)
        frames.append(dataclasses.replace(frame, columns=tuple(others)))
    sizes = [len(frame) for frame in frames]
    given = None
    if context is not None:
        own = context.take(rows)
        at = [np.repeat(np.arange(len(rows)), size // len(rows)) for size in sizes]
        given = own.take(np.concatenate(at))
    found = model.log_prob(joined(frames), given)
    own, *tried = np.split(found, np.cumsum(sizes)[:-1])
    result = []
    for i, row in enumerate(rows):
        blame = []
        for column, log_prob in zip(columns, tried, strict=True):
            each = log_prob.reshape(len(rows), -1)[i]
            best = int(np.argmax(each))
            with np.errstate(invalid="ignore"):
                gain = float(each[best] - own[i])
            blame.append(
                Blame(
                    column.name,
                    _text(column, subject.data[column.name], row),
                    _text(column, values[column.name], best),
                    gain,
                )
            )
        blame.sort(key=lambda one: -one.gain if np.isfinite(one.gain) else -np.inf)
        log_prob = float(subject.log_prob[row])
        rank = float(np.mean(subject.drawn_log_prob < log_prob))
        result.append(
            Strange(int(subject.numbers[row]), log_prob, rank, tuple(blame[:shown]))
        )
    return result


def _values(column: Column) -> Column:
    """Some values of a column: quantiles of what has an order, else the most frequent."""
    if column.values.dtype == object:
        words, first, counts = np.unique(
            column.values.astype(str), return_index=True, return_counts=True
        )
        del words
        return column.take(first[np.argsort(-counts, kind="stable")[:_TRIED]])
    order = np.argsort(column.values, kind="stable")
    places = np.linspace(0, len(order) - 1, _TRIED).round().astype(int)
    return column.take(order[places])


def _text(schema: ColumnSchema, column: Column, row: int) -> str:
    value: Any = column.values[row]
    if schema.unit:
        return schema.ticks.text(float(schema.numbers(column.take([row]))[0]))
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
