"""LoRA: a restored flow adapted to a changed source through low-rank changes of its kernels.

A flow is trained on two moons, saved, and restored. Every `nnx.Linear` in it is then wrapped in
an `nnx.LoRA`, which starts as no change, and only those factors train, on 200 rows of the same
moons turned by 10 degrees and moved. Beside it: all parameters trained on the same rows.

Run it: python examples/lora.py (90 seconds of one core)
Reaches a gap to the true log p of 0.144 ± 0.013 nats with LoRA and 0.186 ± 0.006 with all
parameters, from 1.447 as restored (5,000 fresh rows, three seeds of the 200).
"""

import pathlib
import tempfile

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn
from trainers import TrainConfig, fit, restore, save
from trainers.moons import Moons

ANGLE, SHIFT, NUM_ROWS = np.deg2rad(10), np.array([0.15, -0.1]), 200


def moved(x):
    """Rows of the changed source: a turn and a move, which change no volume."""
    cos, sin = np.cos(ANGLE), np.sin(ANGLE)
    return (x @ np.array([[cos, sin], [-sin, cos]]) + SHIFT).astype(np.float32)


def build():
    """The architecture, as `restore` wants it."""
    return rn.coupling_flow(2, 3, hidden=(64,), rngs=nnx.Rngs(0))


def with_lora(flow, rank, rngs):
    """A copy of the flow with every `nnx.Linear` wrapped."""
    flow = nnx.clone(flow)
    for _, module in list(nnx.iter_modules(flow)):
        for name, child in list(nnx.iter_children(module)):
            if isinstance(child, nnx.Linear):
                sizes = child.in_features, rank, child.out_features
                wrapped = nnx.LoRA(*sizes, base_module=child, rngs=rngs)
                if isinstance(module, nnx.List):
                    module[name] = wrapped
                else:
                    setattr(module, name, wrapped)
    return flow


def main(steps=400, rank=4, seeds=3):
    """Prints the table; returns the gap to the truth in nats by way, [seeds]."""
    moons = Moons()
    fresh = moons.sample(5_000, random_state=1)
    limit = float(moons.log_prob(fresh).mean())
    config = TrainConfig(num_steps=2 * steps)
    warm, _ = rn.warm_start(build(), moons.train, key=jax.random.key(0))
    result = fit(warm, moons.train, config=config, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        save(pathlib.Path(folder) / "moons", result.model)
        old = restore(pathlib.Path(folder) / "moons", build())
    gaps = {"as restored": [limit - float(old.log_prob(moved(fresh)).mean())] * seeds}
    for seed in range(seeds):
        ways = {
            "LoRA": (with_lora(old, rank, nnx.Rngs(seed)), nnx.LoRAParam),
            "all parameters": (old, nnx.Param),
        }
        for name, (start, trainable) in ways.items():
            adapted = fit(
                start,
                moved(moons.sample(NUM_ROWS, random_state=100 + seed)),
                moved(moons.sample(NUM_ROWS, random_state=200 + seed)),
                config=TrainConfig(num_steps=steps, learning_rate=1e-3, seed=seed),
                trainable=trainable,
                progress=False,
            ).model
            gap = limit - float(adapted.log_prob(moved(fresh)).mean())
            gaps.setdefault(name, []).append(gap)
    sizes = {"as restored": 0}
    for name, (start, trainable) in ways.items():
        leaves = jax.tree.leaves(nnx.state(start, trainable))
        sizes[name] = sum(leaf.size for leaf in leaves)
    print(
        f"gap to the true log p of the moved moons, nats, {seeds} seeds of {NUM_ROWS} rows"
    )
    for name, values in gaps.items():
        error = np.std(values, ddof=1) / np.sqrt(seeds)
        print(
            f"{name:<15}{np.mean(values):.3f} ± {error:.3f}{sizes[name]:8} trained numbers"
        )
    assert np.mean(gaps["LoRA"]) < gaps["as restored"][0]
    return gaps


if __name__ == "__main__":
    main()
