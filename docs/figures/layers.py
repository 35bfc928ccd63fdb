"""Draws docs/figures/layers.png: rows of two moons on their way through one warm start.

Run it: python docs/figures/layers.py (half a minute)
"""

import pathlib

import jax
import numpy as np
from flax import nnx
from matplotlib.figure import Figure

import rbig_nnx as rn
from trainers.moons import Moons

NUM_BLOCKS = 4
SHOWN = 1_200  # points


def main():
    """Fits, pushes fresh rows through, draws where they are in front of each block's maps."""
    moons = Moons()
    flow = rn.coupling_flow(2, NUM_BLOCKS, rngs=nnx.Rngs(0))
    warm, report = rn.warm_start(
        flow, moons.train, key=jax.random.key(0), rotation="nongaussian"
    )
    x = np.asarray(moons.sample(SHOWN, random_state=1), np.float32)
    colour = np.argsort(np.argsort(x[:, 0]))
    stages = {"data": x}
    for layer, done in zip(warm.layers, report.layers, strict=True):
        x, _ = layer(x)
        if not isinstance(layer, rn.MixtureCDFCoupling):
            stages[_title(done, len(stages))] = x
    stages[f"latent: {report.log_prob:.2f}"] = x
    figure = Figure(figsize=(9, 9 * 2 / 4 + 0.4), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
    for ax, (title, points) in zip(axes, stages.items(), strict=False):
        ax.scatter(*points.T, c=colour, s=2, cmap="viridis", linewidths=0)
        ax.set_title(title, fontsize=9, loc="left")
        ax.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xticks=[], yticks=[])
    for ax in axes[len(stages) :]:
        ax.set_axis_off()
    path = pathlib.Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _title(done, count):
    kind = "standardised" if count == 1 else f"rotation {count - 1}"
    return f"{kind}: {done.log_prob:.2f}"


if __name__ == "__main__":
    main()
