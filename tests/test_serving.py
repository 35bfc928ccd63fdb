"""What `examples/serve.py` serves over loopback."""

import concurrent.futures
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

import rbig_nnx as rn
from tests.test_examples import load

FOLDER = pathlib.Path(__file__).parents[1] / "examples"


def artefact_of_a_flow(serve, folder):
    flow = rn.GaussianizationFlow([rn.Standardize(2), rn.MixtureCDFMarginal(2)])
    serve.write_artefact(flow, folder / "flow.bin")
    return flow, folder / "flow.bin"


def answer(address, body=None):
    """The status and the text of an answer."""
    try:
        with urllib.request.urlopen(address, body, timeout=60) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


WRONG = {
    b"hello": "the body must be JSON such as",
    b"[" * 100_000: "the body must be JSON such as",
    b"\xff": "the body must be JSON such as",
    b"[[0.0, 1.0]]": 'the body must be JSON such as {"rows": [[0.0, 0.0]]}.',
    b'{"row": [[0.0, 1.0]]}': "the body must be JSON such as",
    b'{"rows": []}': "of 2 numbers; got numbers of shape [0].",
    b'{"rows": [0.0, 1.0]}': "of 2 numbers; got numbers of shape [2].",
    b'{"rows": [[0.0, 1.0, 2.0]]}': "of 2 numbers; got numbers of shape [1, 3].",
    b'{"rows": [[0.0], [1.0, 2.0]]}': "got lists of different lengths.",
    b'{"rows": [["a", "b"]]}': "got what are no numbers of shape [1, 2].",
    b'{"rows": [[null, 1.0]]}': "got what are no numbers of shape [1, 2].",
    b'{"rows": [[0, 0], [NaN, 1.0]]}': "must be finite in float32; row 1 (from 0)",
    b'{"rows": [[1e39, 1.0]]}': "must be finite in float32; row 0 (from 0)",
}


def test_an_exported_flow_is_served(tmp_path):
    """Several clients at once get what the flow gives; mistakes get one line each."""
    serve = load("serve")
    flow, path = artefact_of_a_flow(serve, tmp_path)
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, 2)).astype(np.float32) for n in (1, 7, 5, 8) * 4]
    with (
        serve.serving(serve.create_app(path)) as address,
        concurrent.futures.ThreadPoolExecutor(8) as clients,
    ):
        assert answer(f"{address}/health") == (200, "ok\n")
        answers = list(clients.map(lambda rows: serve.ask(address, rows), batches))
        for rows, found in zip(batches, answers, strict=True):
            np.testing.assert_allclose(found, flow.log_prob(rows), rtol=1e-5, atol=1e-5)
        assert serve.ask(address, [[1e38, 0.0]]) == [None]
        for body, wanted in WRONG.items():
            status, text = answer(f"{address}/log_prob", body)
            assert (status, text.count("\n")) == (400, 1), text
            assert wanted in text
        assert answer(f"{address}/log_prob")[0] == 405


@pytest.mark.slow
def test_a_process_serves_without_the_library(tmp_path):
    serve = load("serve")
    flow, path = artefact_of_a_flow(serve, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "serve:create_app"]
    command += ["--app-dir", str(FOLDER), "--port", str(port)]
    # A folder that shadows the library, whose import fails.
    (tmp_path / "rbig_nnx.py").write_text("raise ImportError")
    paths = {"PYTHONPATH": str(tmp_path), "ARTEFACT": str(path)}
    process = subprocess.Popen(command, env=os.environ | paths)
    try:
        for _ in range(600):
            try:
                assert answer(f"http://127.0.0.1:{port}/health")[0] == 200
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        found = serve.ask(f"http://127.0.0.1:{port}", [[0.0, 1.0]])
    finally:
        process.terminate()
        process.wait()
    wanted = flow.log_prob(np.float32([[0.0, 1.0]]))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
