"""One of the processes of `test_processes.py`: python two_processes.py PORT INDEX MODEL OUT."""

import contextlib
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
import jax.numpy as jnp
import numpy as np
from flax import nnx
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
    flow,
    mesh_of,
)
from tests.trainers.tiny import Tiny
from trainers import fit, load_flow, restore, save
from trainers.paths import Path, in_bucket, placed
from trainers.run.writers import JsonlWriter


def train(name: str, index: int, out: Path) -> dict:
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


def stop_and_go_on(index: int, out: Path) -> dict:
    """Stops once, with parameters spread over the processes, and goes on."""
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
        fit_in(workdir=out / "run", callback=stop_at(QUICK.eval_every))
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


def stop_by_signal(index: int, out: Path) -> dict:
    """Stops in both processes when one of them gets SIGTERM."""
    config = dataclasses.replace(QUICK, num_steps=4_000)

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


def save_together(index: int, out: Path) -> dict:
    """Writes a model over an earlier one, one that both hold, and a run that stops."""
    own = flow(num_blocks=index + 1)
    save(out / "model", own, step=3)
    blocks = len(load_flow(out / "model").layers)
    alone = len(load_flow(out / "model").layers) if index else blocks
    held = spread(Tiny(), mesh_of(4, 2))
    save(out / "held", held)
    back = restore(out / "held", held)
    same = [
        bool(jnp.array_equal(old, new)) and old.sharding == new.sharding
        for old, new in zip(
            *map(jax.tree.leaves, map(nnx.state, (held, back))), strict=True
        )
    ]
    refused = "" if in_bucket(out) else refused_here(own, out / f"own-{index}")
    try:
        fit(
            Tiny(),
            np.split(X, [60])[index],
            np.split(VALID, [30])[index],
            config=dataclasses.replace(QUICK, checkpoint_every=1),
            mesh=mesh_of(8),
            workdir=out / "run",
            callback=stop_at(QUICK.eval_every),
        )
    except RuntimeError:
        stopped = True
    return {
        "layers": [blocks, alone],
        "same": same,
        "refused": refused,
        "stopped": stopped,
    }


def refused_here(model: nnx.Module, own: pathlib.Path) -> str:
    """What is said of a folder that the other process does not see."""
    own.mkdir()
    with contextlib.chdir(own):
        try:
            save("model", model)
        except ValueError as error:
            return str(error)
    return ""


def spread(model: nnx.Module, mesh: jax.sharding.Mesh) -> nnx.Module:
    """The model with its kernels spread over both processes, the rest on every device."""

    def place(leaf):
        axes = (None, "data") if leaf.shape[-1] % 4 == 0 and leaf.ndim > 1 else ()
        where = NamedSharding(mesh, PartitionSpec(*axes))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, where, lambda at: host[at])

    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map(place, state))


def die(index: int, out: Path) -> dict:
    """One process is killed in the middle of a run."""

    def kill_one(step, model):
        del model
        if step == QUICK.eval_every and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    config = dataclasses.replace(QUICK, num_steps=1_000_000, steps_per_dispatch=1)
    fit(
        Tiny(),
        np.split(X, [60])[index],
        config=config,
        mesh=mesh_of(8),
        workdir=out / "run",
        callback=kill_one,
    )
    return {}


def stop_at(at: int):
    """A callback that ends the run at a step."""

    def stop(step, model):
        del model
        if step == at:
            raise RuntimeError("stopped")

    return stop


def main(port: str, index: int, name: str, out: Path):
    seconds = {"heartbeat_timeout_seconds": 10} if name == "die" else {}
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index, **seconds)
    if name == "pod":
        pod = runpy.run_path("examples/pod.py")
        result = {"score": pod["main"](steps=60)}
    elif name == "resume":
        result = stop_and_go_on(index, out)
    elif name == "save":
        result = save_together(index, out)
    elif name == "die":
        result = die(index, out)
    elif name == "signal":
        result = stop_by_signal(index, out)
    else:
        result = train(name, index, out)
    (out / f"result-{index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], placed(sys.argv[4]))
