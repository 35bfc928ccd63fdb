"""A table from a file to a trained, checkpointed density with its baselines."""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import rbig_nnx as rn
from trainers.checkpoints.model import save
from trainers.command.baselines import Mixture
from trainers.command.settings import FitFile
from trainers.tables import check_rows, read_table, split_rows
from trainers.trainer import fit


def run(path: pathlib.Path, settings: FitFile, console: Console) -> dict[str, Any]:
    """Reads, splits, warm-starts, trains and saves; prints the held-out table.

    Args:
      path: .npy, .npz, .csv or .parquet.
      settings: what to fit and how.
      console: where the table goes.

    Returns:
      The report that is also written as JSON: mean log p of the held-out rows, nats.
      Nothing where a signal ended the run before.

    Raises:
      InputError: for a file or rows that cannot be fitted.
    """
    data = read_table(path, list(settings.columns) or None)
    x = check_rows(data.values, name=str(path))
    rest = 1 - settings.test_fraction - settings.valid_fraction
    train, valid, test = (
        x[rows]
        for rows in split_rows(
            len(x),
            seed=settings.train.seed,
            fractions=(rest, settings.valid_fraction, settings.test_fraction),
        )
    )
    console.print(
        f"{path}: {len(x):,} rows of {x.shape[1]} columns;"
        f" {len(train):,} train, {len(valid):,} valid, {len(test):,} held out"
    )
    flow = rn.coupling_flow(
        x.shape[1],
        settings.num_blocks,
        num_components=settings.num_components,
        hidden=settings.hidden,
        rngs=nnx.Rngs(settings.train.seed),
    )
    began = time.perf_counter()
    warm, start_report = rn.warm_start(
        flow, train, key=jax.random.key(settings.train.seed), rotation=settings.rotation
    )
    warm_seconds = time.perf_counter() - began
    console.print(start_report.table())
    settings.workdir.mkdir(parents=True, exist_ok=True)
    if settings.profile:
        _profile(warm, train, settings)
    result = fit(
        warm,
        train,
        valid,
        monitor={"test": test},
        config=settings.train,
        workdir=settings.workdir,
        resume=settings.resume,
    )
    if result.stop_reason == "interrupted":
        console.print("Interrupted. The same command goes on from here.")
        return {}
    save(settings.workdir / "flow", result.model)

    gaussian = Mixture(train, valid, seed=settings.train.seed, sizes=(1,))
    mixture = Mixture(train, valid, seed=settings.train.seed)
    held_out = {
        "Gaussian": gaussian.score(test),
        f"Gaussian mixture, {mixture.num_components} components": mixture.score(test),
        "flow, warm start": float(np.mean(warm.log_prob(test))),
        "flow, trained": float(np.mean(result.model.log_prob(test))),
    }
    report = {
        "file": str(path),
        "columns": list(data.names),
        "rows": {"train": len(train), "valid": len(valid), "held_out": len(test)},
        "held_out_log_prob": held_out,
        "best_step": result.best_step,
        "seconds": {
            "warm_start": warm_seconds,
            "compile": result.compile_seconds,
            "train": result.train_seconds,
        },
    }
    (settings.workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(table(held_out))
    console.print(f"Checkpoint and report: {settings.workdir}/")
    return report


def _profile(flow, train, settings: FitFile):
    config = dataclasses.replace(
        settings.train, num_steps=settings.profile, eval_every=settings.profile
    )
    with jax.profiler.trace(settings.workdir / "profile"):
        fit(flow, train, config=config, progress=False)


def table(held_out: dict[str, float]) -> Table:
    """Held-out log p in nats a row, one line for each model."""
    result = Table(title="held-out rows, mean log p in nats")
    result.add_column("model")
    result.add_column("log p", justify="right")
    result.add_column("over the Gaussian", justify="right")
    for name, value in held_out.items():
        result.add_row(name, f"{value:.4f}", f"{value - held_out['Gaussian']:+.4f}")
    return result
