"""How each kind of layer is fitted to the rows that reach it.

A new kind registers a function with `fit_layer`; a user's layer has a method `warm_start`.
"""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rbig_nnx.fit import gmm
from rbig_nnx.fit.rotation import fit_rotation
from rbig_nnx.fit.sketch import sketch
from rbig_nnx.math import householder, mixture
from rbig_nnx.math.blocks import in_blocks
from rbig_nnx.math.params import MixtureParams, identity_params
from rbig_nnx.math.sums import in_float64
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.standardize import Standardize

# Pseudo-observations from N(0, 1), in units of the data's mass, that the held-out rows
# choose between, and from the identity.
_SHRINKAGES = (0.0, 0.1, 0.5, 2.0)
_ROUND = 4_096  # held-out rows are gathered in multiples of this
_STANDARD_ERRORS = 1.0  # by which a sharper fit must lead on the held-out rows


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


class Options(NamedTuple):
    """What `warm_start` was asked for."""

    rotation: str
    smoothing: float
    backend: str


class Mixtures(NamedTuple):
    """Fitted mixtures of all features, [d, K] each, and how far each was shrunk, [d]."""

    params: MixtureParams
    shrinkage: np.ndarray


class Rows(NamedTuple):
    """Weights of the rows that are fitted and of those that judge, each [n]."""

    fit: Array
    judge: Array
    holds_out: bool

    @property
    def every(self) -> Array:
        """Weights of both, but for a factor."""
        return self.fit + self.judge


class Block:
    """What reaches a layer, or the couplings of one block, which share what is fitted.

    A coupling is the marginal map of the features that it moves, while its output kernel is
    zero. So a block's couplings, or the one marginal layer in their place, take their parts
    of one fit and of one map, and agree to the last bit.

    Args:
      x: the rows, [n, d].
      rows: their weights.
      key: random key.
      options: of the warm start.
    """

    def __init__(self, x: Array, rows: Rows, key: Array, options: Options):
        self.x, self.rows, self.key, self.options = x, rows, key, options
        self._fits: dict[tuple, Mixtures] = {}
        self._maps: dict[tuple, tuple[Array, Array]] = {}

    def mixtures(self, layer: Any) -> Mixtures:
        """Fits of every feature, with the components of a coupling or marginal layer."""
        kind = _kind(layer)
        if kind not in self._fits:
            self._fits[kind] = _fit_mixtures(self, *kind)
        return self._fits[kind]

    def mapped(self, layer: Any) -> tuple[Array, Array]:
        """z and log dz/dx of every feature under those fits, [n, d] each."""
        kind = _kind(layer)
        if kind not in self._maps:
            self._maps[kind] = _map(self.mixtures(layer).params, self.x, *kind[1:])
        return self._maps[kind]


def _kind(layer) -> tuple[int, str, float]:
    return layer.num_components, layer.family, layer.anchor_weight


@functools.partial(jax.jit, static_argnums=(2, 3))
def _map(params, x, family, anchor_weight):
    def gaussianize(x):
        return mixture.gaussianize(
            x, params, family=family, anchor_weight=anchor_weight
        )

    return in_blocks(gaussianize, x)


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
def _(layer: HouseholderRotation, block: Block) -> str:
    d = layer.num_features
    if layer.num_reflections < d:
        return f"kept ({layer.num_reflections} of {d} reflections)"
    method = block.options.rotation
    q = fit_rotation(block.x, method=method, key=block.key, weights=block.rows.fit)
    vectors = _reflections(np.asarray(q), layer.num_reflections)
    layer.vectors[...] = vectors.astype(layer.vectors.dtype)
    return method


def _reflections(q: np.ndarray, num_reflections: int) -> np.ndarray:
    d = len(q)
    # d reflections have determinant (−1)^d; the sign of an axis is free.
    if np.linalg.det(q) * (-1) ** d < 0:
        q = np.concatenate([q[:, :-1], -q[:, -1:]], axis=1)
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


def _fit_mixtures(block: Block, num_components, family, anchor_weight) -> Mixtures:
    """A mixture for each feature of the block's rows."""
    x, rows, key, options = block.x, block.rows, block.key, block.options
    kind = {
        "num_components": num_components,
        "family": family,
        "anchor_weight": anchor_weight,
    }
    strengths: tuple[float, ...] = (0.0,)
    if options.backend == "sklearn":
        fits = _fit_by_sklearn(x, rows, key, **kind)
        fits = MixtureParams(*(p[None] for p in fits))
    else:
        if rows.holds_out:
            strengths = _SHRINKAGES
        binned = sketch(x, rows.fit, key)
        binned = binned._replace(variances=binned.variances + options.smoothing**2)
        start_key = jax.random.fold_in(key, 1)
        fits = gmm.fit_sketch(binned, key=start_key, prior_weight=strengths, **kind)
    if not rows.holds_out:
        return Mixtures(_on_host(fits, 0), np.zeros(x.shape[1]))
    identity = identity_params(num_components, family)
    judges = _held_out(x, rows.judge)
    params, chosen = _choose(fits, identity, *judges, family, anchor_weight)
    strengths = (*strengths, np.inf)
    return Mixtures(_on_host(params), np.asarray(strengths)[np.asarray(chosen)])


def _on_host(params: MixtureParams, at: Any = ...) -> MixtureParams:
    return MixtureParams(*(np.asarray(p)[at] for p in params))


def _held_out(x: Array, weights: Array) -> tuple[np.ndarray, np.ndarray]:
    """The rows that judge and their weights."""
    (at,) = np.nonzero(np.asarray(weights))
    # A few more, of weight 0: another key draws about as many, and compiles nothing new.
    padded = np.zeros(min(-(-len(at) // _ROUND) * _ROUND, len(x)), int)
    padded[: len(at)] = at
    kept = np.asarray(weights)[padded]
    kept[len(at) :] = 0
    return np.asarray(x)[padded], kept


@functools.partial(jax.jit, static_argnums=(4, 5))
def _choose(fits, identity, x, weights, family, anchor_weight):
    """Each feature's most shrunk candidate that is not clearly behind the best.

    By held-out log-likelihood, within standard errors of the paired difference (Breiman et
    al., Classification and Regression Trees, 1984, §3.4.3). Candidates are the fits,
    [s, d, K], from the least shrunk to the most, and after them the identity, [K].
    """
    candidates = jax.tree.map(
        lambda f, i: jnp.concatenate([f, jnp.broadcast_to(i, (1, *f.shape[1:]))]),
        fits,
        identity,
    )
    shares = weights[:, None] / jnp.sum(weights)

    def log_density(params: MixtureParams) -> Array:
        def log_pdf(x):
            return mixture.log_pdf(
                x, params, family=family, anchor_weight=anchor_weight
            )

        found = in_blocks(log_pdf, x)
        # Not a product with zero weights: a row that judges nothing may be infinite.
        return jnp.where(shares > 0, found, 0)

    found = jax.lax.map(log_density, candidates)
    best = jnp.argmax(jnp.sum(shares * found, axis=1), axis=0)
    leader = jnp.take_along_axis(found, best[None, None], axis=0)
    lag = jnp.sum(shares * (leader - found), axis=1, keepdims=True)
    error = jnp.sqrt(jnp.sum(jnp.square(shares * (leader - found - lag)), axis=1))
    close = lag[:, 0] <= _STANDARD_ERRORS * error
    chosen = len(close) - 1 - jnp.argmax(close[::-1], axis=0)
    return jax.tree.map(
        lambda p: jnp.take_along_axis(p, chosen[None, :, None], axis=0)[0], candidates
    ), chosen


def _fit_by_sklearn(x, rows, key, **options) -> MixtureParams:
    if bool(jnp.any((rows.fit > 0) & (rows.fit != 1))):
        raise ValueError(
            "`weights` must be None with backend='sklearn', whose GaussianMixture takes"
            " none; use backend='jax'."
        )
    kept = np.asarray(x)[np.asarray(rows.fit) > 0]
    return gmm.fit_mixtures_sklearn(kept, key=key, **options)
