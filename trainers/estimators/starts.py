"""Warm starts of a table: which layers stand before the blocks, as held-out rows decide."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx

import rbig_nnx
from rbig_nnx import MixtureCDFMarginal, RadialTransform, TailTransform, Whiten
from trainers.estimators.encoded import EncodedTable
from trainers.estimators.settings import FEW_ROWS, Architecture

Started = tuple[rbig_nnx.GaussianizationFlow, rbig_nnx.WarmStartReport]
_TRIAL_ROWS = 8_192  # from which starts are compared, at most
_GAIN = 0.005  # nats for which a layer is put before the blocks
_CLUSTERS, _ROWS_A_CLUSTER = 16, 10  # at most, and at least, of a `ClusterTransform`
_CLUSTERED_ROWS = 5_000  # from which training gets further without one
# Nats a column by which it leads: of few rows not by chance, of more so that training does not
# make up for it.
_FEW_LEAD, _LEAD = 0.01, 0.1
_CLUSTERED_COLUMNS = 64  # at most: it has K d² parameters


def start(
    train: EncodedTable, architecture: Architecture, *, seed: int, **options: Any
) -> Started:
    """A flow of these rows, warm-started.

    Where the architecture leaves it open, starts with and without maps of each column, a
    `TailTransform` and a `MixtureCDFMarginal`, and with and without a `ClusterTransform`, are
    compared on the rows that their fits leave out; of many rows, starts from a sample. A
    `RadialTransform` is tried instead of the former where alone it is ahead of them and of the
    start without them.

    Args:
      train: rows to fit.
      architecture: of the flow.
      seed: of the parameters and of the warm start.
      options: of `rbig_nnx.warm_start`.
    """

    def begin(layers: Architecture, **options: Any):
        flow = build_flow(train, layers, seed=seed)
        return _start(flow, train, architecture.rotation, seed=seed, **options)

    plain = best = _without(architecture)
    clusters = most_clusters(train, architecture)
    lead = train.width * (_FEW_LEAD if train.num_rows < FEW_ROWS else _LEAD)
    opened = (architecture.tails, architecture.marginals, architecture.radial)
    if None in opened or clusters:
        few = {"max_rows": _TRIAL_ROWS} if train.num_rows > _TRIAL_ROWS else {}
        trial = begin(best, **options | few)
        least = trial[1].log_prob + _GAIN
        layers = _other(train, architecture, best, least, seed=seed, **few)
        if layers is not None:
            other = begin(layers, **options | few)
            if other[1].log_prob > least:
                trial, best = other, layers
        # With clusters, maps of the columns may be worth more, or nothing.
        for base in dict.fromkeys((best, plain)) if clusters else ():
            layers = replace(base, clusters=clusters, radial=False)
            least = trial[1].log_prob + (0 if best.clusters else lead)
            other = _unless_behind(begin, layers, least, **options | few)
            if other is not None and other[1].log_prob > least:
                trial, best = other, layers
        if not few:
            return trial
    return begin(best, **options)


def _without(architecture: Architecture) -> Architecture:
    """What is left open, left out."""
    return replace(
        architecture,
        tails=bool(architecture.tails),
        marginals=bool(architecture.marginals),
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


def _other(
    train: EncodedTable,
    architecture: Architecture,
    best: Architecture,
    least: float,
    **options: Any,
) -> Architecture | None:
    """What to try for columns that are not Gaussian, of what is left open, if anything is.

    Layers without any block are compared on the rows that their fits leave out, a moment's
    work beside a start: maps of the columns with and without that of their tails, and one of
    the radius, which has to have more than `least` as well.
    """
    white = [] if architecture.whiten is False or architecture.clusters else [Whiten]

    def alone(*kinds: Any) -> float:
        return _alone(train, *kinds, *white, **options)

    maps = {"tails": TailTransform, "marginals": MixtureCDFMarginal}
    if train.width < 2:
        del maps["marginals"]  # which the blocks are
    maps = {k: v for k, v in maps.items() if getattr(architecture, k) is None}
    score = alone(*maps.values()) if maps and train.width > 1 else -np.inf
    if len(maps) == 2 and (other := alone(MixtureCDFMarginal)) >= score:
        score = other
        del maps["tails"]
    if architecture.radial is None and white and train.width > 1:
        found = _alone(train, Whiten, RadialTransform, **options)
        if found > max(score, least):
            return replace(best, radial=True)
    return replace(best, **dict.fromkeys(maps, True)) if maps else None


class _BehindError(Exception):
    """A start that is given up."""


def _unless_behind(
    begin: Callable[..., Started],
    layers: Architecture,
    least: float,
    *,
    callback: Callable[[rbig_nnx.LayerReport], None] | None = None,
    **options: Any,
) -> Started | None:
    """A start with clusters, given up where the clusters alone have no more than `least`."""

    def look(layer: rbig_nnx.LayerReport):
        if layer.name == "ClusterTransform" and layer.log_prob <= least:
            raise _BehindError
        if callback is not None:
            callback(layer)

    try:
        return begin(layers, callback=look, **options)
    except _BehindError:
        return None


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
) -> Started:
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


def build_flow(
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
        marginals=bool(architecture.marginals),
        whiten=whiten and d > 1,
        radial=bool(architecture.radial),
        clusters=architecture.clusters or 0,
        context_features=0 if train.context is None else train.context.shape[1],
        rngs=nnx.Rngs(seed),
    )
