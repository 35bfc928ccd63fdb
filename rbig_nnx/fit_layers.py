"""How each kind of layer is fitted to the rows that reach it.

A new kind registers a function with `fit_layer`; a user's layer has a method `warm_start`.
"""

import functools
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment

from rbig_nnx.fit.clusters import fit_clusters
from rbig_nnx.fit.judges import gain_and_error, judged
from rbig_nnx.fit.mixtures import Block, Place
from rbig_nnx.fit.rotation import covariances, fit_rotation
from rbig_nnx.fit.tails import radius
from rbig_nnx.fit.tails.columns import fit_tails
from rbig_nnx.math import householder
from rbig_nnx.math.params import MixtureParams
from rbig_nnx.math.sums import in_float64
from rbig_nnx.math.tails.radius import RadialParams
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.standardize import Standardize, Whiten, principal_axes
from rbig_nnx.nn.transforms import ClusterTransform, RadialTransform, TailTransform

AUTO = ("pca", "nongaussian")  # the second where held-out rows clearly gain


@runtime_checkable
class Fittable(Protocol):
    """A user's layer that takes part in the warm start."""

    def warm_start(
        self, x: Float[Array, "n d"], *, weights: Float[Array, " n"], key: Array
    ) -> None:
        """Rewrites the layer's own variables from the layer's input.

        Args:
          x: what reaches the layer, [n, d]; of many rows, a sample.
          weights: weights of the rows, [n]; zero for rows that must not be used.
          key: random key of this layer.
        """


@functools.singledispatch
def fit_layer(layer: Any, block: Block) -> str:
    """Fits one layer in place; returns what was done, for the report."""
    if isinstance(layer, Fittable):
        layer.warm_start(block.x, weights=block.rows.fit, key=block.key)
        return "own fit"
    return "passed"


@fit_layer.register
def _(layer: Standardize, block: Block) -> str:
    return fit_standardize(layer, block.x, block.rows.every, "x")


def fit_standardize(layer: Standardize, x: Array, weights: Array, name: str) -> str:
    """Writes mean and scale of x; `name` is the argument's, for the error.

    Of all rows, those that judge too: a column may vary in one of them only.
    """
    mean, scale = map(np.asarray, _moments(x, weights))
    if not np.all(scale > 0):
        raise ValueError(
            f"`{name}` must vary in every column; columns"
            f" {np.flatnonzero(~(scale > 0)).tolist()} are constant in the rows of positive"
            " weight. Leave them out."
        )
    layer.mean[...] = mean.astype(layer.mean.dtype)
    layer.log_scale[...] = np.log(scale).astype(layer.log_scale.dtype)
    return "mean and scale"


@jax.jit
def _moments(x: Array, weights: Array) -> tuple[Array, Array]:
    def moments(x, weights):
        w = (weights / jnp.sum(weights))[:, None]
        # About a first row: on TPUs, in float32, the mean of large numbers cancels.
        origin = x[0]
        mean = jnp.sum(w * (x - origin), axis=0)
        scale = jnp.sqrt(jnp.sum(w * jnp.square(x - origin - mean), axis=0))
        return origin + mean, scale

    return in_float64(moments, x, weights)


@fit_layer.register
def _(layer: TailTransform, block: Block) -> str:
    place = block.place

    def fit():
        every, holds_out = block.rows.every, place.options.holds_out
        return fit_tails(block.x, every, block.key, judged=holds_out)

    # Like the standardiser it knows every row: next to the data all chains have one fit.
    alike = np.array_equal(block.x, place.blocks[0].x)
    params, kept = place.once("tails", fit) if alike else fit()
    layer.set_tails(params)
    return f"{int(kept.sum())} of {kept.size} features"


@fit_layer.register
def _(layer: Whiten, block: Block) -> str:
    action, found = block.place.once("covariance", lambda: _covariances(block.place))
    layer.set_covariance(block.own(found))
    return action


def _covariances(place: Place) -> tuple[str, list[np.ndarray]]:
    """What was done, and each chain's covariance: shrunk where rows that judge prefer it.

    Shrinkage adds as much to the least variance as to the largest, which few rows need and
    many do not bear.
    """
    fits = [
        radius.elliptical_covariances(b.x, b.rows.fit, b.key)
        if place.elliptical
        else covariances(b.x, b.rows.fit)
        for b in place.blocks
    ]
    plain, shrunk = (
        [np.asarray(c, np.float64) for c in cs] for cs in zip(*fits, strict=True)
    )
    if not place.options.holds_out:
        return "white", plain
    scores = [
        sum(_white(b, b.own(cs)) for b in judged(place.blocks))
        for cs in (plain, shrunk)
    ]
    return ("white, shrunk", shrunk) if scores[1] > scores[0] else ("white", plain)


def _white(block: Block, covariance: np.ndarray) -> float:
    """Log density of the rows that judge, of mean 0, behind what follows."""
    variances, axes = principal_axes(covariance)
    squares = np.sum((np.asarray(block.x, np.float64) @ axes) ** 2 / variances, axis=1)
    own = _radius(block, squares) if block.place.elliptical else radius.IDENTITY
    densities, weights = _densities(block, squares, own)
    return float(weights @ (densities - 0.5 * np.sum(np.log(variances))))


@fit_layer.register
def _(layer: RadialTransform, block: Block) -> str:
    action, found = block.place.once("radius", lambda: _fit_radii(block.place))
    layer.set_radial(block.own(found))
    return action


def _fit_radii(place: Place) -> tuple[str, list[RadialParams]]:
    """What was done, and each chain's map: the identity where rows that judge do not gain."""
    squares = [radius.squared_radii(b.x) for b in place.blocks]
    fits = [_radius(*pair) for pair in zip(place.blocks, squares, strict=True)]
    if place.options.holds_out:
        judges = judged([*zip(place.blocks, squares, fits, strict=True)])
        found = [_densities(*judge) for judge in judges]
        plain = [_densities(b, s, radius.IDENTITY)[0] for b, s, _ in judges]
        gained, weights = map(np.concatenate, zip(*found, strict=True))
        if not radius.worth_it(gained - np.concatenate(plain), weights):
            return "left as it is", [radius.IDENTITY for _ in fits]
    return f"tail index {fits[0].index:.2f}", fits


def _radius(block: Block, squares: np.ndarray) -> RadialParams:
    """The fit of a map to the radii of the rows that are fitted."""
    weights = np.asarray(block.rows.fit, np.float64)
    return radius.fit_radial(squares, weights, block.x.shape[1], block.key)


def _densities(
    block: Block, squares: np.ndarray, params: RadialParams
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of the rows that judge by their radii, and their weights."""
    weights = np.asarray(block.rows.judge, np.float64)
    squares, weights = squares[weights > 0], weights[weights > 0]
    return radius.log_density(squares, params, block.x.shape[1]), weights


@fit_layer.register
def _(layer: ClusterTransform, block: Block) -> str:
    place, k = block.place, layer.num_components
    action, found = place.once("clusters", lambda: fit_clusters(place, k))
    layer.set_clusters(block.own(found))
    return action


@fit_layer.register
def _(layer: HouseholderRotation, block: Block) -> str:
    d = layer.num_features
    if layer.num_reflections < d:
        return f"kept ({layer.num_reflections} of {d} reflections)"
    method, axes = block.place.once("rotation", lambda: _fit_rotations(block.place))
    if (layer.num_reflections - d) % 2:
        block.place.foreseen = {}  # an axis is turned over
    vectors = _reflections(block.own(axes), layer.num_reflections)
    layer.vectors[...] = vectors.astype(layer.vectors.dtype)
    return method


def _fit_rotations(place: Place) -> tuple[str, list[np.ndarray]]:
    """The method, and each chain's matrix."""
    method = place.options.rotation
    if method != "auto":
        return method, _axes(place, method)
    plain = _axes(place, AUTO[0])
    if place.following is None or len(plain[0]) < 2:
        return AUTO[0], plain
    sharp = _axes(place, AUTO[1])
    trials = [_turned(place, axes) for axes in (plain, sharp)]
    scores = (trial.held_out(place.following) for trial in trials)
    found, weights = zip(*scores, strict=True)
    gain, error = gain_and_error(found[1] - found[0], weights[0])
    better = int(gain > error)
    place.foresee(trials[better])
    return AUTO[better], (plain, sharp)[better]


def _axes(place: Place, method: str) -> list[np.ndarray]:
    """Each chain's axes; those of the others in the order, and with the signs, of the first.

    Its features decide together with theirs, and its fits are where theirs begin.
    """
    first, *others = (
        np.asarray(fit_rotation(b.x, method=method, key=b.key, weights=b.rows.fit))
        for b in place.blocks
    )
    axes = [_reflecting(first, len(first) - 1)]
    outputs = np.asarray(place.blocks[0].x) @ axes[0]
    for block, q in zip(place.blocks[1:], others, strict=True):
        alike = np.corrcoef(outputs, np.asarray(block.x) @ q, rowvar=False)
        alike = np.nan_to_num(alike)[: len(q), len(q) :]
        rows, order = linear_sum_assignment(np.abs(alike), maximize=True)
        alike = alike[rows, order]
        signed = q[:, order] * np.where(alike < 0, -1, 1).astype(q.dtype)
        axes.append(_reflecting(signed, np.abs(alike).argmin()))
    return axes


def _reflecting(q: np.ndarray, free: int) -> np.ndarray:
    """Axes that d reflections give, whose determinant is (−1)^d: the sign of one is free."""
    if np.linalg.det(q) * (-1) ** len(q) < 0:
        q = q.copy()
        q[:, free] *= -1
    return q


def _turned(place: Place, axes: list[np.ndarray]) -> Place:
    """What lies behind these axes."""
    key, blocks = jax.random.fold_in(place.key, 2), place.blocks
    turned = [
        jnp.asarray(np.asarray(b.x) @ q) for b, q in zip(blocks, axes, strict=True)
    ]
    parts = [b.rows for b in blocks]
    return Place(key, place.options, turned, parts, normal=place.normal)


def _reflections(q: np.ndarray, num_reflections: int) -> np.ndarray:
    d = len(q)
    # Pairs of equal reflections cancel; a single one more flips the first axis.
    extra = np.repeat(np.eye(d, dtype=q.dtype)[:1], num_reflections - d, axis=0)
    return np.concatenate([householder.factorize(q), extra])


@fit_layer.register
def _(layer: MixtureCDFMarginal, block: Block) -> str:
    params, shrinkage = block.mixtures(layer)
    layer.set_mixtures(params)
    return _describe(shrinkage)


@fit_layer.register
def _(layer: MixtureCDFCoupling, block: Block) -> str:
    params, shrinkage = block.mixtures(layer)
    moved = ~np.asarray(layer.mask)
    layer.set_mixtures(MixtureParams(*(p[moved] for p in params)))
    return _describe(shrinkage[moved])


def _describe(shrinkage: np.ndarray) -> str:
    fitted = np.isfinite(shrinkage)
    note = f", {n} shrunk" if (n := int(np.sum(shrinkage[fitted] > 0))) else ""
    return f"{int(fitted.sum())} of {fitted.size} features{note}"
