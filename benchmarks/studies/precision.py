"""What a bfloat16 conditioner costs in log p: python -m benchmarks.studies.precision.

The conditioners compute in bfloat16; parameters, mixtures and log determinants stay float32.
Two questions: how far the log densities of one trained flow move, and where training ends.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

import rbig_nnx as rn
from trainers import TrainConfig, fit
from trainers.moons import Moons


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the comparison."""

    num_blocks: int = 4
    num_rows: int = 3_000
    num_steps: int = 500


def moons(num_features: int, num_rows: int, seed: int) -> np.ndarray:
    """Pairs of columns are independent moons, then mixed by a fixed rotation."""
    columns = [
        Moons().sample(num_rows, random_state=seed + 100 * i)
        for i in range(num_features // 2)
    ]
    shape = (num_features, num_features)
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=shape))
    return (np.concatenate(columns, axis=1) @ q).astype(np.float32)


def measure(num_features: int, settings: Settings) -> dict[str, float]:
    """Held-out log p in nats of both precisions, and differences at equal parameters."""
    train, valid, test = (
        moons(num_features, n, seed)
        for seed, n in ((1, settings.num_rows), (2, 1_000), (3, 10_000))
    )
    config = TrainConfig(num_steps=settings.num_steps)
    flows = {
        dtype: rn.coupling_flow(
            num_features, settings.num_blocks, dtype=dtype, rngs=nnx.Rngs(0)
        )
        for dtype in (None, jnp.bfloat16)
    }
    trained = {}
    for dtype, flow in flows.items():
        warm, _ = rn.warm_start(flow, train, key=jax.random.key(0))
        trained[dtype] = fit(warm, train, valid, config=config).model
    exact, own = (np.asarray(trained[dtype].log_prob(test)) for dtype in flows)
    narrow = nnx.merge(nnx.graphdef(flows[jnp.bfloat16]), nnx.state(trained[None]))
    error = np.abs(np.asarray(narrow.log_prob(test)) - exact)
    return {
        "float32": exact.mean(),
        "bfloat16": own.mean(),
        "mean error": error.mean(),
        "99 %": np.quantile(error, 0.99),
        "largest": error.max(),
    }


def main(settings: Settings) -> None:
    """Prints the table."""
    table = Table(title="nats; errors at equal parameters on 10,000 held-out rows")
    rows = {d: measure(d, settings) for d in (2, 8)}
    for column in ("D", *rows[2]):
        table.add_column(column, justify="right")
    for d, row in rows.items():
        table.add_row(str(d), *(f"{value:.4f}" for value in row.values()))
    Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
