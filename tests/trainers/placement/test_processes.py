"""Two processes of four devices each, over loopback: the losses of one device."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow
from tests.trainers.layouts import (
    MODELS,
    QUICK,
    STRATA,
    VALID,
    WEIGHTS,
    X,
    assert_same_run,
    flow,
    mesh_of,
)
from trainers import fit, load_flow, restore, save
from trainers.checkpoints.variables import arrays_of
from trainers.paths import in_bucket

ROOT = pathlib.Path(__file__).parents[3]


def start(model, out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tests.trainers.placement.two_processes",
        str(port),
    ]
    return [
        subprocess.Popen(
            [*command, str(index), model, str(out)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]


def results(processes, out):
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return [json.loads((out / f"result-{i}.json").read_text()) for i in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "flow"])
def test_two_processes_feed_their_own_rows(model, tmp_path):
    processes = start(model, tmp_path)
    start_model = MODELS[model]()
    if model == "flow":
        start_model, _ = rn.warm_start(start_model, X[:96], key=jax.random.key(0))
    one = fit(start_model, X, VALID, config=QUICK)
    for result in results(processes, tmp_path):
        assert_same_run(result["history"], one.history, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(
            result["log_prob"], one.model.log_prob(VALID), atol=1e-3
        )
    lines = (tmp_path / "metrics-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 4, 8]
    assert not (tmp_path / "metrics-1.jsonl").read_text()  # process 0 alone writes


@pytest.mark.slow
def test_two_processes_take_the_strata_of_one(tmp_path):
    one = fit(MODELS["tiny"](), X[:100], VALID, config=STRATA)
    for result in results(start("strata", tmp_path), tmp_path):
        assert_same_run(result["history"], one.history, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_two_processes_weigh_their_rows_together(tmp_path):
    weights = {"weights": WEIGHTS, "weights_valid": WEIGHTS[: len(VALID)]}
    one = fit(MODELS["tiny"](), X, VALID, config=QUICK, **weights)
    for result in results(start("weights", tmp_path), tmp_path):
        assert_same_run(result["history"], one.history, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_the_example_for_a_pod_runs_on_two_processes(tmp_path):
    one, other = results(start("pod", tmp_path), tmp_path)
    assert one == other


@pytest.fixture(params=["disk", slow("bucket")])
def place(request):
    """Where both processes write: a folder of this machine, or of a bucket."""
    fixture = {"disk": "tmp_path", "bucket": "bucket"}[request.param]
    return request.getfixturevalue(fixture)


def test_two_processes_save_what_one_reads_and_goes_on_from(place):
    save(place / "model", flow(num_blocks=3), step=3)
    for result in results(start("save", place), place):
        # Process 0's model, also where one process reads alone.
        assert result["layers"] == 2 * [len(flow().layers)]
        assert all(result["same"])
        shared = "`path` must be on a disk that all processes share"
        assert in_bucket(place) or shared in result["refused"]
        assert result["stopped"]
    assert [p.name for p in (place / "model").iterdir()] == ["3"]
    assert len(load_flow(place / "model").layers) == len(flow().layers)
    tiny = MODELS["tiny"]()
    held = arrays_of(restore(place / "held", nnx.eval_shape(MODELS["tiny"])))
    for name, array in arrays_of(tiny).items():
        np.testing.assert_allclose(held[name], array, rtol=1e-6)
    options = {"config": QUICK, "mesh": mesh_of(8)}
    steps = []
    result = fit(
        tiny,
        X,
        VALID,
        workdir=place / "run",
        callback=lambda step, model: steps.append(step),
        **options,
    )
    assert min(steps, default=4) >= 4  # it did not begin anew
    whole = fit(tiny, X, VALID, **options)
    assert_same_run(result.history, whole.history, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other(tmp_path):
    other, dead = start("die", tmp_path)
    dead.communicate(timeout=300)
    assert dead.returncode == -signal.SIGKILL
    output, _ = other.communicate(timeout=60)
    assert other.returncode != 0
    assert output.strip()


@pytest.mark.slow
def test_two_processes_stop_and_go_on(place):
    for result in results(start("resume", place), place):
        assert all(result["same"])
        here = restore(place / "run", MODELS["tiny"]())  # in one process
        np.testing.assert_allclose(here.log_prob(VALID), result["log_prob"], rtol=1e-6)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both(tmp_path):
    one, other = results(start("signal", tmp_path), tmp_path)
    assert one == other
    assert one["stop_reason"] == "interrupted"
    assert len(one["steps"]) < 1_000
    restore(tmp_path / "run", MODELS["tiny"]())
