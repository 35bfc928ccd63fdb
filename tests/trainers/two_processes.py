"""One of the processes of `test_processes.py`: python two_processes.py PORT INDEX MODEL OUT."""

import json
import os
import pathlib
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np

from tests.trainers.layouts import MODELS, QUICK, VALID, X
from trainers import fit
from trainers.writers import JsonlWriter


def main(port: str, index: int, model: str, out: pathlib.Path):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    # Unequal shares: 60 and 41 rows.
    own = np.split(np.arange(len(X)), [60])[index]
    own_valid = np.split(np.arange(len(VALID)), [30])[index]
    with JsonlWriter(out / f"metrics-{index}.jsonl") as writer:
        result = fit(
            MODELS[model](),
            X[own],
            VALID[own_valid],
            mesh=mesh,
            writer=writer,
            config=QUICK,
        )
    log_prob = np.asarray(result.model.log_prob(VALID))  # whole, in this process alone
    history = {name: values.tolist() for name, values in result.history.items()}
    result = {"history": history, "log_prob": log_prob.tolist()}
    (out / f"result-{index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4]))
