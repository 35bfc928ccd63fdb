"""From tables to a trained density: the way that the estimators and the command share."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

import rbig_nnx
from trainers.config import TrainConfig
from trainers.estimators.settings import VALID_ROWS, Architecture, Settings
from trainers.run.loop import FitResult
from trainers.tables.checks import InputError
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema
from trainers.trainer import Trainer, fit

_TRIAL_ROWS = 8_192  # from which starts are compared, at most
_GAIN = 0.005  # nats for which heavy tails are taken off
_FEWEST = 8  # rows of which some can be held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedTable:
    """Rows of a table as a flow takes them.

    Attributes:
      rows: float32, [n, d].
      log_det: what log p of a row gains from the encoding, [n].
      context: float32, [n, c], or None.
      weights: of the rows, [n], or None.
    """

    rows: np.ndarray
    log_det: np.ndarray
    context: np.ndarray | None = None
    weights: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        table: Frame,
        schema: Schema,
        *,
        context: Frame | None = None,
        given: Schema | None = None,
        weights: np.ndarray | None = None,
        seed: int,
    ) -> "EncodedTable":
        """Encodes a table, with noise of its own for every row."""
        rows, log_det = schema.encode(table, seed=seed)
        encoded = None if given is None else given.context(context)
        return cls(rows=rows, log_det=log_det, context=encoded, weights=weights)

    def at(self, index: Any) -> "EncodedTable":
        """The rows of these numbers."""
        return EncodedTable(
            **{
                name: None if value is None else value[index]
                for name, value in vars(self).items()
            }
        )

    def pair(self) -> Any:
        """The rows as `monitor` of `fit` takes them."""
        return self.rows if self.context is None else (self.rows, self.context)


def split(
    encoded: EncodedTable, fraction: float, seed: int
) -> tuple[EncodedTable, EncodedTable | None]:
    """Rows that fit and rows that choose: of few rows a quarter, at most five.

    Args:
      encoded: all of them.
      fraction: that chooses; 0 for none.
      seed: of the split.
    """
    n = len(encoded.rows)
    if not 0 <= fraction < 1:
        raise InputError(f"`validation_fraction` must be in [0, 1); got {fraction!r}.")
    if not fraction or n < _FEWEST:
        return encoded, None
    held = min(max(round(fraction * n), min(5, n // 4)), VALID_ROWS)
    order = np.random.default_rng(seed).permutation(n)
    return encoded.at(order[held:]), encoded.at(order[:held])


def start(
    train: EncodedTable, architecture: Architecture, *, seed: int, **options: Any
) -> tuple[rbig_nnx.GaussianizationFlow, rbig_nnx.WarmStartReport]:
    """A flow of these rows, warm-started.

    Where the architecture leaves it open, starts with and without a `TailTransform` are
    compared on the rows that their fits leave out; of many rows, starts from a sample.

    Args:
      train: rows to fit.
      architecture: of the flow.
      seed: of the parameters and of the warm start.
      options: of `rbig_nnx.warm_start`.
    """

    def begin(*, tails: bool, **options: Any):
        return _start(train, architecture, tails=tails, seed=seed, **options)

    if architecture.tails is not None:
        return begin(tails=architecture.tails, **options)
    few = {} if len(train.rows) <= _TRIAL_ROWS else {"max_rows": _TRIAL_ROWS}
    trials = [begin(tails=tails, **options | few) for tails in (False, True)]
    tails = trials[1][1].log_prob > trials[0][1].log_prob + _GAIN
    return begin(tails=tails, **options) if few else trials[tails]


def _start(
    train: EncodedTable,
    architecture: Architecture,
    *,
    tails: bool,
    seed: int,
    **options: Any,
) -> tuple[rbig_nnx.GaussianizationFlow, rbig_nnx.WarmStartReport]:
    return rbig_nnx.warm_start(
        _flow(train, architecture, tails=tails, seed=seed),
        train.rows,
        key=jax.random.key(seed),
        context=train.context,
        weights=train.weights,
        rotation=architecture.rotation,
        **options,
    )


def _flow(
    train: EncodedTable, architecture: Architecture, *, tails: bool, seed: int
) -> rbig_nnx.GaussianizationFlow:
    d = train.rows.shape[1]
    return rbig_nnx.coupling_flow(
        d,
        architecture.num_blocks,
        num_components=architecture.num_components,
        hidden=tuple(architecture.hidden),
        family=architecture.family,
        tails=tails,
        whiten=architecture.whiten and d > 1,
        context_features=0 if train.context is None else train.context.shape[1],
        rngs=nnx.Rngs(seed),
    )


def compile_ahead(
    train: EncodedTable,
    valid: EncodedTable | None,
    settings: Settings,
    *,
    monitor: Mapping[str, EncodedTable] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> None:
    """Begins to compile what `train_flow` will run, beside the warm start.

    Where the start is found to need a `TailTransform` that was not asked for, in vain.
    """
    tails = bool(settings.architecture.tails)
    flow = _flow(train, settings.architecture, tails=tails, seed=0)
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
