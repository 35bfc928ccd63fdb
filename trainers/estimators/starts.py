"""Warm starts of a table: which layers stand before the blocks, as held-out rows decide."""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import rbig_nnx
from rbig_nnx import (
    MixtureCDFMarginal,
    RadialTransform,
    Standardize,
    TailTransform,
    Whiten,
)
from trainers.estimators.encoded import EncodedTable
from trainers.estimators.settings import FEW_ROWS, Architecture

Started = tuple[rbig_nnx.GaussianizationFlow, rbig_nnx.WarmStartReport]
_TRIAL_ROWS = 8_192  # from which starts are compared, at most
_GAIN = 0.005  # nats for which a map of the radius is put before the blocks
# Nats a column by which other layers lead: not by chance; and clusters of more rows so that
# training does not make up for it.
_LEAD, _LATE_LEAD = 0.01, 0.1
_CLEAR = 0.1  # nats a column for which maps of the columns are expected there
_CLUSTERS, _ROWS_A_CLUSTER = 16, 10  # at most, and at least, of a `ClusterTransform`
_CLUSTERED_ROWS = 5_000  # from which training gets further without one
_CLUSTERED_COLUMNS = 64  # at most: it has K d² parameters

_BEFORE = {  # of layers: what is said with and without them, and the setting
    "TailTransform": ("heavy tails taken off {}", "heavy tails left", "tails"),
    "MixtureCDFMarginal": ("own maps of {}", "no own maps of columns", "marginals"),
    "Whiten": ("{}", "not whitened", "whiten"),
    "RadialTransform": ("shared scale: {}", "no shared scale", "radial"),
    "ClusterTransform": ("clusters: {}", "no clusters", "clusters"),
}


def start(
    train: EncodedTable,
    architecture: Architecture,
    *,
    seed: int,
    expect: Callable[[Architecture], None] | None = None,
    **options: Any,
) -> Started:
    """A flow of these rows, warm-started.

    Where the architecture leaves it open, starts with and without maps of each column, a
    `TailTransform` and a `MixtureCDFMarginal`, and with and without a `ClusterTransform`, are
    compared on the rows that their fits leave out; of many rows, starts from a sample. Maps
    that gain nothing before whitening alone are not tried. A `RadialTransform` takes their
    place where alone it is ahead of them and of the start without them.

    Args:
      train: rows to fit.
      architecture: of the flow.
      seed: of the parameters and of the warm start.
      expect: called with the layers that are likely, before they are tried.
      options: of `rbig_nnx.warm_start`.
    """

    def begin(layers: Architecture, **options: Any):
        flow = build_flow(train, layers, seed=seed)
        return _start(flow, train, architecture.rotation, seed=seed, **options)

    plain = best = _without(architecture)
    few = {"max_rows": _TRIAL_ROWS} if train.num_rows > _TRIAL_ROWS else {}
    clusters = most_clusters(train, architecture)
    alone = _alone(train, architecture, seed=seed, **few)
    if expect is not None:
        expect(_likely(train, plain, clusters, alone))
    if not (alone.maps or alone.radius is not None or clusters):
        return begin(plain, **options)
    lead = train.width * _LEAD
    trial = begin(plain, **options | few)
    least = trial[1].log_prob + _GAIN
    if alone.radius is not None and alone.radius > max(alone.columns, least):
        rival = {"radial": True}
    else:
        least = trial[1].log_prob + lead
        rival = alone.maps if alone.gain > 0 else {}
    if rival:
        layers = replace(plain, **rival)
        other = begin(layers, **options | few)
        if other[1].log_prob > least:
            trial, best = other, layers
    late = train.width * _LATE_LEAD if train.num_rows >= FEW_ROWS else lead
    for base in dict.fromkeys((plain, best)) if clusters else ():
        layers = replace(base, clusters=clusters, radial=False)
        least = trial[1].log_prob + (lead if best.clusters else late)
        other = _unless_behind(begin, layers, least, **options | few)
        if other is not None and other[1].log_prob > least:
            trial, best = other, layers
    return begin(best, **options) if few else trial


def told(
    report: rbig_nnx.WarmStartReport, width: int, names: Mapping[str, str], form: str
) -> str:
    """What stands before the blocks, each with what overrides it, in a line.

    Args:
      report: of the start.
      width: encoded columns.
      names: of the settings, as they are typed.
      form: of one of them: "{}={}".
    """
    first = itertools.takewhile(
        lambda layer: layer.name != "HouseholderRotation", report.layers
    )
    actions = {layer.name: layer.action for layer in first}
    # One column has nothing else to take off, and no rotation before its blocks.
    said = []
    for layer in _BEFORE if width > 1 else ("TailTransform",):
        taken, left, name = _BEFORE[layer]
        other: Any = layer not in actions
        if name == "clusters":
            other = _CLUSTERS * other
        words = taken.format(actions[layer]) if layer in actions else left
        said.append(f"{words} ({form.format(names[name], other)})")
    return "; ".join(said)


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


class _Alone(NamedTuple):
    """What layers have without any block, nats, on the rows that their fits leave out.

    Attributes:
      maps: of each column, by setting: those that are left open, that of the tails only
        where it is worth it beside the mixtures.
      columns: with them, before whitening.
      gain: over whitening.
      radius: with a map of the radius behind whitening; None where that is not open.
    """

    maps: dict[str, bool]
    columns: float
    gain: float
    radius: float | None


def _alone(train: EncodedTable, architecture: Architecture, **options: Any) -> _Alone:
    """A moment's work beside a start."""
    several = train.width > 1
    white = several and architecture.whiten is not False and not architecture.clusters
    marginal = functools.partial(
        MixtureCDFMarginal,
        num_components=architecture.num_components,
        family=architecture.family,
    )
    kinds = {"tails": TailTransform, "marginals": marginal}
    if not several:
        del kinds["marginals"]  # which the blocks are
    maps = [name for name in kinds if getattr(architecture, name) is None]

    def score(*layers: Any) -> float:
        layers = [kind(train.width) for kind in (Standardize, *layers)]
        flow = rbig_nnx.GaussianizationFlow(layers)
        return _start(flow, train, "pca", **options)[1].log_prob

    last, plain, columns, radius = [Whiten] * white, 0.0, -np.inf, None
    if maps:
        plain = score(*last)
        columns = score(*(kinds[name] for name in maps), *last)
        if len(maps) == 2 and (other := score(marginal, *last)) >= columns:
            maps, columns = ["marginals"], other
    if white and architecture.radial is None:
        radius = score(Whiten, RadialTransform)
    return _Alone(dict.fromkeys(maps, True), columns, columns - plain, radius)


def _likely(
    train: EncodedTable, plain: Architecture, clusters: int, alone: _Alone
) -> Architecture:
    """Which layers a start will have: maps that gain much alone, and clusters of few rows."""
    if alone.gain > _CLEAR * train.width:
        plain = replace(plain, **alone.maps)
    return replace(plain, clusters=clusters) if train.num_rows < FEW_ROWS else plain


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
