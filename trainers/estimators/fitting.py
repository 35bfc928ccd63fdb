"""From tables to a trained density: the way that the estimators and the command share."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

import rbig_nnx
from trainers.config import TrainConfig
from trainers.estimators.settings import FEW_ROWS, VALID_ROWS, Architecture, Settings
from trainers.rows.files import RowFiles
from trainers.run.loop import FitResult
from trainers.tables.checks import InputError
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema
from trainers.trainer import Trainer, fit

_TRIAL_ROWS = 8_192  # from which starts are compared, at most
_GAIN = 0.005  # nats for which a layer is put before the blocks
_CLUSTERS, _ROWS_A_CLUSTER = 16, 10  # at most, and at least, of a `ClusterTransform`
_CLUSTERED_ROWS = 5_000  # from which training gets further without one
# Nats a column by which it leads: of few rows not by chance, of more so that training does not
# make up for it.
_FEW_LEAD, _LEAD = 0.01, 0.1
_CLUSTERED_COLUMNS = 64  # at most: it has K d² parameters
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
    def num_rows(self) -> int:
        """Rows."""
        rows = self.rows
        return rows.num_rows if isinstance(rows, RowFiles) else len(rows)

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

    Where the architecture leaves it open, starts with and without a `TailTransform`, and with
    and without a `ClusterTransform`, are compared on the rows that their fits leave out; of
    many rows, starts from a sample. A `RadialTransform` takes the place of the former, or is
    tried in addition, where alone it is ahead of the start without one.

    Args:
      train: rows to fit.
      architecture: of the flow.
      seed: of the parameters and of the warm start.
      options: of `rbig_nnx.warm_start`.
    """

    def begin(layers: Architecture, **options: Any):
        flow = _flow(train, layers, seed=seed)
        return _start(flow, train, architecture.rotation, seed=seed, **options)

    best = _without(architecture)
    clusters = most_clusters(train, architecture)
    lead = train.width * (_FEW_LEAD if train.num_rows < FEW_ROWS else _LEAD)
    if architecture.tails is None or architecture.radial is None or clusters:
        few = {"max_rows": _TRIAL_ROWS} if train.num_rows > _TRIAL_ROWS else {}
        trial = begin(best, **options | few)
        for rival, gain in ((_heavy, _GAIN), (_clustered, lead)):
            least = trial[1].log_prob + gain
            layers = rival(train, architecture, best, least, seed=seed, **few)
            if layers is not None:
                other = begin(layers, **options | few)
                if other[1].log_prob > least:
                    trial, best = other, layers
        if not few:
            return trial
    return begin(best, **options)


def _without(architecture: Architecture) -> Architecture:
    """What is left open, left out."""
    return replace(
        architecture,
        tails=bool(architecture.tails),
        radial=bool(architecture.radial),
        clusters=architecture.clusters or 0,
    )


def most_clusters(train: EncodedTable, architecture: Architecture) -> int:
    """Components of a `ClusterTransform` to try, where that is open; 0 for none."""
    many = train.num_rows >= _CLUSTERED_ROWS or train.width > _CLUSTERED_COLUMNS
    asked = architecture.clusters is not None or architecture.radial
    if many or asked or train.context is not None or train.width < 2:
        return 0
    number = min(train.num_rows // _ROWS_A_CLUSTER, _CLUSTERS)
    return 1 << number.bit_length() - 1 if number > 1 else 0


def _heavy(
    train: EncodedTable,
    architecture: Architecture,
    best: Architecture,
    least: float,
    **options: Any,
) -> Architecture | None:
    """What to try for heavy tails, of what is left open, if anything is worth it.

    A map of the radius where, alone, it has more than `least` on the rows that its fit leaves
    out, and more than maps of the columns' tails: a moment's work beside a start.
    """
    tails = replace(best, tails=True) if architecture.tails is None else None
    unwhitened = architecture.whiten is False or architecture.clusters
    if architecture.radial is not None or unwhitened or train.width < 2:
        return tails
    found = _alone(train, rbig_nnx.Whiten, rbig_nnx.RadialTransform, **options)
    if found <= least:
        return tails
    if tails and found <= _alone(
        train, rbig_nnx.TailTransform, rbig_nnx.Whiten, **options
    ):
        return tails
    return replace(best, radial=True)


def _clustered(
    train: EncodedTable,
    architecture: Architecture,
    best: Architecture,
    least: float,
    **options: Any,
) -> Architecture | None:
    """What to try for clusters, if that is left open and worth it: as for the radius."""
    number = most_clusters(train, architecture)
    if not number:
        return None
    kinds = [functools.partial(rbig_nnx.ClusterTransform, num_components=number)]
    if best.tails:
        kinds.insert(0, rbig_nnx.TailTransform)
    if _alone(train, *kinds, **options) <= least:
        return None
    return replace(best, clusters=number, radial=False)


def _alone(train: EncodedTable, *kinds: Any, seed: int, **options: Any) -> float:
    """What layers have without any block, on the rows that their fits leave out."""
    layers = [kind(train.width) for kind in (rbig_nnx.Standardize, *kinds)]
    flow = rbig_nnx.GaussianizationFlow(layers)
    return _start(flow, train, "pca", seed=seed, **options)[1].log_prob


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
    train: EncodedTable, architecture: Architecture, *, seed: int
) -> rbig_nnx.GaussianizationFlow:
    """Behind a `ClusterTransform` nothing is left for `Whiten`, unless it is asked for."""
    d = train.width
    whiten = architecture.whiten
    if whiten is None:
        whiten = not architecture.clusters
    return rbig_nnx.coupling_flow(
        d,
        architecture.num_blocks,
        num_components=architecture.num_components,
        hidden=tuple(architecture.hidden),
        family=architecture.family,
        tails=bool(architecture.tails),
        whiten=whiten and d > 1,
        radial=bool(architecture.radial),
        clusters=architecture.clusters or 0,
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

    Clusters are expected in few rows, no other layer that is left open; where the start is
    found to need other ones, in vain.
    """
    architecture = settings.architecture
    clusters = architecture.clusters
    if train.num_rows < FEW_ROWS:
        clusters = clusters or most_clusters(train, architecture)
    flow = _flow(train, replace(architecture, clusters=clusters), seed=0)
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
