"""The pictures: training curves, kernel magnitudes, densities; the `plot` extra."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Okabe and Ito's colours: told apart by every eye, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_INK = "#444444"
_SPAN = 0.75  # nats below the best curve that are shown: the rest is untrained
_STYLE: Any = {  # matplotlib names the keys' type, and is an extra
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "savefig.dpi": 150,
}


@contextlib.contextmanager
def _picture(
    path: str | os.PathLike, num_columns: int, width: float, height: float
) -> Iterator[tuple[Any, Sequence[Any]]]:
    """A figure with one row of axes, opening no window, saved at the end.

    Raises:
      ImportError: without matplotlib, naming the extra.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib; install it with pip install 'rbig-nnx[plot]'."
        ) from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(1, num_columns, squeeze=False)[0]
        figure.savefig(path)


def curves(
    histories: Mapping[str, Mapping[str, np.ndarray]],
    limit: float | None,
    path: str | os.PathLike,
) -> None:
    """Training and held-out log p over the steps, the true limit drawn in.

    Seeds are thin lines, their mean a thick one; the best 0.75 nats are shown.

    Args:
      histories: by label, `steps` [t] and `train`, `valid` [seeds, t] or [t] in nats.
      limit: the true density's mean log p on the held-out points; None if unknown.
      path: the picture's file.
    """
    tops = [
        np.nanmax(h[name]) for h in histories.values() for name in ("train", "valid")
    ]
    top = max(tops if limit is None else [*tops, limit])
    with _picture(path, 2, 9, 3.8) as (_, axes):
        for ax, name, title in zip(
            axes,
            ("train", "valid"),
            ("training points", "held-out points"),
            strict=True,
        ):
            ends = {}
            for i, (label, history) in enumerate(histories.items()):
                colour, steps = COLOURS[i % len(COLOURS)], np.asarray(history["steps"])
                values = np.atleast_2d(history[name])
                ax.plot(steps, values.T, color=colour, alpha=0.3, linewidth=0.8)
                mean = values.mean(axis=0)
                ax.plot(steps, mean, color=colour, linewidth=2, label=label)
                ends[label] = (mean[-1], colour)
            ax.set_ylim(top - _SPAN, top + 0.08)
            ax.set(title=f"mean log p of {title} (nats)", xlabel="step")
            ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
            ax.set_axisbelow(True)
            if limit is not None:
                ax.axhline(limit, color=_INK, linestyle="--", linewidth=1.2)
                ends[f"truth {limit:.4f}"] = (limit, _INK)
            _label_ends(ax, ends)


def _label_ends(ax: Any, ends: Mapping[str, tuple[float, str]]) -> None:
    """Each curve's name at its end, kept apart where the curves meet."""
    low, high = ax.get_ylim()
    gap, place = 0.065 * (high - low), np.inf
    for label, (y, colour) in sorted(ends.items(), key=lambda end: -end[1][0]):
        place = max(min(y, place - gap), low)
        ax.annotate(
            label,
            (1, place),
            xycoords=ax.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def kernel_magnitudes(
    before: Sequence[float], after: Sequence[float], path: str | os.PathLike
) -> None:
    """Bars of max|W| of each coupling's output kernel, before and after training.

    Args:
      before: one value a coupling, at the warm start.
      after: the same, trained.
      path: the picture's file.
    """
    place = np.arange(len(before))
    with _picture(path, 1, 1.5 + 0.65 * max(len(before), 6), 3) as (_, (ax,)):
        for shift, values, colour, label in (
            (-0.2, before, COLOURS[1], "warm start"),
            (0.2, after, COLOURS[0], "trained"),
        ):
            bars = ax.bar(place + shift, values, 0.38, color=colour, label=label)
            numbers = [f"{v:.2f}" if v else "0" for v in values]
            ax.bar_label(bars, numbers, fontsize=8, color=colour, padding=2)
        ax.set_xticks(place, [str(i + 1) for i in place])
        ax.set(title="max |W| of each output kernel", xlabel="coupling, in order")
        ax.margins(y=0.12)
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def densities(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    samples: np.ndarray | None,
    path: str | os.PathLike,
) -> None:
    """Two-dimensional densities side by side on the first one's colour scale.

    Args:
      panels: by title, grids of x, y and log p in nats, each [h, w]; the truth first.
      samples: points drawn over the first panel, [n, 2], at most 400; None for none.
      path: the picture's file.
    """
    x, y, log_p = next(iter(panels.values()))
    # A needle elsewhere must not darken all the others.
    top = float(np.exp(np.nanmax(log_p)))
    shape = np.ptp(y) / np.ptp(x)
    width = 3.0
    with _picture(
        path, len(panels), width * len(panels) + 0.9, width * shape + 0.5
    ) as (
        figure,
        axes,
    ):
        mesh: Any = None
        for ax, (title, (x, y, log_p)) in zip(axes, panels.items(), strict=True):
            mesh = ax.pcolormesh(
                x, y, np.exp(log_p), vmin=0, vmax=top, cmap="magma", rasterized=True
            )
            ax.set(title=title, xticks=[], yticks=[], aspect="equal")
            ax.set(xlim=(np.min(x), np.max(x)), ylim=(np.min(y), np.max(y)))
            ax.spines[:].set_visible(False)
        if samples is not None:
            points = np.asarray(samples)[:400].T
            axes[0].plot(*points, ".", color="white", markersize=1.5, alpha=0.6)
        figure.colorbar(mesh, ax=axes[-1], label="density", fraction=0.046, pad=0.03)
