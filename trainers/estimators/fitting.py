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
from trainers.rows.files import RowFiles
from trainers.run.loop import FitResult
from trainers.tables.checks import InputError
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema
from trainers.trainer import Trainer, fit

_TRIAL_ROWS = 8_192  # from which starts are compared, at most
_GAIN = 0.005  # nats for which a layer is put before the blocks
_FEWEST = 8  # rows of which some can be held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedTable:
    """Rows of a table as a flow takes them.

    Attributes:
      rows: float32, [n, d]; or `RowFiles`, of a table larger than memory.
      log_det: what log p of a row gains from the encoding, [n].
      context: float32, [n, c], or None.
      weights: of the rows, [n], or None.
    """

    rows: np.ndarray | RowFiles
    log_det: np.ndarray
    context: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Encoded columns."""
        rows = self.rows
        return rows.num_features if isinstance(rows, RowFiles) else rows.shape[1]

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
    compared on the rows that their fits leave out; of many rows, starts from a sample. A
    `RadialTransform` takes its place there, or is tried in addition, where alone it is ahead
    of the start without one.

    Args:
      train: rows to fit.
      architecture: of the flow.
      seed: of the parameters and of the warm start.
      options: of `rbig_nnx.warm_start`.
    """
    asked = {"tails": architecture.tails, "radial": architecture.radial}
    plain = {name: bool(wanted) for name, wanted in asked.items()}

    def begin(found: Mapping[str, bool], **options: Any):
        flow = _flow(train, architecture, seed=seed, **found)
        return _start(flow, train, architecture.rotation, seed=seed, **options)

    if asked == plain:
        return begin(plain, **options)
    many = len(train.rows) > _TRIAL_ROWS and architecture.tails is None
    few = {"max_rows": _TRIAL_ROWS} if many else {}
    trial = begin(plain, **options | few)
    least = trial[1].log_prob + _GAIN
    choice = plain
    rival = _rival(train, architecture, least, seed=seed, **few)
    if rival is not None:
        other = begin(plain | {rival: True}, **options | few)
        if other[1].log_prob > least:
            trial, choice = other, plain | {rival: True}
    return begin(choice, **options) if few else trial


def _rival(
    train: EncodedTable,
    architecture: Architecture,
    least: float,
    *,
    seed: int,
    **options: Any,
) -> str | None:
    """The layer to try, of those that the architecture leaves open, if any is worth it.

    A map of the radius where, alone, it has more than `least` on the rows that its fit leaves
    out, and more than maps of the columns' tails: a moment's work beside a start.
    """
    d = train.width
    tails = "tails" if architecture.tails is None else None
    if architecture.radial is not None or not architecture.whiten or d < 2:
        return tails

    def alone(*kinds: Any) -> float:
        layers = [kind(d) for kind in (rbig_nnx.Standardize, *kinds)]
        flow = rbig_nnx.GaussianizationFlow(layers)
        return _start(flow, train, "pca", seed=seed, **options)[1].log_prob

    found = alone(rbig_nnx.Whiten, rbig_nnx.RadialTransform)
    if found <= least:
        return tails
    if tails and found <= alone(rbig_nnx.TailTransform, rbig_nnx.Whiten):
        return tails
    return "radial"


def _start(
    flow: rbig_nnx.GaussianizationFlow,
    train: EncodedTable,
    rotation: str,
    *,
    seed: int,
    **options: Any,
) -> tuple[rbig_nnx.GaussianizationFlow, rbig_nnx.WarmStartReport]:
    context = train.context if flow.context_features else None
    return rbig_nnx.warm_start(
        flow,
        train.rows,
        key=jax.random.key(seed),
        context=context,
        weights=train.weights,
        rotation=rotation,
        **options,
    )


def _flow(
    train: EncodedTable,
    architecture: Architecture,
    *,
    tails: bool,
    radial: bool,
    seed: int,
) -> rbig_nnx.GaussianizationFlow:
    d = train.width
    return rbig_nnx.coupling_flow(
        d,
        architecture.num_blocks,
        num_components=architecture.num_components,
        hidden=tuple(architecture.hidden),
        family=architecture.family,
        tails=tails,
        whiten=architecture.whiten and d > 1,
        radial=radial,
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

    Where the start is found to need a layer that was not asked for, in vain.
    """
    architecture = settings.architecture
    asked = {"tails": bool(architecture.tails), "radial": bool(architecture.radial)}
    flow = _flow(train, architecture, seed=0, **asked)
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
