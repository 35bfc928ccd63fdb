"""From tables to a trained density: the way that the estimators and the command share."""

import dataclasses
import fnmatch
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

import rbig_nnx
from trainers.config import TrainConfig
from trainers.estimators.encoded import EncodedTable
from trainers.estimators.settings import Architecture, Settings
from trainers.estimators.starts import build_flow
from trainers.placement.names import by_pattern, names_of
from trainers.run.loop import FitResult
from trainers.trainer import Trainer, fit

_NUMBER = re.compile(r"\d+")


def refuse_patterns(train: EncodedTable, settings: Settings) -> None:
    """Raises before the start, which decides how many layers there are.

    Raises:
      ValueError: a pattern of `learning_rates` that would match nothing, whatever the numbers
        of the layers.
    """
    patterns = settings.train.learning_rates
    if not patterns:
        return
    every = dataclasses.replace(
        settings.architecture, tails=True, marginals=True, radial=True, clusters=2
    )
    flow = nnx.eval_shape(lambda: build_flow(train, every, seed=0))
    names = names_of(nnx.to_pure_dict(nnx.state(flow, nnx.Param)))
    lost = [
        (pattern, factor)
        for pattern, factor in patterns
        if not ("[" in pattern or fnmatch.filter(names, _NUMBER.sub("*", pattern)))
    ]
    by_pattern(names, lost, argument="learning_rates", default=1.0)


def compile_ahead(
    train: EncodedTable,
    valid: EncodedTable | None,
    settings: Settings,
    architecture: Architecture,
    *,
    monitor: Mapping[str, EncodedTable] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> None:
    """Begins to compile what `train_flow` will run on this architecture, beside the start.

    Where the start is found to need other layers, in vain.
    """
    flow = build_flow(train, architecture, seed=0)
    trainer = Trainer(config=settings.train, mesh=mesh)
    trainer.compile(flow, **_data_sets(train, valid, monitor))


def train_flow(
    flow: rbig_nnx.GaussianizationFlow,
    train: EncodedTable,
    valid: EncodedTable | None,
    config: TrainConfig,
    *,
    monitor: Mapping[str, EncodedTable] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    workdir: str | os.PathLike | None = None,
    resume: bool = True,
    progress: Any = False,
    **options: Any,
) -> FitResult:
    """Trains a warm-started flow; the options are those of `trainers.fit`."""
    return fit(
        flow,
        config=config,
        mesh=mesh,
        workdir=workdir,
        resume=resume,
        progress=progress,
        **_data_sets(train, valid, monitor),
        **options,
    )


def _data_sets(
    train: EncodedTable,
    valid: EncodedTable | None,
    monitor: Mapping[str, EncodedTable] | None,
) -> dict[str, Any]:
    """As `fit` takes them."""
    sets = {
        "x_train": train.rows,
        "context": train.context,
        "weights": train.weights,
        "monitor": {name: rows.pair() for name, rows in (monitor or {}).items()},
    }
    if valid is not None:
        sets |= {"x_valid": valid.rows, "context_valid": valid.context}
        if train.weights is not None:
            sets["weights_valid"] = valid.weights
    return sets
