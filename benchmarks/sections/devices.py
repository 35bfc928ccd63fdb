"""The data-parallel step over devices: python -m benchmarks.sections.devices.

Prints rows of a table as JSON. XLA fixes the number of virtual CPU devices when it starts,
so `measured` runs this file in a new process.
"""

import functools
import json
import os
import subprocess
import sys

import jax

from benchmarks.models import entrants
from benchmarks.models.programs import OURS, rows_of, train_step
from benchmarks.report import Row
from benchmarks.timing import compile_seconds, interleaved

COUNTS = (1, 2, 4, 8)


def measured() -> list[Row]:
    """The rows of `devices`; of a CPU's eight virtual devices, from a new process."""
    if jax.default_backend() != "cpu":
        return devices()
    flags = os.environ.get("XLA_FLAGS", "")
    virtual = f"{flags} --xla_force_host_platform_device_count={COUNTS[-1]}"
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.sections.devices"],
        env=os.environ | {"XLA_FLAGS": virtual},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def devices(counts=COUNTS, d: int = 8, batch: int = 8_192, num_blocks: int = 4):
    """Throughput of the step over devices, and the bytes that it reduces."""
    x = rows_of(batch, d)
    rows = []
    for count in counts:
        if count > jax.device_count():
            continue
        axis = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh(
            (count,), ("data",), axis_types=axis, devices=jax.devices()[:count]
        )
        split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        entrant = entrants.ours(d, num_blocks)
        step, opt_state = train_step(entrant)
        args = (
            *jax.device_put((entrant.params, opt_state), whole),
            jax.device_put(x, split),
        )
        program, _ = compile_seconds(step, *args)
        seconds = interleaved({OURS: functools.partial(program, *args)})
        text = program.as_text()
        rows.append(
            {
                "what": "training step over devices",
                "devices": count,
                "batch": batch,
                "rows_per_second": {OURS: batch / seconds[OURS]},
                "all_reduces": text.count(" all-reduce("),
                "reduced_bytes": 4
                * sum(leaf.size for leaf in jax.tree.leaves(entrant.params))
                * (count > 1),
            }
        )
    return rows


if __name__ == "__main__":
    print(json.dumps(devices()))
