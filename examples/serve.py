"""A density behind HTTP: a flow exported once to a file, and served without its code.

The file holds log p for any number of rows, on CPUs, GPUs and TPUs. What serves it needs jax,
starlette and uvicorn, and neither this library nor Flax. See docs/guides/serving.md.

Run it: python examples/serve.py        trains, exports, serves, and asks; 30 seconds
Serve:  ARTEFACT=flow.bin uvicorn --factory serve:create_app --app-dir examples
Ask:    curl localhost:8000/log_prob -d '{"rows": [[0.1, 0.2]]}'
"""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import socket
import tempfile
import threading
import urllib.error
import urllib.request

import jax
import numpy as np
import uvicorn
from jax import export
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

MOST_ROWS = 65_536  # of a request


def write_artefact(flow, path):
    """Exports log p of rows [n, d] for every n."""
    shape = export.symbolic_shape(f"n, {flow.num_features}")
    rows = jax.ShapeDtypeStruct(shape, np.float32)
    program = export.export(jax.jit(flow.log_prob), platforms=("cpu", "cuda", "tpu"))
    pathlib.Path(path).write_bytes(program(rows).serialize())


def create_app(path=None):
    """The application: POST /log_prob, and GET /health once the file is read."""
    written = pathlib.Path(path or os.environ["ARTEFACT"]).read_bytes()
    artefact = export.deserialize(bytearray(written))
    score, num_features = jax.jit(artefact.call), artefact.in_avals[0].shape[1]

    def padded_score(rows):
        # A program is compiled for each size: powers of two are few.
        size = 1 << (len(rows) - 1).bit_length()
        padded = np.pad(rows, ((0, size - len(rows)), (0, 0)), "edge")
        return score(padded)[: len(rows)].tolist()

    async def log_prob(request):
        try:
            rows = read_rows(await request.body(), num_features)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        found = await run_in_threadpool(padded_score, rows)
        # JSON has no −inf, which is log p of what is beyond any number.
        return JSONResponse(
            {"log_prob": [v if math.isfinite(v) else None for v in found]}
        )

    async def health(_):
        return PlainTextResponse("ok\n")

    padded_score(np.zeros((1, num_features), np.float32))
    routes = [Route("/log_prob", log_prob, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes)


def read_rows(body, num_features):
    """Rows [n, d] of a request's body.

    Raises:
      ValueError: in one line, for anything else.
    """
    wanted = f"`rows` must be 1 to {MOST_ROWS:,} lists of {num_features} numbers"
    try:
        rows = json.loads(body)["rows"]
    except (ValueError, LookupError, TypeError, RecursionError):
        example = json.dumps({"rows": [[0.0] * num_features]})
        raise ValueError(f"the body must be JSON such as {example}.") from None
    try:
        rows = np.array(rows)
    except ValueError:
        raise ValueError(f"{wanted}; got lists of different lengths.") from None
    fits = rows.ndim == 2 and rows.shape[1] == num_features
    if rows.dtype.kind not in "iuf" or not fits or not 1 <= len(rows) <= MOST_ROWS:
        kind = "numbers" if rows.dtype.kind in "iuf" else "what are no numbers"
        raise ValueError(f"{wanted}; got {kind} of shape {list(rows.shape)}.")
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise ValueError(
            f"`rows` must be finite in float32; row {bad[0]} (from 0) is not."
        )
    return rows


@contextlib.contextmanager
def serving(app):
    """Serves in a thread while it lasts; gives the address."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def ask(address, rows):
    """log p of rows, as a client."""
    body = json.dumps({"rows": np.asarray(rows).tolist()}).encode()
    with urllib.request.urlopen(f"{address}/log_prob", body, timeout=60) as answer:
        return json.loads(answer.read())["log_prob"]


def main(steps=300):
    """Trains, exports, serves; returns the largest difference from the flow itself."""
    from flax import nnx  # not above: whoever serves needs none of these

    import rbig_nnx as rn
    from trainers import TrainConfig, fit
    from trainers.moons import Moons

    x = Moons().train
    flow = rn.coupling_flow(2, 2, rngs=nnx.Rngs(0))
    warm, _ = rn.warm_start(flow, x, key=jax.random.key(0))
    flow = fit(warm, x, config=TrainConfig(num_steps=steps), progress=False).model
    batches = [x[:n] for n in (1, 3, 7, 100)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "flow.bin"
        write_artefact(flow, path)
        print(f"exported: {path.stat().st_size / 1e3:.0f} kB")
        app = create_app(path)
    with serving(app) as address, concurrent.futures.ThreadPoolExecutor(4) as clients:
        found = list(clients.map(lambda rows: ask(address, rows), batches))
        try:
            ask(address, [[1.0, 2.0, 3.0]])
        except urllib.error.HTTPError as error:
            print(f"three columns: {error.code}, {error.read().decode().strip()}")
    errors = [
        np.abs(np.array(f) - flow.log_prob(rows)).max()
        for f, rows in zip(found, batches, strict=True)
    ]
    print(f"largest difference from the flow: {max(errors):.1e} nats")
    assert max(errors) < 1e-4
    return max(errors)


if __name__ == "__main__":
    main()
