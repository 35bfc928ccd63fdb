"""The pictures: training curves, kernel magnitudes, densities (matplotlib, an extra)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Okabe and Ito's colours: told apart by every eye, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_INK = "#444444"
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 130,
}


def _figure(num_columns: int, width: float, height: float) -> tuple[Any, np.ndarray]:
    """A figure of one row of axes that opens no window.

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
        axes = figure.subplots(1, num_columns, squeeze=False)[0]
    return figure, axes


def curves(
    histories: Mapping[str, Mapping[str, np.ndarray]],
    limit: float | None,
    path: str | os.PathLike,
) -> None:
    """Training and held-out log p over the steps, the true limit drawn in.

    Args:
      histories: by label, `steps` [t] and `train`, `valid` [seeds, t] in nats.
      limit: the true density's mean log p on the held-out points; None if unknown.
      path: the picture's file.
    """
    figure, axes = _figure(2, 9, 3.6)
    for ax, name, title in zip(
        axes, ("train", "valid"), ("training points", "held-out points"), strict=True
    ):
        for colour, (label, history) in zip(COLOURS, histories.items(), strict=False):
            values = np.atleast_2d(history[name])
            ax.plot(history["steps"], values.T, color=colour, alpha=0.25, linewidth=0.8)
            mean = values.mean(axis=0)
            ax.plot(history["steps"], mean, color=colour, linewidth=2, label=label)
        if limit is not None:
            ax.axhline(limit, color=_INK, linestyle="--", linewidth=1)
            ax.annotate(
                f"true density {limit:.3f}",
                (1, limit),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="right",
                color=_INK,
            )
        _zoom(ax, [h[name] for h in histories.values()], limit)
        ax.set(title=f"log p of {title}, nats", xlabel="step")
    axes[1].legend(frameon=False, loc="lower right")
    figure.savefig(path)


def _zoom(ax: Any, values: Sequence[np.ndarray], limit: float | None) -> None:
    """Shows the last nat or so: an untrained model would flatten all the rest."""
    top = max(float(np.max(v)) for v in values)
    top = top if limit is None else max(top, limit)
    ax.set_ylim(top - 0.75, top + 0.06)


def kernel_magnitudes(
    before: Sequence[float], after: Sequence[float], path: str | os.PathLike
) -> None:
    """Bars of max|W| of each coupling's output kernel, before and after training.

    Args:
      before: one value a coupling, at the warm start.
      after: the same, trained.
      path: the picture's file.
    """
    figure, (ax,) = _figure(1, 6, 3)
    place = np.arange(len(before))
    for shift, values, colour, label in (
        (-0.2, before, COLOURS[1], "warm start"),
        (0.2, after, COLOURS[0], "trained"),
    ):
        bars = ax.bar(place + shift, values, 0.38, color=colour, label=label)
        ax.bar_label(
            bars, [f"{v:.2f}" if v else "0" for v in values], fontsize=8, color=_INK
        )
    ax.set_xticks(place, [str(i + 1) for i in place])
    ax.set(title="max |W| of the output kernels", xlabel="coupling")
    ax.margins(y=0.15)
    ax.legend(frameon=False, loc="upper left", ncols=2)
    figure.savefig(path)


def densities(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    samples: np.ndarray | None,
    path: str | os.PathLike,
) -> None:
    """Two-dimensional densities side by side on one colour scale.

    Args:
      panels: by title, grids of x, y and log p in nats, each [h, w].
      samples: points drawn over the first panel, [n, 2]; None for none.
      path: the picture's file.
    """
    figure, axes = _figure(len(panels), 2.9 * len(panels) + 0.8, 3.1)
    # The first panel sets the scale: a needle elsewhere must not darken all the others.
    top = float(np.exp(np.max(next(iter(panels.values()))[2])))
    for ax, (title, (x, y, log_p)) in zip(axes, panels.items(), strict=True):
        mesh = ax.pcolormesh(
            x, y, np.exp(log_p), vmin=0, vmax=top, cmap="magma", rasterized=True
        )
        ax.set(title=title, xticks=[], yticks=[], aspect="equal")
    if samples is not None:
        axes[0].plot(*np.asarray(samples)[:400].T, ".", color="white", ms=1.2, alpha=0.5)
    figure.colorbar(mesh, ax=list(axes), label="density", shrink=0.8)
    figure.savefig(path)
