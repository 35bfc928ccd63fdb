"""Kinds of columns: how the values of each become numbers near N(0, 1), and back.

Every kind is a map from one column to `width` encoded ones, in float64 on the host. What is
discrete is dequantised: a uniform u in (0, 1) picks a place in the value's cell, and

  P(x) = ∫_cell p(z) dz = E_u[p(z(x, u)) · |dz/du|],

so that `log p(z) + log_det` averaged over u (as exp) is the log of a *mass*. For levels,
z = Φ⁻¹(F(x⁻) + u P̂(x)) with the frequencies P̂ (the randomised probability integral
transform, Brockwell 2007): columns that are independent come out as exactly N(0, I).

Values that a kind cannot hold have log_det −inf: their density or mass is 0.
"""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta
from scipy.special import ndtri

LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_KNEE = 8.0  # standard deviations, beyond which distances count by their logarithm

Encoded = tuple[np.ndarray, np.ndarray]  # rows [n, width] and log_det [n], float64

# What a file may say, of which a kind is built: neither NaN nor infinite.
_FAR = 1.7e308
Real = Annotated[float, Meta(ge=-_FAR, le=_FAR)]
Width = Annotated[float, Meta(gt=0, le=_FAR)]
Share = Annotated[float, Meta(ge=0, le=1)]
Value = bool | int | float | str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Centre and spread, and far tails by their logarithm.

    t = (y − center) / spread; z = t to |t| = 8, then ±(8 + log(1 + |t| − 8)): increasing,
    with a continuous slope. One row at 10⁶ lies at 22 instead of ruining the fit.
    """

    center: Real
    spread: Width

    @classmethod
    def of(cls, y: np.ndarray) -> "Scale":
        """By quantiles, which single rows do not move."""
        center = float(np.median(y))
        # An outlier in fewer rows moves the outer quantiles.
        tail, normal = (0.01, 4.653) if len(y) >= 300 else (0.05, 3.290)
        low, first, third, high = np.quantile(y, (tail, 0.25, 0.75, 1 - tail))
        spread = max((third - first) / 1.349, (high - low) / normal)
        return cls(center=center, spread=float(spread or np.std(y) or 1.0))

    def encode(self, y: np.ndarray) -> Encoded:
        """Rows [n, 1] and the log-derivative [n]."""
        t = (y - self.center) / self.spread
        if not len(t) or max(-t.min(), t.max()) <= _KNEE:
            return t[:, None], np.full(len(t), -np.log(self.spread))
        beyond = np.maximum(np.abs(t) - _KNEE, 0)
        log = np.log1p(beyond)
        z = np.where(beyond > 0, np.sign(t) * (_KNEE + log), t)
        return z[:, None], -log - np.log(self.spread)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The inverse, [n, 1] to [n]."""
        z = z[:, 0]
        beyond = np.minimum(np.maximum(np.abs(z) - _KNEE, 0), 700)
        t = np.where(beyond > 0, np.sign(z) * (_KNEE + np.expm1(beyond)), z)
        return t * self.spread + self.center


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind(abc.ABC):
    """What the kinds have in common.

    Attributes:
      kind: its name.
      width: encoded columns.
      noise: uniform numbers a value needs.
      is_mass: whether log p is of a mass; otherwise of a density per unit of the column.
    """

    kind: ClassVar[str]
    width: ClassVar[int] = 1
    noise: ClassVar[int] = 0
    is_mass: ClassVar[bool] = False

    @abc.abstractmethod
    def encode(self, x: np.ndarray, u: np.ndarray) -> Encoded:
        """Rows [n, width] and log_det [n] of values [n] and noise [n, noise] in (0, 1)."""

    @abc.abstractmethod
    def decode(self, z: np.ndarray) -> np.ndarray:
        """Values [n] of encoded rows [n, width]."""

    def knows(self, x: np.ndarray) -> np.ndarray:
        """Whether `context` can tell what a value is, [n]."""
        return np.ones(len(x), bool)

    def context(self, x: np.ndarray) -> np.ndarray:
        """The column where it is given and not modelled: no noise, [n, k]."""
        return self.encode(x, np.full((len(x), self.noise), 0.5))[0]

    def to_config(self) -> dict[str, Any]:
        """JSON that `kind_from_config` takes."""
        return {"kind": self.kind} | dataclasses.asdict(self)


def probit(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Φ⁻¹(below), from whichever of the two masses, which add to 1, is smaller."""
    tiny = np.finfo(np.float64).tiny
    lower = ndtri(np.maximum(below, tiny))
    return np.where(below <= above, lower, -ndtri(np.maximum(above, tiny)))


def nearest_place(x: np.ndarray, low: float, step: float) -> np.ndarray:
    """Numbers of the nearest steps of a grid; of what lies half-way, the step above."""
    return np.floor((x - low) / step + 0.5)


def log_share(x: np.ndarray, low: float, step: float, between: float) -> np.ndarray:
    """Log of each whole number's share of the mass of its cell, [n].

    Args:
      x: values, of which the nearest whole numbers count.
      low: a step of the grid.
      step: its width, a whole number: as many lie in a cell.
      between: what those that are no step have together.
    """
    if not between:
        return np.zeros(len(x))
    off = np.rint(x) != low + step * nearest_place(x, low, step)
    return np.where(off, np.log(between / (step - 1)), np.log1p(-between))


def on_grid(low: float, step: float, places: np.ndarray) -> np.ndarray:
    """low + step · places, as a decimal step writes it: 45.3 and not 45.300000000000004."""
    values = low + step * places
    for digits in range(13):
        scaled = step * 10.0**digits
        if abs(scaled - round(scaled)) <= 1e-9 * scaled:
            return np.round(values, digits) if _is_decimal(low, digits) else values
    return values


def _is_decimal(x: float, digits: int) -> bool:
    return abs(round(x, digits) - x) <= 1e-12 * max(abs(x), 1)


def log_normal(z: np.ndarray) -> np.ndarray:
    """log φ(z)."""
    return -0.5 * z * z - LOG_SQRT_2PI
