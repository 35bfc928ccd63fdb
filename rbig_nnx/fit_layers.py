"""How each kind of layer is fitted to the rows that reach it.

A new kind registers a function with `fit_layer`; a user's layer has a method `warm_start`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
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
# choose between; infinity is the identity.
_SHRINKAGES = (0.0, 0.1, 0.5, float("inf"))
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
          x: what reaches the layer, [n, d]; possibly sharded over rows.
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


@functools.singledispatch
def fit_layer(
    layer: Any,
    x: Array,
    rows: Rows,
    key: Array,
    options: Options,
    fits: dict[tuple, Mixtures],
) -> str:
    """Fits one layer in place; returns what was done, for the report."""
    del options, fits
    if isinstance(layer, Fittable):
        layer.warm_start(x, weights=rows.fit, key=key)
        return "own fit"
    return "passed"


@fit_layer.register
def _(layer: Standardize, x, rows, key, options, fits) -> str:
    del key, options, fits
    return fit_standardize(layer, x, rows, "x")


def fit_standardize(layer: Standardize, x: Array, rows: Rows, name: str) -> str:
    """Writes mean and scale of x; `name` is the argument's, for the error."""
    mean, scale = _moments(x, rows.fit)
    if not bool(jnp.all(scale > 0)):
        raise ValueError(
            f"`{name}` must vary in every column; columns"
            f" {np.flatnonzero(~(np.asarray(scale) > 0)).tolist()} are constant in the"
            " rows that are fitted. Leave them out."
        )
    layer.mean[...] = mean.astype(layer.mean.dtype)
    layer.log_scale[...] = jnp.log(scale).astype(layer.log_scale.dtype)
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
def _(layer: HouseholderRotation, x, rows, key, options, fits) -> str:
    del fits
    d = layer.num_features
    if layer.num_reflections < d:
        return f"kept ({layer.num_reflections} of {d} reflections)"
    q = fit_rotation(x, method=options.rotation, key=key, weights=rows.fit)
    layer.vectors[...] = _reflections(q, layer.num_reflections).astype(
        layer.vectors.dtype
    )
    return options.rotation


@functools.partial(jax.jit, static_argnums=1)
def _reflections(q: Array, num_reflections: int) -> Array:
    d = q.shape[0]
    # d reflections have determinant (−1)^d; the sign of an axis is free.
    flip = jnp.sign(jnp.linalg.det(q)) * (-1.0) ** d
    vectors = householder.factorize(q.at[:, -1].multiply(flip))
    # Pairs of equal reflections cancel; a single one more flips the first axis.
    extra = jnp.broadcast_to(jnp.eye(d, dtype=q.dtype)[0], (num_reflections - d, d))
    return jnp.concatenate([vectors, extra])


@fit_layer.register
def _(layer: MixtureCDFMarginal, x, rows, key, options, fits) -> str:
    del fits
    mixtures = _fit_mixtures(layer, x, rows, key, options)
    layer.set_mixtures(mixtures.params)
    return _describe(mixtures.shrinkage)


@fit_layer.register
def _(layer: MixtureCDFCoupling, x, rows, key, options, fits) -> str:
    kind = (layer.num_components, layer.family, layer.anchor_weight)
    if kind not in fits:
        fits[kind] = _fit_mixtures(layer, x, rows, key, options)
    moved = ~np.asarray(layer.mask)
    params, shrinkage = fits[kind]
    layer.set_mixtures(MixtureParams(*(p[moved] for p in params)))
    return _describe(shrinkage[moved])


def _describe(shrinkage: np.ndarray) -> str:
    fitted = np.isfinite(shrinkage)
    note = f", {n} shrunk" if (n := int(np.sum(shrinkage[fitted] > 0))) else ""
    return f"{int(fitted.sum())} of {fitted.size} features{note}"


def _fit_mixtures(layer, x: Array, rows: Rows, key: Array, options: Options):
    """A mixture for each feature of x, [d, K] each."""
    kind = {
        "num_components": layer.num_components,
        "family": layer.family,
        "anchor_weight": layer.anchor_weight,
    }
    fit: Callable[..., MixtureParams]
    if options.backend == "sklearn":
        fit = functools.partial(_fit_by_sklearn, x, rows, key, **kind)
    else:
        sketch_key, key = jax.random.split(key)
        binned = sketch(x, rows.fit, sketch_key)
        binned = binned._replace(variances=binned.variances + options.smoothing**2)
        fit = functools.partial(gmm.fit_sketch, binned, key=key, **kind)
    if not rows.holds_out:
        return Mixtures(fit(), np.zeros(x.shape[1]))

    identity = identity_params(layer.num_components, layer.family)
    shape = (x.shape[1], layer.num_components)
    identity = MixtureParams(*(jnp.broadcast_to(p, shape) for p in identity))
    strengths = _SHRINKAGES if options.backend == "jax" else (0.0, np.inf)
    candidates = [
        identity if np.isinf(s) else fit(prior_weight=s) if s else fit()
        for s in strengths
    ]
    params, chosen = _choose(
        MixtureParams(*map(jnp.stack, zip(*candidates, strict=True))),
        *_held_out(x, rows.judge),
        layer.family,
        layer.anchor_weight,
        rows.judge.sharding,
    )
    return Mixtures(params, np.asarray(strengths)[np.asarray(chosen)])


def _held_out(x: Array, weights: Array) -> tuple[Array, Array]:
    """The rows that judge and their weights; rows that are sharded stay where they are."""
    if isinstance(weights.sharding, NamedSharding):
        return x, weights
    count = int(jnp.sum(weights > 0))
    # A few more, of weight 0: another key draws about as many, and compiles nothing new.
    size = min(-(-count // _ROUND) * _ROUND, len(x))
    (at,) = jnp.nonzero(weights > 0, size=size, fill_value=len(x))
    return x.at[at].get(mode="clip"), weights.at[at].get(mode="fill", fill_value=0)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _choose(candidates, x, weights, family, anchor_weight, sharding):
    """Each feature's most shrunk candidate that is not clearly behind the best.

    By held-out log-likelihood, within standard errors of the paired difference (Breiman et
    al., Classification and Regression Trees, 1984, §3.4.3). Candidates are [S, d, K],
    from the least shrunk to the most.
    """
    judged = weights[:, None] > 0
    shares = weights[:, None] / jnp.sum(weights)

    def log_density(params: MixtureParams) -> Array:
        def log_pdf(params, x):
            return mixture.log_pdf(
                x, params, family=family, anchor_weight=anchor_weight
            )

        found = in_blocks(log_pdf, params, x, sharding=sharding)
        return jnp.where(judged, found, 0)

    def picked(index: Array) -> MixtureParams:
        return jax.tree.map(
            lambda p: jnp.take_along_axis(p, index[None, :, None], axis=0)[0],
            candidates,
        )

    means = jax.lax.map(lambda c: jnp.sum(shares * log_density(c), axis=0), candidates)
    leader = log_density(picked(jnp.argmax(means, axis=0)))

    def is_close(candidate: MixtureParams) -> Array:
        lag = leader - log_density(candidate)
        mean = jnp.sum(shares * lag, axis=0)
        error = jnp.sqrt(jnp.sum(jnp.square(shares * (lag - mean)), axis=0))
        return mean <= _STANDARD_ERRORS * error

    close = jax.lax.map(is_close, candidates)
    chosen = len(close) - 1 - jnp.argmax(close[::-1], axis=0)
    return picked(chosen), chosen


def _fit_by_sklearn(x, rows, key, **options) -> MixtureParams:
    if bool(jnp.any((rows.fit > 0) & (rows.fit != 1))):
        raise ValueError(
            "`weights` must be None with backend='sklearn', whose GaussianMixture takes"
            " none; use backend='jax'."
        )
    kept = np.asarray(x)[np.asarray(rows.fit) > 0]
    return gmm.fit_mixtures_sklearn(kept, key=key, **options)
