"""One run in every layout, the losses side by side: python -m benchmarks.studies.layouts.

Eight virtual devices of the CPU, or two processes of four each over loopback. Exits with an
error if a layout's losses differ from one device's by more than rounding does.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import rbig_nnx as rn
from trainers import TrainConfig, fit
from trainers.moons import Moons

PROCESSES, DEVICES = 2, 8
TOLERANCE = 1e-4  # nats
CONFIG = TrainConfig(
    num_steps=100, batch_size=128, eval_every=25, learning_rate=3e-3, eval_rows=3_000
)
KERNELS = (("*.kernel", (None, "model")),)
MOONS = Moons()
VALID = MOONS.sample(2_000, random_state=1)


def history(train=MOONS.train, valid=VALID, **layout) -> dict[str, list[float]]:
    """Trains two blocks from scratch."""
    flow = rn.coupling_flow(2, 2, num_components=4, hidden=(16,), rngs=nnx.Rngs(0))
    result = fit(flow, train, valid, config=CONFIG, **layout)
    return {name: result.history[name].tolist() for name in ("loss", "train", "valid")}


def mesh(*shape: int) -> jax.sharding.Mesh:
    """Devices along "data" and "model"."""
    return jax.make_mesh(shape, ("data", "model")[: len(shape)])


def worker(port: str, index: int, out: str):
    """One of several processes, with its own rows."""
    jax.config.update("jax_num_cpu_devices", DEVICES // PROCESSES)
    jax.distributed.initialize(f"127.0.0.1:{port}", PROCESSES, index)
    own, own_valid = np.split(MOONS.train, [1_700])[index], np.split(VALID, 2)[index]
    result = history(own, own_valid, mesh=mesh(jax.device_count()))
    if index == 0:
        pathlib.Path(out).write_text(json.dumps(result))


def processes() -> dict[str, list[float]]:
    """The run in two processes."""
    with socket.socket() as free, tempfile.NamedTemporaryFile() as out:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        command = [sys.executable, "-m", "benchmarks.studies.layouts", port]
        started = [
            subprocess.Popen(
                [*command, str(index), out.name], stdout=subprocess.DEVNULL
            )
            for index in range(PROCESSES)
        ]
        if any(process.wait() for process in started):
            raise SystemExit("a process failed")
        return json.loads(pathlib.Path(out.name).read_text())


def main():
    """Prints the table."""
    jax.config.update("jax_num_cpu_devices", DEVICES)
    runs = {
        "1 device": history(),
        "8 data": history(mesh=mesh(8)),
        "4 data x 2 model": history(mesh=mesh(4, 2), partition=KERNELS),
        "pmap on 8": history(mesh=mesh(8), strategy="pmap"),
        "2 processes x 4": processes(),
    }
    steps = range(0, CONFIG.num_steps + 1, CONFIG.eval_every)
    table = Table(title="held-out mean log p in nats, by step")
    for column in ("layout", *map(str, steps), "largest difference"):
        table.add_column(column, justify="right")
    one = runs["1 device"]
    worst = 0.0
    for name, run in runs.items():
        gap = max(np.nanmax(np.abs(np.subtract(run[k], one[k]))) for k in one)
        worst = max(worst, gap)
        table.add_row(name, *(f"{v:.6f}" for v in run["valid"]), f"{gap:.1e}")
    Console(width=110).print(table)
    if worst > TOLERANCE:
        raise SystemExit(f"a layout differs by {worst:.1e} nats")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        worker(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main()
