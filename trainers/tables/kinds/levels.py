"""Kinds of columns in which single values have mass: levels, spikes, constants."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from trainers.tables.kinds.base import (
    Encoded,
    Kind,
    Real,
    Share,
    Value,
    log_normal,
    log_share,
    nearest_place,
    probit,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Levels(Kind):
    """A few values, each with its share of (0, 1): the randomised integral transform.

    Attributes:
      kind_name: what people call it: "categorical", "boolean", "integer", "rounded".
      levels: the values, in order.
      shares: their frequencies, positive.
      step: of an unbounded grid that the levels are part of, or 0 where other values have
        no mass. Beyond each end the grid's cells share `tail`, each half of the one before.
      tail: the mass beyond each end.
      between: of a cell's mass, what whole numbers between the steps have together.
    """

    noise: ClassVar[int] = 1
    is_mass: ClassVar[bool] = True
    kind: ClassVar[str] = "levels"
    kind_name: str = "categorical"
    levels: tuple[Value, ...]
    shares: tuple[Share, ...]
    step: Real = 0.0
    tail: Share = 0.0
    between: Share = 0.0

    def __post_init__(self):
        if not 0 < len(self.levels) == len(self.shares):
            raise ValueError(
                f"`levels` must each have one of `shares`; got {len(self.levels)} and"
                f" {len(self.shares)}."
            )

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        number = self._number(x)
        last, tail = len(self.levels) - 1, self.tail
        shares = (1 - 2 * tail) * np.asarray(self.shares) / np.sum(self.shares)
        starts = tail + np.concatenate([[0], np.cumsum(shares)[:-1]])
        at = np.clip(np.nan_to_num(number), 0, last).astype(int)
        share, start = shares[at], starts[at]
        if self.step:
            outside = np.maximum(number - last, -number)  # cells beyond an end
            beyond = outside > 0
            share = np.where(beyond, tail * 0.5 ** np.maximum(outside, 1), share)
            # Above: 1 − tail·2^(1−k); below the mirror image.
            rest = tail * 0.5 ** np.maximum(outside - 1, 0)
            start = np.where(number > last, 1 - rest, start)
            start = np.where(number < 0, rest - share, start)
        known = ~np.isnan(number) & (share > 0)
        share, start = np.where(known, share, 1), np.where(known, start, 0)
        u = u[:, 0]
        z = probit(start + u * share, 1 - start - u * share)
        log_mass = np.log(share)
        if self.between:
            log_mass += log_share(x, self.levels[0], self.step, self.between)
        return z[:, None], np.where(known, log_mass - log_normal(z), -np.inf)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """As in `Kind`; what lies beyond an end is the last level."""
        shares = np.cumsum(self.shares) / np.sum(self.shares)
        at = (ndtr(z[:, 0]) - self.tail) / (1 - 2 * self.tail)
        number = np.searchsorted(shares[:-1], at, side="right")
        return array_of(self.levels)[number]

    def knows(self, x: np.ndarray) -> np.ndarray:
        """As in `Kind`."""
        return ~np.isnan(self._number(x))

    def context(self, x: np.ndarray) -> np.ndarray:
        """One-hot without order; one number in [−1, 1] for a grid or two levels."""
        number = self._number(x)
        if self.step or len(self.levels) == 2:
            return (2 * number / max(len(self.levels) - 1, 1) - 1)[:, None]
        return np.asarray(number[:, None] == np.arange(len(self.levels)), np.float64)

    def _number(self, x: np.ndarray) -> np.ndarray:
        """The level's number, NaN for none; on a grid the nearest, also beyond its ends."""
        if self.step:
            return nearest_place(np.asarray(x, np.float64), self.levels[0], self.step)
        if isinstance(self.levels[0], str) or x.dtype == object:
            numbers = {level: i for i, level in enumerate(self.levels)}
            return np.array([numbers.get(value, np.nan) for value in x.tolist()], float)
        levels = np.asarray(self.levels, np.float64)
        order = np.argsort(levels)  # categories come in an order of their own
        at = np.searchsorted(levels, np.asarray(x, np.float64), sorter=order)
        at = order[np.minimum(at, len(levels) - 1)]
        return np.where(levels[at] == x, at, np.nan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spike(Kind):
    """One value in a share of the rows, beside the rest of the column.

    The first encoded column says whether it is there (two `Levels`); the others are those
    of the rest, and standard normal noise ε with its density taken off where it is:
    P(x₀) = E_ε[p(z₀, ε) / φ(ε)].
    """

    kind: ClassVar[str] = "spike"
    value: Real
    share: Share
    rest: Kind

    @property
    def width(self) -> int:  # type: ignore[override]
        """As in `Kind`."""
        return 1 + self.rest.width

    @property
    def noise(self) -> int:  # type: ignore[override]
        """As in `Kind`."""
        return 1 + max(self.rest.noise, self.rest.width)

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        there = x == self.value
        switch, log_mass = self._switch().encode(
            np.asarray(there, np.float64), u[:, :1]
        )
        fill = ndtri(u[:, 1 : 1 + self.rest.width])
        some = x[~there][0] if not there.all() else x.dtype.type(0)
        z, log_det = self.rest.encode(np.where(there, some, x), u[:, 1:])
        z = np.where(there[:, None], fill, z)
        log_det = np.where(there, -log_normal(fill).sum(1), log_det)
        return np.concatenate([switch, z], axis=1), log_mass + log_det

    def decode(self, z: np.ndarray) -> np.ndarray:
        """As in `Kind`."""
        there = self._switch().decode(z[:, :1]) > 0.5
        return np.where(there, self.value, self.rest.decode(z[:, 1:]))

    def context(self, x: np.ndarray) -> np.ndarray:
        """Whether the value is there, and the rest, 0 where it is."""
        there = x == self.value
        if there.all():
            filler = np.zeros((len(x), self.rest.width))
            return np.concatenate([np.ones((len(x), 1)), filler], axis=1)
        rest = self.rest.context(np.where(there, x[~there][0], x))
        rest = np.where(there[:, None], 0, rest)
        return np.concatenate([2.0 * there[:, None] - 1, rest], axis=1)

    def to_config(self) -> dict[str, Any]:
        """As in `Kind`."""
        return super().to_config() | {"rest": self.rest.to_config()}

    def _switch(self) -> Levels:
        return Levels(levels=(0.0, 1.0), shares=(1 - self.share, self.share))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped(Kind):
    """A column that is no part of the model.

    Attributes:
      reason: why.
      value: of a constant column, which is written back.
      of, factor, offset: of a copy: the column that it is a multiple of, written back as
        factor · x + offset.
    """

    kind: ClassVar[str] = "skipped"
    width: ClassVar[int] = 0
    reason: str
    value: Value | None = None
    of: str | None = None
    factor: Real = 1.0
    offset: Real = 0.0

    @property
    def is_known(self) -> bool:
        """Whether the column is written back."""
        return self.value is not None or self.of is not None

    def differs(self, x: np.ndarray, of: np.ndarray | None, near: float) -> np.ndarray:
        """Which values are not those of the fit, [n], of a column that is known.

        Args:
          x: values.
          of: those of the column that it was a function of, if it was.
          near: how far from that function they may be.
        """
        if of is not None:
            return ~np.isclose(x, self.factor * of + self.offset, rtol=1e-10, atol=near)
        return np.asarray(x != self.value)

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """Nothing: [n, 0]."""
        del u
        return np.zeros((len(x), 0)), np.zeros(len(x))

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The constant, or NaN where the column cannot be told, [n]."""
        return np.full(len(z), np.nan if self.value is None else self.value)


def array_of(levels: Sequence[Any]) -> np.ndarray:
    """Levels as they are: words, and whole numbers that no type holds together, as objects."""
    result = np.asarray(levels) if not any(isinstance(v, str) for v in levels) else None
    if result is None or (result.dtype == float and float not in map(type, levels)):
        result = np.empty(len(levels), object)
        result[:] = levels
    return result
