"""One of the processes of `test_processes.py`: python two_processes.py PORT INDEX MODEL OUT."""

import dataclasses
import functools
import json
import os
import pathlib
import runpy
import signal
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rbig_nnx as rn
from tests.trainers.layouts import (
    HISTORY,
    MODELS,
    QUICK,
    STRATA,
    VALID,
    WEIGHTS,
    X,
    mesh_of,
)
from trainers import fit
from trainers.run.writers import JsonlWriter


def train(name: str, index: int, out: pathlib.Path) -> dict:
    """Trains on this process's share of the rows, of unequal sizes but for strata."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    strata = name == "strata"
    rows, own_size, config = (X[:100], 50, STRATA) if strata else (X, 60, QUICK)
    model = MODELS.get(name, MODELS["tiny"])()
    if name == "flow":
        spread = jax.make_array_from_process_local_data(
            NamedSharding(mesh, PartitionSpec("data")), np.split(X[:96], 2)[index]
        )
        model, _ = rn.warm_start(model, spread, key=jax.random.key(0))
    own = np.split(rows, [own_size])[index]
    own_valid = np.split(VALID, [30])[index]
    options = {}
    if name == "weights":
        options["weights"] = np.split(WEIGHTS, [own_size])[index]
        options["weights_valid"] = np.split(WEIGHTS[: len(VALID)], [30])[index]
    with JsonlWriter(out / f"metrics-{index}.jsonl") as writer:
        result = fit(
            model, own, own_valid, mesh=mesh, writer=writer, config=config, **options
        )
    log_prob = np.asarray(result.model.log_prob(VALID))  # whole, in this process alone
    history = {name: values.tolist() for name, values in result.history.items()}
    return {"history": history, "log_prob": log_prob.tolist()}


def stop_and_go_on(index: int, out: pathlib.Path) -> dict:
    """Stops once, with parameters spread over the processes, and goes on."""

    def stop(step, model):
        del model
        if step == QUICK.eval_every:
            raise RuntimeError("stopped")

    own, own_valid = np.split(X, [60])[index], np.split(VALID, [30])[index]
    config = dataclasses.replace(QUICK, checkpoint_every=1)
    fit_in = functools.partial(
        fit,
        MODELS["tiny"](),
        own,
        own_valid,
        config=config,
        mesh=mesh_of(4, 2),
        partition=(("*.kernel", (None, "data")),),
    )
    whole = fit_in()
    try:
        fit_in(workdir=out / "run", callback=stop)
    except RuntimeError:
        result = fit_in(workdir=out / "run")
    again = fit_in(workdir=out / "run")
    return {
        "same": [
            np.array_equal(found.history[name], whole.history[name], equal_nan=True)
            for found in (result, again)
            for name in HISTORY
        ],
        "log_prob": np.asarray(result.model.log_prob(VALID)).tolist(),
    }


def stop_by_signal(index: int, out: pathlib.Path) -> dict:
    """Stops in both processes when one of them gets SIGTERM."""
    config = dataclasses.replace(QUICK, num_steps=4_000, steps_per_dispatch=1)

    def signal_one(step, model):
        del model
        if step == QUICK.eval_every and index == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    result = fit(
        MODELS["tiny"](),
        np.split(X, [60])[index],
        config=config,
        mesh=mesh_of(8),
        workdir=out / "run",
        callback=signal_one,
    )
    return {"stop_reason": result.stop_reason, "steps": result.history["step"].tolist()}


def main(port: str, index: int, name: str, out: pathlib.Path):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    if name == "pod":
        pod = runpy.run_path("examples/pod.py")
        result = {"score": pod["main"](steps=60)}
    elif name == "resume":
        result = stop_and_go_on(index, out)
    elif name == "signal":
        result = stop_by_signal(index, out)
    else:
        result = train(name, index, out)
    (out / f"result-{index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4]))
