"""Which kind a column is, from its type and its values."""

import dataclasses
import re
from typing import Any

import numpy as np

from trainers.tables.checks import InputError, near, refuse_extreme
from trainers.tables.kinds.base import Kind, Scale
from trainers.tables.kinds.found import Found, text
from trainers.tables.kinds.grids import (
    MAX_CELLS,
    are_whole,
    between,
    cells_of,
    is_sparse,
    on_steps,
    rounded,
    step_of,
    whole_step,
)
from trainers.tables.kinds.levels import Levels, Skipped, Spike
from trainers.tables.kinds.numbers import Bounded, Continuous, Grid, Integer, Positive
from trainers.tables.kinds.remarks import far_values, remarked
from trainers.tables.kinds.words import counted, no_numbers, of_words, sorted_levels

NAMES = (
    "continuous", "positive", "bounded(lo, hi)", "rounded(step)", "integer",
    "spike(value)", "categorical", "boolean", "date", "skipped",
)  # fmt: skip
_NATURAL = ((0, 24), (0, 360), (-180, 180), (-90, 90))  # and [0, 10^k], [-10^k, 10^k]
_MAX_SPARSE_CELLS = 20_000  # of a grid of which most cells are empty
_MAX_VALUES = 30  # on no such grid, that are levels
_TIES = 0.05  # share of repeated values from which a column is on a grid
_SPIKE = 0.02  # share of the rows from which one value is a spike
_EDGE_SPIKE = 0.05  # likewise, of the least value among heaps
_MAX_SPIKES = 2
_FEWEST_POSITIVE = 10  # rows, of which fewer may be above 0 by chance
_NEAR_ZERO = 4  # standard deviations
_LOOKED_AT = 50_000  # values that decide, of more, if the kind then holds them all


def find(x: np.ndarray, *, where: str, mass: bool = True, given: bool = False) -> Found:
    """The kind of a column's values.

    Args:
      x: the values that are not missing, [n]: numbers in the type they came in, or words.
      where: what messages call the column.
      mass: False takes rounded columns as densities.
      given: whether the column is a context, which is not modelled.

    Raises:
      InputError: words that are numbers.
    """
    if x.dtype == object:
        return of_words(x, where)
    refuse_extreme(x, where)
    found = None
    if len(x) > _LOOKED_AT:
        part = np.random.default_rng(0).choice(x, _LOOKED_AT, replace=False)
        found = _for_all(_find(part, where=where, mass=mass, given=given), x)
    found = found or _find(x, where=where, mass=mass, given=given)
    return found if given else remarked(found, x, where)


def _find(x: np.ndarray, *, where: str, mass: bool, given: bool) -> Found:
    levels = np.unique(x)
    if len(levels) <= 1:
        value = levels[0].item() if len(levels) else None
        return Found(Skipped(reason="constant", value=value), f"always {text(value)}")
    if given:
        return _of_context(x, levels)
    if x.dtype == bool:
        return Found(counted(x, levels, "boolean"), "true or false")
    return _of_numbers(x, levels, where=where, mass=mass)


def _for_all(found: Found, x: np.ndarray) -> Found | None:
    """What a part of x has shown, if it holds for x."""
    kind = found.kind
    if isinstance(kind, Levels) and kind.step and len(kind.levels) > MAX_CELLS:
        return None  # a part has not seen all levels
    if isinstance(kind, Grid):
        kind = dataclasses.replace(kind, low=float(x.min()), high=float(x.max()))
    return dataclasses.replace(found, kind=kind) if _holds(kind, x) else None


def _holds(kind: Kind, x: np.ndarray) -> bool:
    """Whether every value has a density or a mass."""
    if isinstance(kind, Skipped):
        return bool((x == kind.value).all())
    middle = np.full((len(x), kind.noise), 0.5)
    return bool(np.isfinite(kind.encode(np.asarray(x, np.float64), middle)[1]).all())


def declared(x: np.ndarray, words: str, *, where: str, mass: bool = True) -> Found:
    """The kind that a user asked for, as in "positive" or "bounded(0, 1)"; as `find`.

    Raises:
      InputError: an unknown kind, or values that it cannot hold.
    """
    match = re.fullmatch(r"\s*([a-z-]+)\s*(?:[(:]([^)]*)\)?)?\s*", str(words))
    name = match[1] if match else ""
    try:
        numbers = [
            float(part)
            for part in re.split(r"[,;]", (match and match[2]) or "")
            if part
        ]
    except ValueError:
        name = ""
    known = [one.partition("(")[0] for one in NAMES]
    if name not in known:
        raise InputError(
            f"`kinds` must be one of {', '.join(NAMES)}; got {words!r} for {where}."
            f"{near([str(words)], known)}"
        )
    why = "as asked"
    if name == "skipped":
        return Found(Skipped(reason=why), why)
    if (x == x[0]).all():
        raise InputError(
            f"`kinds` asks for {name}; {where} holds one value only, which has no density."
            " Use skipped, or leave the kind out."
        )
    if name in ("categorical", "boolean"):
        levels = sorted_levels(x)
        if name == "boolean" and len(levels) > 2:
            raise InputError(
                f"`kinds` asks for boolean, which has two values; {where} holds"
                f" {len(levels):,}. Use categorical, or leave the kind out."
            )
        return Found(counted(x, levels, name), why)
    if x.dtype == object or name == "date":
        raise no_numbers(name, x, where)
    refuse_extreme(x, where)
    if name in ("rounded", "integer"):
        levels = np.unique(x)
        step = numbers[0] if numbers else 1.0
        if not 0 < step < np.inf:
            raise InputError(
                f"`kinds` must give a step above 0, as in rounded(0.1); got {words!r} for"
                f" {where}."
            )
        if name != "integer" and not numbers:
            step = step_of(levels)
        if step is None:
            found = Found(Continuous(scale=Scale.of(np.asarray(x, np.float64))), why)
            return dataclasses.replace(found, why=f"{why}; no step found")
        snapped = on_steps(x, step, whole=name == "integer")
        levels = np.unique(snapped)
        off = bool((snapped != x).any())  # which only a grid has a place for
        found = _on_grid(snapped, levels, step, name, why, mass=mass, off=off)
        return remarked(found, x, where)
    y = np.asarray(x, np.float64)
    if name == "spike":
        return _asked_spike(x, numbers, words, where=where, mass=mass)
    if name == "continuous":
        return Found(Continuous(scale=Scale.of(y)), why)
    if name == "positive":
        if not (y > 0).all():
            raise InputError(
                f"`kinds` asks for positive, above 0; {where} holds {y.min():g}. Use"
                " continuous, or leave those rows out."
            )
        return Found(Positive(scale=Scale.of(np.log(y))), why)
    if len(numbers) != 2 or not -np.inf < numbers[0] < numbers[1] < np.inf:
        raise InputError(
            f"`kinds` must give finite bounds as in bounded(0, 1); got {words!r} for"
            f" {where}. Without an upper one use positive."
        )
    low, high = numbers
    if y.min() < low or y.max() > high:
        raise InputError(
            f"`kinds` asks for bounded({low:g}, {high:g}); {where} holds {y.min():g} to"
            f" {y.max():g}. Widen the bounds, or leave those rows out."
        )
    return Found(_bounded(y, low, high), why)


def _asked_spike(x, numbers, words, *, where: str, mass: bool) -> Found:
    rest = x[x != numbers[0]] if len(numbers) == 1 else x
    if len(rest) == len(x) or len(np.unique(rest)) < 2:
        raise InputError(
            f"`kinds` must name a value that {where} holds beside at least two others, as in"
            f" spike(0); got {words!r}."
        )
    found = _of_numbers(
        rest, np.unique(rest), where=where, mass=mass, spikes=_MAX_SPIKES
    )
    return _spiked(x, numbers[0], found)


def _of_context(x: np.ndarray, levels: np.ndarray) -> Found:
    if len(levels) == 2:
        return Found(counted(x, levels, "boolean"), "two values")
    return Found(Continuous(scale=Scale.of(np.asarray(x, np.float64))), "a number")


def _of_numbers(x, levels, *, where: str, mass: bool, spikes: int = 0) -> Found:
    spike = _spike(x, where=where, mass=mass, spikes=spikes)
    if spike is not None:
        return spike
    n, ties = len(x), 1 - len(levels) / len(x)
    if x.dtype.kind in "iub" or are_whole(x):
        step = float(whole_step(levels))
        if ties <= _TIES and step != 1:
            if x.dtype.kind == "f":
                return _real(x)
            step = 1.0
        return _on_grid(x, levels, step, "integer", "whole numbers", mass=mass)
    grid = rounded(x) if ties > _TIES else None
    if grid is not None:
        step, snapped = grid
        why = f"steps of {step:g}"
        levels = np.unique(snapped)
        return _on_grid(snapped, levels, step, "rounded", why, mass=mass)
    if len(levels) <= _MAX_VALUES and n >= 3 * len(levels):
        return Found(counted(x, levels, "categorical"), f"{len(levels)} values")
    found = _real(x)
    if ties > 0.2:
        note = (
            f"{where}: {ties:.0%} of its values repeat others, on no grid; a density"
            " makes spikes of them. Leave repeated rows out, or say its kind (`kinds`)."
        )
        found = dataclasses.replace(found, note=note)
    return found


def _real(x: np.ndarray) -> Found:
    """A column of real numbers: bounded, positive, or anything."""
    y = np.asarray(x, np.float64)
    low, high, width = y.min(), y.max(), np.ptp(y)
    ten = 10.0 ** np.ceil(np.log10(max(high, 1e-300)) - 1e-9)
    for a, b in (*_NATURAL, (0, ten), (-ten, ten)):
        close = a <= low <= a + 0.02 * width and b - 0.02 * width <= high <= b
        if len(y) >= 50 and close and _is_full(y):
            return Found(_bounded(y, a, b), f"fills [{a:g}, {b:g}]")
    if low >= 0 and len(y) >= _FEWEST_POSITIVE:
        middle = np.sort(y)[len(y) // 100 : len(y) - len(y) // 100]
        floor = 0.0 if low > 0 else -float(middle[middle > 0].min()) / 2
        log = np.log(middle - floor)
        # Gaussian log likelihoods, the logarithm's slope counted.
        if np.log(np.std(middle)) - np.log(np.std(log)) - log.mean() > 0.1:
            kind = Positive(floor=floor, scale=Scale.of(np.log(y - floor)))
            return Found(kind, "above 0, skewed" if low > 0 else "from 0, skewed")
    # Near enough for a draw to fall below it.
    near = low > 0 and y.mean() < _NEAR_ZERO * y.std()
    return Found(Continuous(scale=Scale.of(y)), f"numbers{' above 0' if near else ''}")


def _is_full(y: np.ndarray) -> bool:
    """Whether both ends of the range are as full as those of bounded columns are."""
    if np.diff(np.sort(y)).max() > np.ptp(y) / 2:
        return False  # one end is a few values far from the others
    low, high = y.min() + 0.05 * np.ptp(y), y.max() - 0.05 * np.ptp(y)
    return min(np.mean(y <= low), np.mean(y >= high)) > 0.005


def _bounded(y: np.ndarray, low: float, high: float) -> Bounded:
    """A little wider where values lie on the bounds themselves."""
    out = 1e-3 * (high - low)
    return Bounded(
        low=float(low),
        high=float(high),
        floor=float(low - out * bool((y == low).any())),
        ceiling=float(high + out * bool((y == high).any())),
    )


def _on_grid(
    x, levels, step: float, name: str, why: str, *, mass: bool, off: bool = False
) -> Found:
    low, high = float(levels[0]), float(levels[-1])
    cells = round((high - low) / step) + 1
    if name == "integer" and step > 1:
        why = f"{why} in steps of {step:g}"
    if name == "integer" and len(levels) == 2 and (low, high) == (0, 1) and not off:
        return Found(counted(x, levels, "boolean"), "0 or 1")
    whole = name == "integer"
    if mass or whole:
        if cells <= MAX_CELLS and len(x) >= 3 * len(levels):
            why = f"{why}, {text(low)} to {text(high)}"
            return Found(cells_of(x, low, step, cells, name), why)
        if is_sparse(x, levels, step):
            why = f"{len(levels)} values that repeat, of {cells:,} steps of {step:g}"
            if cells <= _MAX_SPARSE_CELLS:
                return Found(cells_of(x, low, step, cells, name), why)
            if len(levels) <= _MAX_VALUES and not off:
                return Found(counted(x, levels, "categorical"), why)
    y = np.asarray(x, np.float64)
    options: dict[str, Any] = {"step": step, "low": low, "high": high}
    if whole:
        mass, options["between"] = True, between(step, len(x))
    real = _real(y + step * (np.random.default_rng(0).random(len(y)) - 0.5))
    if low >= 0 and isinstance(real.kind, Positive):
        scale = Scale.of(np.log(y + step / 2))
        kind = (Integer if whole else Grid)(**options, log=True, mass=mass, scale=scale)
        return Found(kind, f"{why}, skewed")
    kind = (Integer if whole else Grid)(**options, mass=mass, scale=Scale.of(y))
    return Found(kind, why)


def _spike(x: np.ndarray, *, where: str, mass: bool, spikes: int) -> Found | None:
    """One value that many rows share while the others hardly repeat, or far from them."""
    values, counts = np.unique(x, return_counts=True)
    if len(values) < 2 or spikes >= _MAX_SPIKES:
        return None
    order = np.argsort(counts)
    most, value = counts[order[-1]], values[order[-1]]
    # Zeros of money stand out among heaps less than others do among values that are unlike.
    times = 3 if value == values[0] and most >= _EDGE_SPIKE * len(x) else 10
    lonely = len(values) > 30 and most >= max(
        10, times * counts[order[-2]], _SPIKE * len(x)
    )
    far = {v: n for v, n in far_values(x).items() if n > 1}
    if not lonely and not far:
        return None
    value = value if lonely else max(far, key=far.get)
    rest = x[x != value]
    found = _of_numbers(
        rest, np.unique(rest), where=where, mass=mass, spikes=spikes + 1
    )
    return _spiked(x, value, found)


def _spiked(x: np.ndarray, value: float, found: Found) -> Found:
    share = float(np.mean(x == value))
    kind = Spike(value=float(value), share=share, rest=found.kind)
    why = f"{text(value)} in {share:.0%} of the rows, beside {found.why}"
    return Found(kind, why, found.note)
