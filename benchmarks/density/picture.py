"""Held-out log p over the seconds, and when the warm start is ahead of all others."""

import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks.density import summary
from benchmarks.density.fits import MIXTURE
from benchmarks.density.flows import PEERS, STARTS, WARM, WHITENED
from benchmarks.density.summary import Group
from benchmarks.report import Row
from rbig_nnx.plot import COLOURS

_DASHES = ("-", "--", ":", "-.")  # of our four starts
_TIMES = 400
_AHEAD = "#E6F0F7"


def draw(records: Sequence[Row], path: pathlib.Path):
    """A panel for each race against the clock."""
    from matplotlib.figure import Figure

    races = [g for g in summary.races(records) if g.limits("seconds")]
    figure = Figure(figsize=(5.2 * len(races), 4.6), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(races), squeeze=False)[0]
    for axes, group in zip(panels, races, strict=True):
        _panel(axes, group, group.limits("seconds")[-1])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _panel(axes, group: Group, limit: float):
    ends = [r["seconds_taken"] for r in group.records if r["seconds"] == limit]
    starts = [r["curve"][0][0] for r in group.records if r["seconds"] == limit]
    at = np.geomspace(min(starts), max(ends), _TIMES)
    means = {
        name: values.mean(axis=0)
        for name, values in summary.curves(group, limit, at).items()
    }
    shown = [*STARTS, *(_better(name, means) for name in PEERS if WHITENED not in name)]
    for name in (name for name in shown if name in means):
        ours = name in STARTS
        axes.plot(
            at,
            means[name],
            _DASHES[list(STARTS).index(name)] if ours else "-",
            color=COLOURS[0] if ours else COLOURS[1 + len(axes.lines) % 4],
            linewidth=2 if name == WARM else 1.2,
            label=name.removesuffix(WHITENED) if not ours else name,
        )
    mixture = summary.log_prob(group.of(MIXTURE))
    if mixture is not None:
        axes.axhline(mixture.value, color="#444444", linewidth=0.8, label=MIXTURE)
    told = _shade(axes, at, means)
    top = max(np.nanmax(curve) for curve in means.values())
    low = min(curve[-1] for curve in means.values())
    axes.set_ylim(low - 0.5 * (top - low), top + 0.1 * (top - low))
    axes.set_xscale("log")
    for which in ("major", "minor"):
        getattr(axes.xaxis, f"set_{which}_formatter")("{x:g}")
    axes.set_xlabel(f"{group.second}, start and compilation included")
    axes.set_ylabel("held-out log p, nats")
    axes.set_title(f"{group.table}, {group.num_rows:,} rows\n{told}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _better(name: str, means: dict[str, np.ndarray]) -> str:
    """Of a peer with and without whitening the one that ends higher."""
    names = [n for n in (name, name + WHITENED) if n in means]
    return max(names, key=lambda n: means[n][-1], default=name)


def _shade(axes, at: np.ndarray, means: dict[str, np.ndarray]) -> str:
    """Shades the seconds at which the warm start is ahead of every other; says which."""
    others = [curve for name, curve in means.items() if name != WARM]
    if WARM not in means or not others:
        return ""
    with np.errstate(invalid="ignore"):
        behind = np.any([curve >= means[WARM] for curve in others], axis=0)
    ahead = np.isfinite(means[WARM]) & ~behind
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ahead.astype(int), [0]])))
    spans = [(at[a], at[b - 1]) for a, b in edges.reshape(-1, 2)]
    for begin, end in spans:
        axes.axvspan(begin, end, color=_AHEAD, zorder=0)
    times = ", ".join(f"{begin:.0f} to {end:.0f}" for begin, end in spans)
    return f"warm start ahead of all (shaded): {times or 'never'}"
