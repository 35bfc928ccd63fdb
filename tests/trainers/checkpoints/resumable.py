"""A run to be killed: `python -m tests.trainers.checkpoints.resumable FOLDER CACHE [EVERY]`,
a checkpoint every so many steps.

Ends with one line on standard output: a digest of the result's parameters and history.
"""

import dataclasses
import hashlib
import sys

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn
from trainers import FitResult, TrainConfig, fit, restore
from trainers.checkpoints.variables import arrays_of

CONFIG = TrainConfig(
    num_steps=2_000,
    batch_size=64,
    eval_every=100,
    steps_per_dispatch=5,
    checkpoint_every=20,
    patience=0,
)


def main(workdir: str, cache: str, every: str = "20") -> None:
    """Trains, or goes on training, in `workdir`."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rows = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    flow = rn.coupling_flow(2, 1, num_components=2, hidden=(8,), rngs=nnx.Rngs(0))
    config = dataclasses.replace(CONFIG, checkpoint_every=int(every))
    result = fit(flow, rows[:300], rows[300:], config=config, workdir=workdir)
    sys.stdout.write(f"{digest(workdir, flow, result)}\n")


def digest(workdir: str, flow: nnx.Module, result: FitResult) -> str:
    """Of all that a stop must not change: parameters, averages and history."""
    last = [
        restore(workdir, flow, step="last", weights=weights)
        for weights in ("ema", "raw")
    ]
    found = [array for model in (result.model, *last) for array in _values(model)]
    found += [v for k, v in sorted(result.history.items()) if k != "seconds"]
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in found)).hexdigest()


def _values(model):
    return [array for _, array in sorted(arrays_of(model).items())]


if __name__ == "__main__":
    main(*sys.argv[1:])
