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
from trainers.run.loop import FitResult
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema
from trainers.trainer import fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The flow and its start.

    Attributes:
      num_blocks: (rotation, coupling, coupling) blocks.
      num_components: of each feature's mixture.
      hidden: widths of the conditioners.
      family: "gaussian" or "logistic".
      rotation: of the warm start.
    """

    num_blocks: int = 4
    num_components: int = 8
    hidden: tuple[int, ...] = (64, 64)
    family: str = "gaussian"
    rotation: str = "nongaussian"


def settings_for(num_rows: int, asked: Architecture) -> Architecture:
    """What is used where a table is too small for what was asked.

    Args:
      num_rows: that are fitted.
      asked: the architecture for many rows.
    """
    components = max(1, min(asked.num_components, num_rows // 4))
    return dataclasses.replace(asked, num_components=components)


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


def start(
    train: EncodedTable, architecture: Architecture, *, seed: int, **options: Any
) -> tuple[rbig_nnx.GaussianizationFlow, rbig_nnx.WarmStartReport]:
    """A flow of these rows, warm-started.

    Args:
      train: rows to fit.
      architecture: of the flow.
      seed: of the parameters and of the warm start.
      options: of `rbig_nnx.warm_start`.
    """
    flow = rbig_nnx.coupling_flow(
        train.rows.shape[1],
        architecture.num_blocks,
        num_components=architecture.num_components,
        hidden=tuple(architecture.hidden),
        family=architecture.family,
        context_features=0 if train.context is None else train.context.shape[1],
        rngs=nnx.Rngs(seed),
    )
    return rbig_nnx.warm_start(
        flow,
        train.rows,
        key=jax.random.key(seed),
        context=train.context,
        weights=train.weights,
        rotation=architecture.rotation,
        **options,
    )


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
    weights = {}
    if train.weights is not None:
        weights["weights"] = train.weights
        weights["weights_valid"] = None if valid is None else valid.weights
    return fit(
        flow,
        train.rows,
        None if valid is None else valid.rows,
        context=train.context,
        context_valid=None if valid is None else valid.context,
        monitor={name: rows.pair() for name, rows in (monitor or {}).items()},
        config=config,
        mesh=mesh,
        workdir=workdir,
        resume=resume,
        progress=progress,
        **weights,
        **options,
    )
