"""The pictures of a page, each with how to read it and what it shows in words."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr

from trainers.pages import judging
from trainers.pages.drawing import DATA, DRAWN, GRID, INK, THIRD, Picture, drawn
from trainers.pages.subject import Subject
from trainers.pages.views import View, dependence
from trainers.run.progress import visible

_CURVES = {"train": THIRD, "valid": DATA, "test": DRAWN}
_DASHES = {"train": ":", "valid": "-", "test": "--"}
_TITLE = 30  # letters over one column
_POINTS = 1_000  # in each of its cells


def curves(history: Mapping[str, Sequence[float]], best_step: int) -> list[Picture]:
    """log p of training, validation and test rows, over steps and over seconds."""
    values = {name: np.array(values, float) for name, values in history.items()}
    shown = [name for name in _CURVES if np.isfinite(values.get(name, np.nan)).any()]
    at = int(np.argmin(np.abs(values["step"] - best_step)))
    result = []
    for x, label in (("step", "step"), ("seconds", "seconds of training")):

        def draw(ax: Any, x: str = x, label: str = label):
            for name in shown:
                ax.plot(
                    values[x],
                    values[name],
                    _DASHES[name],
                    color=_CURVES[name],
                    label=name,
                )
            ax.axvline(values[x][at], color=INK, linewidth=0.8)
            late = values[x][at] > values[x].mean()
            ax.annotate(
                "returned",
                (values[x][at], 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(-3 if late else 3, 0),
                textcoords="offset points",
                ha="right" if late else "left",
                fontsize=8,
            )
            ax.set(title="mean log p (nats)", xlabel=label)
            ax.set_ylim(*_limits([values[name] for name in shown]))
            ax.grid(axis="y", linewidth=0.6)
            ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)

        ends = ", ".join(
            f"{name} {values[name][0]:.3f} at first, {values[name][at]:.3f} at the step"
            " that is returned"
            for name in shown
        )
        alt = f"Curves over {label}, to {values[x][-1]:.4g}: {ends}."
        result.append(Picture(drawn(draw, 4.6, 3.0), alt))
    return result


def warm_start(layers: Sequence[Mapping[str, Any]]) -> Picture:
    """What each layer of the start took out of the rows."""
    removed = np.array([layer["negentropy"] for layer in layers], float)
    names = [f"{i} {layer['name']}" for i, layer in enumerate(layers)]

    def draw(ax: Any):
        place = np.arange(len(removed))
        colours = np.where(removed < 0, DRAWN, DATA)
        ax.barh(place, removed, 0.7, color=colours.tolist())
        ax.set_yticks(place, names, fontsize=8)
        ax.invert_yaxis()
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.set(title="removed by each layer (nats)")
        ax.grid(axis="x", linewidth=0.6)

    told = "; ".join(f"{n} {v:+.3f}" for n, v in zip(names, removed, strict=True))
    height = 0.8 + 0.19 * len(names)
    return Picture(drawn(draw, 4.6, height), f"Bars, nats by layer: {told}.")


def kernels(after: Sequence[float]) -> Picture:
    """max|W| of the output kernels, which are zero at the start."""

    def draw(ax: Any):
        place = np.arange(len(after))
        ax.bar(place, after, 0.7, color=DATA)
        ax.set_xticks(place, [str(i + 1) for i in place], fontsize=8)
        ax.set(
            title="max |W| of each output kernel after training",
            xlabel="coupling, in order (each 0 at the start)",
        )
        ax.grid(axis="y", linewidth=0.6)

    told = ", ".join(f"{v:.2f}" for v in after)
    return Picture(drawn(draw, 4.6, 3.0), f"Bars, all 0 at the start, now: {told}.")


def marginal(view: View, title: str = "") -> Picture:
    """One column: shares of the data as bars, of what was drawn as a line."""
    if not title:
        kind = f" ({view.schema.kind_name})"
        title = f"{_short(view.name, _TITLE - len(kind))}{kind}"
    data, model = view.shares(view.data), view.shares(view.drawn)

    def draw(ax: Any):
        if view.levels:
            middle = np.arange(len(view.levels))
            ax.bar(middle, data, 0.7, color=DATA, alpha=0.4)
            ax.hlines(model, middle - 0.35, middle + 0.35, DRAWN, linewidth=2)
        else:
            ax.stairs(data, view.edges, fill=True, color=DATA, alpha=0.4)
            ax.stairs(model, view.edges, color=DRAWN, linewidth=1.5)
        ax.set_ylim(0, 1.08 * max(data.max(), model.max(), 1e-9))
        ax.set(yticks=[], title=_short(title, _TITLE))
        ax.spines.left.set_visible(False)
        _ticks(ax, view)

    middle = [view.text(np.nanmedian(x)) for x in (view.data, view.drawn)]
    apart = 0.5 * np.abs(data - model).sum()
    alt = (
        f"{view.name}: the median is {middle[0]} in the data and {middle[1]} in what was"
        f" drawn; {apart:.0%} of the mass would have to move."
    )
    return Picture(drawn(draw, 2.6, 1.8), alt)


def pairs(views: Sequence[View]) -> Picture:
    """Each pair of columns: the data below the diagonal, what was drawn above it."""
    count, points = len(views), min(len(views[0].data), _POINTS)  # as many of both
    scaled = [
        [_unit(v, x[:points], seed) for x in (v.data, v.drawn)]
        for seed, v in enumerate(views)
    ]
    size = float(np.clip(40 / np.sqrt(points), 1.2, 4))  # points of an inch

    def draw(ax: Any):
        for i in range(count):
            for j in range(count):
                if i == j:
                    _diagonal(ax, views[i], i, count)
                    continue
                side = 0 if i > j else 1
                x, y = scaled[j][side], scaled[i][side]
                ax.plot(
                    j + x,
                    count - 1 - i + y,
                    "o",
                    color=(DATA, DRAWN)[side],
                    alpha=0.6,
                    markersize=size,
                    markeredgewidth=0,
                    rasterized=True,
                )
        for k in range(count + 1):
            ax.axhline(k, color=GRID, linewidth=0.6)
            ax.axvline(k, color=GRID, linewidth=0.6)
        names = [_short(v.name, 12) for v in views]
        ax.set_xticks(np.arange(count) + 0.5, names, rotation=30, ha="right")
        ax.set_yticks(count - 0.5 - np.arange(count), names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set(xlim=(0, count), ylim=(0, count), aspect="equal")

    side = 1.2 + min(0.95 * count, 8.5)
    alt = (
        f"A matrix of {count} columns, {', '.join(v.name for v in views)}: points of the"
        " data below the diagonal and of what was drawn above it."
    )
    return Picture(drawn(draw, side, side), alt, wide=count > 4)


def slices(given: View, modelled: Sequence[View], most: int = 3) -> list[Picture]:
    """Columns where a given one lies low, in the middle and high, or has some value.

    Args:
      given: the column that is given.
      modelled: the others, of which those that depend on it most are shown.
      most: columns, and slices of each.
    """
    shown = sorted(modelled, key=lambda v: -dependence(given, v))[:most]
    result = []
    for name, holds in _parts(given, most):
        rows, drawn_rows = holds(given.data), holds(given.drawn)
        for view in shown:
            part = dataclasses.replace(
                view, data=view.data[rows], drawn=view.drawn[drawn_rows]
            )
            picture = marginal(part, f"{view.name} | {name}")
            alt = f"Given {name}, {rows.sum()} rows: {picture.alt}"
            result.append(dataclasses.replace(picture, alt=alt))
    return result


def latent(subject: Subject) -> Picture:
    """Distribution functions of the latent columns against the normal one."""
    n, width = subject.latent.shape
    u, at = ndtr(np.asarray(subject.latent, np.float64)), np.linspace(0, 1, 101)[1:-1]
    deviations = judging.uniform_deviations(u, at)
    band, outside = judging.BAND / np.sqrt(n), int(judging.outside_band(u).sum())

    def draw(ax: Any):
        ax.axhspan(-band, band, color=GRID, alpha=0.6, linewidth=0)
        ax.plot(at, deviations, color=DATA, linewidth=0.9, alpha=0.7)
        ax.axhline(0, color=INK, linewidth=0.8)
        top = 1.15 * max(2 * band, np.abs(deviations).max())
        ax.set(title="latent columns, F(u) − u", xlabel="u = Φ(z)", ylim=(-top, top))

    caption = (
        f"One line for each of {width} encoded columns. In a right model 95 % of the lines"
        f" stay in the grey band; {outside} of {width} leave it here. A line that rises and"
        " falls shows where the model has too little or too much mass."
    )
    alt = (
        f"Deviations of {width} latent columns from uniformity, at most"
        f" {np.abs(deviations).max():.3f}; the 95 % band is ±{band:.3f}."
    )
    return Picture(drawn(draw, 3.9, 2.9), alt, caption)


def density_levels(subject: Subject) -> Picture:
    """Coverage of the density's level sets on held-out rows."""
    at = np.linspace(0.01, 0.99, 99)
    found = judging.coverage(subject.log_prob, subject.drawn_log_prob, at)
    sizes = len(subject.log_prob), len(subject.drawn_log_prob)
    band = judging.BAND * np.sqrt(sum(sizes) / np.prod(np.asarray(sizes, np.float64)))
    furthest = int(np.argmax(np.abs(found - at)))

    def draw(ax: Any):
        ax.fill_between(at, at - band, at + band, color=GRID, alpha=0.6, linewidth=0)
        ax.plot((0, 1), (0, 1), color=INK, linewidth=0.8)
        ax.plot(at, found, color=DATA, linewidth=1.6)
        ax.set(
            title="rows in the densest region",
            xlabel="share that the model puts there",
            ylabel="share of test rows",
            xlim=(0, 1),
            ylim=(0, 1),
        )

    inside = abs(found[furthest] - at[furthest]) <= band
    caption = (
        "Of the densest region that holds a share p of what the model draws, the curve tells"
        " the share of test rows in it. On the diagonal the model is right; below it test"
        " rows lie where the model sees little, that is, it is too sure. Here the curve"
        f" {'stays in' if inside else 'leaves'} the 95 % band."
    )
    alt = (
        f"Coverage is furthest from right at {at[furthest]:.0%}, where {found[furthest]:.0%}"
        f" of the test rows lie; the band is ±{band:.1%}."
    )
    return Picture(drawn(draw, 3.9, 2.9), alt, caption)


def _parts(given: View, most: int) -> list[tuple[str, Callable]]:
    """Slices of a given column: what they are called, and which of its values they hold."""
    if given.levels:
        counts = np.bincount(given.bins(given.data), minlength=len(given.levels))
        found = np.argsort(-counts, kind="stable")[:most]
        return [
            (f"{given.name} = {given.levels[i]}", functools.partial(np.equal, i))
            for i in found
            if counts[i]
        ]
    ends = np.quantile(given.data, np.linspace(0, 1, most + 1))
    return [
        (
            f"{given.name} {given.text(low)} to {given.text(high)}",
            lambda x, low=low, high=high: (x >= low) & (x <= high),
        )
        for low, high in itertools.pairwise(ends)
    ]


def _ticks(ax: Any, view: View) -> None:
    """Places and names along the axis of a column."""
    from matplotlib.ticker import MaxNLocator

    if view.levels:
        step = -(-len(view.levels) // 6)
        places = np.arange(0, len(view.levels), step)
        rotated = any(len(view.levels[i]) > 4 for i in places)
        names = [_short(view.levels[i], 12) for i in places]
        turned = {"rotation": 25, "ha": "right"} if rotated else {}
        ax.set_xticks(places, names, fontsize=8, **turned)
        return
    low, high = view.edges[[0, -1]]
    if view.schema.unit:  # dates are wide, and round in no decimal
        places = low + (high - low) * np.array([0.1, 0.5, 0.9])
    else:
        found = MaxNLocator(4, integer=view.log).tick_values(low, high)
        places = found[(found >= low) & (found <= high)]
    ax.set_xticks(places, [view.text(p) for p in places], fontsize=8)


def _unit(view: View, x: np.ndarray, seed: int) -> np.ndarray:
    """Values as places between .06 and .94 of a cell, those beyond the ends left out."""
    low, high = view.edges[[0, -1]]
    spread = 0.3 if view.levels else 0.0
    noise = np.random.default_rng(seed).uniform(-spread, spread, len(x))
    place = (x + noise - low) / (high - low)
    return np.where((place >= 0) & (place <= 1), 0.06 + 0.88 * place, np.nan)


def _diagonal(ax: Any, view: View, i: int, count: int) -> None:
    edges = i + 0.06 + 0.88 * (view.edges - view.edges[0]) / np.ptp(view.edges)
    shares = view.shares(view.data), view.shares(view.drawn)
    top = max(map(np.max, shares)) or 1.0
    base = count - 1 - i
    for share, colour in zip(shares, (DATA, DRAWN), strict=True):
        ax.stairs(base + 0.9 * share / top, edges, baseline=base, color=colour)


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """An axis on which a bad start does not flatten the rest."""
    whole = np.concatenate([v[np.isfinite(v)] for v in values])
    low, first, high = np.quantile(whole, (0, 0.1, 1))
    low = max(low, first - 2 * (high - first)) if high > first else low
    room = 0.05 * (high - low) or 0.1
    return low - 3 * room, high + room


def _short(text: str, most: int) -> str:
    text = visible(text)  # fonts have no control characters
    return text if len(text) <= most else f"{text[: most - 1]}…"
