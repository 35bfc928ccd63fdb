"""Kinds of numbers: any, positive, bounded, and on a grid."""

import dataclasses
from typing import ClassVar

import numpy as np
from scipy.special import ndtr

from trainers.tables.kinds.base import (
    Encoded,
    Kind,
    Real,
    Scale,
    Share,
    Width,
    log_normal,
    log_share,
    nearest_place,
    on_grid,
    probit,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuous(Kind):
    """Any real number."""

    kind: ClassVar[str] = "continuous"
    scale: Scale

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        del u
        return self.scale.encode(x)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """As in `Kind`."""
        return self.scale.decode(z)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Positive(Kind):
    """Numbers above `floor`, by the logarithm of x − floor; written back from `low` on."""

    kind: ClassVar[str] = "positive"
    floor: Real = 0.0
    low: Real = 0.0
    scale: Scale

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        del u
        above = x - self.floor
        inside = (above > 0) & (x >= self.low)
        y = np.log(np.where(inside, above, 1))
        z, log_det = self.scale.encode(y)
        return z, np.where(inside, log_det - y, -np.inf)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """As in `Kind`."""
        y = np.clip(self.scale.decode(z), -744, 709)
        return np.maximum(np.exp(y) + self.floor, self.low)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounded(Kind):
    """Numbers from `low` to `high`: z = Φ⁻¹ of their place between `floor` and `ceiling`.

    The two lie a little outside where values lie on the bounds themselves.
    """

    kind: ClassVar[str] = "bounded"
    low: Real
    high: Real
    floor: Real
    ceiling: Real

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        del u
        width = self.ceiling - self.floor
        below, above = (x - self.floor) / width, (self.ceiling - x) / width
        inside = (x >= self.low) & (x <= self.high) & (below > 0) & (above > 0)
        z = probit(np.where(inside, below, 0.5), np.where(inside, above, 0.5))
        return z[:, None], np.where(inside, -np.log(width) - log_normal(z), -np.inf)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """As in `Kind`."""
        x = self.floor + (self.ceiling - self.floor) * ndtr(z[:, 0])
        return np.clip(x, self.low, self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(Kind):
    """Many steps of a grid: noise of one step, then as `Continuous` or by the logarithm.

    Attributes:
      step: of the grid.
      low, high: seen; what is written back lies between them and on the grid.
      log: whether distances from half a step below 0 count by their logarithm.
      mass: whether log p is of the cell's mass, or else of the mean density in it.
    """

    kind: ClassVar[str] = "rounded"
    noise: ClassVar[int] = 1
    step: Width
    low: Real
    high: Real
    scale: Scale
    log: bool = False
    mass: bool = True

    @property
    def is_mass(self) -> bool:  # type: ignore[override]
        """As in `Kind`."""
        return self.mass

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        # Masses add to one if a value off the grid has that of the nearest on it.
        x = self._nearest(x) if self.mass else x
        y, inside = x + self.step * (u[:, 0] - 0.5), np.ones(len(x), bool)
        log_det = np.log(self.step) if self.mass else 0.0
        if self.log:
            above = y + self.step / 2
            inside = inside & (above > 0)
            y = np.log(np.where(inside, above, 1))
            log_det = log_det - y
        z, log_slope = self.scale.encode(y)
        return z, np.where(inside, log_slope + log_det, -np.inf)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """As in `Kind`."""
        y = self.scale.decode(z)
        if self.log:
            y = np.exp(np.minimum(y, 709)) - self.step / 2
        half = self.step / 2
        y = _mirrored(y, self.low - half, self.high + half)
        return np.clip(self._nearest(y), self.low, self.high)

    def _nearest(self, y: np.ndarray) -> np.ndarray:
        return on_grid(self.low, self.step, nearest_place(y, self.low, self.step))


def _mirrored(y: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values with those a little beyond an end as far within: clipped, they would heap."""
    beyond = np.maximum(low - y, y - high)
    near = (beyond > 0) & (beyond <= (high - low) / 2)
    return np.where(near, np.where(y < low, 2 * low - y, 2 * high - y), y)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integer(Grid):
    """A grid of whole numbers.

    Attributes:
      between: of a cell's mass, what the whole numbers between its steps have together: none
        was seen, and none is impossible.
    """

    kind: ClassVar[str] = "integer"
    between: Share = 0.0

    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """As in `Kind`."""
        z, log_det = super().encode(x, u)
        return z, log_det + log_share(x, self.low, self.step, self.between)
