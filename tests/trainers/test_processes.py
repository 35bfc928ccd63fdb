"""Two processes of four devices each, over loopback: the losses of one device."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.trainers.layouts import MODELS, QUICK, VALID, X, assert_same_run
from trainers import fit

ROOT = pathlib.Path(__file__).parents[2]


def start(model, out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.trainers.two_processes", str(port)]
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


@pytest.mark.parametrize(
    "model", ["tiny", pytest.param("flow", marks=pytest.mark.slow)]
)
def test_two_processes_feed_their_own_rows(model, tmp_path):
    processes = start(model, tmp_path)
    one = fit(MODELS[model](), X, VALID, config=QUICK)
    for process in processes:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    for index in range(2):
        result = json.loads((tmp_path / f"result-{index}.json").read_text())
        assert_same_run(result["history"], one.history, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(
            result["log_prob"], one.model.log_prob(VALID), atol=1e-3
        )
    lines = (tmp_path / "metrics-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 4, 8]
    assert not (tmp_path / "metrics-1.jsonl").read_text()  # process 0 alone writes
