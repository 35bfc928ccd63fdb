"""One of the processes of `test_processes.py`: python two_processes.py PORT INDEX MODEL OUT."""

import json
import os
import pathlib
import runpy
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rbig_nnx as rn
from tests.trainers.layouts import MODELS, QUICK, VALID, X
from trainers import fit
from trainers.writers import JsonlWriter


def train(name: str, index: int, out: pathlib.Path) -> dict:
    """Trains on this process's share of the rows, of unequal sizes."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    model = MODELS[name]()
    if name == "flow":
        rows = jax.make_array_from_process_local_data(
            NamedSharding(mesh, PartitionSpec("data")), np.split(X[:96], 2)[index]
        )
        model, _ = rn.warm_start(model, rows, key=jax.random.key(0))
    own = np.split(X, [60])[index]
    own_valid = np.split(VALID, [30])[index]
    with JsonlWriter(out / f"metrics-{index}.jsonl") as writer:
        result = fit(model, own, own_valid, mesh=mesh, writer=writer, config=QUICK)
    log_prob = np.asarray(result.model.log_prob(VALID))  # whole, in this process alone
    history = {name: values.tolist() for name, values in result.history.items()}
    return {"history": history, "log_prob": log_prob.tolist()}


def main(port: str, index: int, name: str, out: pathlib.Path):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    if name == "pod":
        pod = runpy.run_path("examples/pod.py")
        result = {"score": pod["main"](steps=60)}
    else:
        result = train(name, index, out)
    (out / f"result-{index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4]))
