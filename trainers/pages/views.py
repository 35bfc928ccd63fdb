"""Columns as pictures show them: numbers on an axis, with bins that honour their kind."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.metrics import mutual_info_score

from trainers.tables.columns import ColumnSchema
from trainers.tables.frame import Frame
from trainers.tables.kinds import Levels

_LEVELS = 30  # that have a bar each
_BINS = 32
_TAIL = 0.002  # of the rows, which may lie beyond each end of an axis


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One column of the data and of what was drawn.

    Attributes:
      schema: of the column.
      data, drawn: as numbers, [n] and [m]: levels by their place, what spans several powers
        of ten by its logarithm.
      edges: of the bins, [k + 1].
      levels: the names of bins that are one value each, or ().
      log: whether the numbers are logarithms to the base 10.
    """

    schema: ColumnSchema
    data: np.ndarray
    drawn: np.ndarray
    edges: np.ndarray
    levels: tuple[str, ...] = ()
    log: bool = False

    @classmethod
    def of(cls, schema: ColumnSchema, data: Frame, drawn: Frame) -> Self:
        """The view of a column that both tables have."""
        both = [schema.numbers(frame[schema.name]) for frame in (data, drawn)]
        levels = _levels(schema, both[0])
        if levels is not None:
            places = {level: i for i, level in enumerate(levels)}
            found = [
                np.array([places.get(v, np.nan) for v in x.tolist()]) for x in both
            ]
            names = tuple(_name(schema, level) for level in levels)
            return cls(schema, *found, np.arange(len(levels) + 1) - 0.5, names)
        log = bool((both[0] > 0).all() and np.ptp(np.log10(both[0])) > 2)
        if log:
            tiny = both[0].min() / 10
            both = [np.log10(np.maximum(x, tiny)) for x in both]
        edges = _edges(both[0], 0 if log else getattr(schema.kind, "step", 0))
        return cls(schema, *both, edges, (), log)

    @property
    def name(self) -> str:
        """The column's name."""
        return self.schema.name

    def shares(self, x: np.ndarray) -> np.ndarray:
        """The share of values in each bin, those beyond the ends in none, [k]."""
        return np.histogram(x, self.edges)[0] / max(len(x), 1)

    def bins(self, x: np.ndarray) -> np.ndarray:
        """The bin of each value, the outer ones for what is beyond, [n]."""
        return np.clip(np.searchsorted(self.edges, x) - 1, 0, len(self.edges) - 2)

    def text(self, place: float) -> str:
        """A place on the axis as people write it."""
        if self.levels:
            return self.levels[int(np.clip(round(place), 0, len(self.levels) - 1))]
        return _name(self.schema, 10.0**place if self.log else place)


def views(columns: Sequence[ColumnSchema], data: Frame, drawn: Frame) -> list[View]:
    """One for each column that is modelled."""
    return [View.of(column, data, drawn) for column in columns]


def dependence(one: View, other: View) -> float:
    """Mutual information of two columns of the data in nats, by bins of ranks."""
    return float(mutual_info_score(_coarse(one), _coarse(other)))


def most_dependent(columns: Sequence[View], most: int) -> list[View]:
    """The columns that have most to do with others, at most so many, in their order."""
    if len(columns) <= most:
        return list(columns)
    codes = [_coarse(view) for view in columns]
    table = np.array([[mutual_info_score(a, b) for a in codes] for b in codes])
    np.fill_diagonal(table, 0)
    best = np.sort(np.argsort(-np.sort(table)[:, -3:].sum(1))[:most])
    return [columns[i] for i in best]


def _coarse(view: View, bins: int = 8) -> np.ndarray:
    """Eight classes of about equal size, or the levels, [n]."""
    if view.levels and len(view.levels) <= bins:
        return view.bins(view.data)
    ranks = np.argsort(np.argsort(view.data, kind="stable"), kind="stable")
    return ranks * bins // max(len(ranks), 1)


def _levels(schema: ColumnSchema, data: np.ndarray) -> list[Any] | None:
    """The values that have a bar each, if they are few."""
    kind = schema.kind
    if isinstance(kind, Levels) and len(kind.levels) <= _LEVELS:
        return list(kind.levels)
    if data.dtype != object:
        return None
    values, counts = np.unique(data.astype(str), return_counts=True)
    return values[np.argsort(-counts, kind="stable")[:_LEVELS]].tolist()


def _edges(x: np.ndarray, step: float) -> np.ndarray:
    low, high = np.quantile(x, (_TAIL, 1 - _TAIL))
    if not step:
        room = (high - low) * 0.02 or abs(low) or 1.0
        return np.linspace(low - room, high + room, _BINS + 1)
    # Whole cells of the grid, as many a bin as keep their number low.
    width = step * max(np.ceil((high - low) / step / _BINS), 1)
    return np.arange(low - step / 2, high + width, width)


def _name(schema: ColumnSchema, value: Any) -> str:
    if isinstance(value, str):
        return value
    if schema.unit:
        return schema.ticks.text(float(value))
    if schema.origin:
        return f"{int(value) + schema.origin}"
    whole = float(value) == round(float(value)) and abs(float(value)) < 1e6
    return f"{float(value):.0f}" if whole else f"{float(value):.4g}"
