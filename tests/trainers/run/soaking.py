"""A process that trains, loads, saves, scores and serves for some time, and what it takes:
`python -m tests.trainers.run.soaking FOLDER SECONDS ROUNDS [PART ...]`.

A line of JSON after each round: memory, descriptors, threads, and compilations so far. The
first line comes after the warm-up, in which every size has been scored once. The last line
comes after a compilation that must be counted.
"""

import concurrent.futures
import contextlib
import ctypes
import gc
import json
import logging
import os
import pathlib
import shutil
import sys
import time

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn
from tests.test_examples import load
from trainers import FlowDensity, TrainConfig, fit, load_flow, save

SIZES = 200  # numbers of rows, from one
_CONFIG = TrainConfig(
    num_steps=20,
    batch_size=64,
    eval_every=10,
    steps_per_dispatch=5,
    checkpoint_every=10,
    patience=0,
)
_TINY = {"num_blocks": 1, "num_components": 2, "hidden": (8,), "num_steps": 20}
_TINY |= {"rotation": "pca", "tails": False, "marginals": False, "radial": False}
_ROWS = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
_TABLE = np.column_stack([3 * _ROWS, np.round(2 * _ROWS[:, 0])])  # one is discrete
_PAGE = os.sysconf("SC_PAGE_SIZE") / 2**20


class Compilations(logging.Handler):
    """Counts the lines of JAX's log that tell of one."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def emit(self, record):
        """One line."""
        self.count += record.getMessage().startswith("Finished XLA compilation")


def taken(compilations):
    """What the process holds; memory that is free but kept by the C library is no matter."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return {
        "MiB": round(int(pages) * _PAGE, 2),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "compilations": compilations.count,
    }


class Work:
    """What a round does, by parts; numbers of rows differ from round to round.

    Args:
      folder: of all that is written.
      address: of the served flow.
      ask: asks it for log p.
      clients: threads that ask.
    """

    def __init__(self, folder, address, ask, clients):
        self.run, self.saved = folder / "run", folder / "saved"
        self.density = FlowDensity(clusters=0, **_TINY).fit(_TABLE)
        self.density.save(folder / "density")
        self.stored = folder / "density"
        self.flow = coupling()
        self.address, self.ask, self.clients = address, ask, clients

    def train(self, sizes):
        """A run from its start, and again from its first checkpoint."""
        shutil.rmtree(self.run, ignore_errors=True)
        for _ in range(2):
            result = fit(
                coupling(),
                _ROWS[:300],
                _ROWS[300:],
                config=_CONFIG,
                workdir=self.run,
                progress=False,
            )
            assert len(result.history["loss"])
            shutil.rmtree(self.run / "checkpoints" / "20")

    def keep(self, sizes):
        """Saves and loads a flow and a density."""
        save(self.saved, self.flow)
        self.flow = load_flow(self.saved)
        self.density.save(self.stored)
        self.density = FlowDensity.load(self.stored)

    def score(self, sizes):
        """Scores, and samples of one size: each other one would be compiled."""
        for n in sizes:
            assert self.flow.log_prob(_ROWS[:n]).shape == (n,)
            assert self.density.score_samples(_TABLE[:n]).shape == (n,)
        self.flow.sample(jax.random.key(sizes[0]), 50).block_until_ready()
        self.density.sample(50, random_state=sizes[0])

    def serve(self, sizes):
        """Several clients at once."""
        answers = self.clients.map(lambda n: self.ask(self.address, _ROWS[:n]), sizes)
        assert [len(answer) for answer in answers] == list(sizes)


def coupling():
    """A small flow; its values are the same each time."""
    return rn.coupling_flow(2, 1, num_components=2, hidden=(8,), rngs=nnx.Rngs(0))


def main(folder, seconds, rounds, *parts):
    """Works for so many seconds, and so many rounds at least."""
    folder, compilations = pathlib.Path(folder), Compilations()
    jax.config.update("jax_log_compiles", True)
    logging.getLogger("jax").addHandler(compilations)
    logging.getLogger("jax").propagate = False
    serve = load("serve")
    serve.write_artefact(coupling(), folder / "flow.bin")
    with contextlib.ExitStack() as stack:
        clients = stack.enter_context(concurrent.futures.ThreadPoolExecutor(4))
        app = serve.create_app(folder / "flow.bin")
        address = stack.enter_context(serve.serving(app))
        work = Work(folder, address, serve.ask, clients)
        calls = [
            getattr(work, part) for part in parts or ("train", "keep", "score", "serve")
        ]
        draw, began, done = np.random.default_rng(0), time.monotonic(), 0
        for call in calls:
            call(range(1, SIZES + 1))
        for _ in range(5):
            for call in calls:
                call([1, SIZES])
        report(compilations)
        while done < int(rounds) or time.monotonic() < began + float(seconds):
            for call in calls:
                call(draw.integers(1, SIZES + 1, 20).tolist())
            done += 1
            report(compilations)
    jax.jit(lambda x: x + 1)(0.0)
    report(compilations)


def report(compilations):
    """A line of what is held."""
    sys.stdout.write(f"{json.dumps(taken(compilations))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
