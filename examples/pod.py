"""Trains on every device of every host: run this same line on all of them.

    python examples/pod.py                 # one machine, all its devices; 15 seconds
    python examples/pod.py --distributed   # a TPU pod slice, Slurm, Kubernetes or MPI

On a TPU pod slice, `gcloud compute tpus tpu-vm ssh NAME --worker=all --command "..."` does
that. JAX finds the other hosts by itself there. Every process loads its own rows; the flow is
warm-started and trained on all of them together, and process 0 alone prints.
"""

import argparse

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rbig_nnx as rn
from trainers import TrainConfig, fit

ROWS = 4_096  # over all processes


def load_rows(seed: int) -> np.ndarray:
    """This process's rows: in earnest, its own files."""
    random = np.random.default_rng([seed, jax.process_index()])
    z = random.normal(size=(ROWS // jax.process_count(), 2))
    return np.stack([z[:, 0], z[:, 0] ** 2 + 0.3 * z[:, 1]], 1).astype(np.float32)


def main(*, steps: int = 200, distributed: bool = False) -> float:
    """Trains on a curved ridge; returns the held-out mean log p in nats."""
    if distributed:
        # A process that dies ends the others within a minute, not two.
        jax.distributed.initialize(heartbeat_timeout_seconds=30)
    devices = (jax.device_count(),)
    mesh = jax.make_mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    train, valid = load_rows(0), load_rows(1)
    rows = jax.make_array_from_process_local_data(
        NamedSharding(mesh, PartitionSpec("data")), train
    )
    flow = rn.coupling_flow(2, 2, num_components=4, hidden=(32,), rngs=nnx.Rngs(0))
    warm, report = rn.warm_start(flow, rows, key=jax.random.key(0))
    config = TrainConfig(num_steps=steps, batch_size=64 * max(8, *devices))
    result = fit(warm, train, valid, config=config, mesh=mesh)
    score = float(result.history["valid"].max())
    # The entropies of N(0, 1) and of N(0, 0.3²).
    truth = -np.log(2 * np.pi * np.e) - np.log(0.3)
    if jax.process_index() == 0:
        print(f"{jax.process_count()} processes, {jax.device_count()} devices")
        print(f"mean log p: warm start {report.log_prob:.3f}, trained {score:.3f}")
        print(f"truth {truth:.3f}")
    assert report.log_prob < score < truth + 0.05
    return score


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--distributed", action="store_true")
    main(distributed=parser.parse_args().distributed)
