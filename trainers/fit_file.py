"""A table from a file to a trained, checkpointed density with its baselines."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

import rbig_nnx as rn
from trainers.checkpoint import save
from trainers.config import TrainConfig
from trainers.tables import check_rows, read_table, split_rows
from trainers.trainer import fit

_MIXTURE_SIZES = (1, 2, 4, 8, 16, 32)  # of the Gaussian mixture; validation chooses
_RIDGES = (1e-6, 1e-2)  # on the covariances of standardised columns
_MIXTURE_ROWS = 20_000  # the mixture is fitted to at most so many


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitFile:
    """Fits a density to the rows of a file, with a Gaussian and a mixture beside it."""

    columns: tuple[str, ...] = ()  # by name; empty for all
    workdir: pathlib.Path = pathlib.Path("runs/fit")  # checkpoints, metrics, report
    resume: bool = True  # go on from what is in workdir; False sets that aside
    profile: int = 0  # steps to trace before training, into workdir/profile
    num_blocks: int = 4  # rotation, coupling, complementary coupling
    num_components: int = 8  # of each mixture
    hidden: tuple[int, ...] = (64, 64)  # widths of the conditioners
    rotation: str = "nongaussian"  # of the warm start; or pca, random, ica
    test_fraction: float = 0.1  # of the rows, held out to judge
    valid_fraction: float = 0.1  # of the rows, held out to choose the step
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


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


class Mixture:
    """The Gaussian mixture that validation prefers, a baseline in the data's units.

    Args:
      train: rows to fit, of which at most 20,000 are used, [n, d].
      valid: rows that choose the number of components and the ridge on the covariances.
      seed: of the starts.
      sizes: numbers of components to try.

    Attributes:
      num_components: of the mixture that was chosen.
    """

    def __init__(
        self,
        train: np.ndarray,
        valid: np.ndarray,
        *,
        seed: int,
        sizes: Sequence[int] = _MIXTURE_SIZES,
    ):
        self._scaler = StandardScaler().fit(np.float64(train))
        rows, valid = self._scaled(train[:_MIXTURE_ROWS]), self._scaled(valid)
        fits = [
            _fitted(GaussianMixture(k, reg_covar=ridge, random_state=seed), rows)
            for k in sizes
            if 10 * k <= len(rows) or k == 1
            for ridge in _RIDGES
        ]
        self._mixture = max(filter(None, fits), key=lambda fit: fit.score(valid))
        self.num_components = self._mixture.n_components

    def score(self, rows: np.ndarray) -> float:
        """Mean log p in nats."""
        log_det = np.log(self._scaler.scale_).sum()
        return float(self._mixture.score(self._scaled(rows)) - log_det)

    def _scaled(self, rows):
        return self._scaler.transform(np.float64(rows))


def _fitted(mixture: GaussianMixture, rows: np.ndarray) -> GaussianMixture | None:
    """None where a component collapsed under too small a ridge."""
    try:
        return mixture.fit(rows)
    except ValueError:
        return None
