"""Writes the golden checkpoint of the present format: `python -m tests.golden.regenerate`.

Run it only when the format's version has gone up, and keep the folders of the versions
before: later releases must read them.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn
from trainers import TrainConfig, fit, load_flow
from trainers.checkpoints.format import FORMAT_VERSION

HERE = pathlib.Path(__file__).parent
VIEWS = {
    "best": {},
    "last": {"step": "last"},
    "raw": {"step": "last", "weights": "raw"},
}
_CONFIG = TrainConfig(
    num_steps=4,
    batch_size=32,
    eval_every=2,
    steps_per_dispatch=2,
    learning_rate=0.5,
    schedule="constant",
    max_to_keep=1,
)


def main() -> None:
    """Trains a tiny flow for a few steps in the folder of the format's version."""
    folder = HERE / f"version_{FORMAT_VERSION}"
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(0)
    rows = random.normal(size=(100, 2)) @ [[1.0, 0.5], [0.0, 2.0]] + [3.0, -1.0]
    rows = rows.astype(np.float32)
    flow = rn.coupling_flow(2, 1, num_components=2, hidden=(2,), rngs=nnx.Rngs(0))
    flow, _ = rn.warm_start(flow, rows, key=jax.random.key(0))
    fit(flow, rows[:80], rows[80:], config=_CONFIG, workdir=folder)
    points = rows[:5]
    expected = {
        name: np.asarray(load_flow(folder, **view).log_prob(points)).tolist()
        for name, view in VIEWS.items()
    }
    (folder / "metrics.jsonl").unlink()
    for marker in folder.rglob(
        "commit_success.txt"
    ):  # Orbax names the writer's folders
        marker.write_text("Checkpoint commit was successful\n")
    text = json.dumps({"points": points.tolist(), "log_prob": expected}, indent=1)
    (folder / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
