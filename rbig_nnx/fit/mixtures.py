"""Each feature's mixture, and how far it is shrunk, as the rows that judge decide.

The rows go through the flow in chains, which differ in who is fitted and who judges (see
`judges`). A layer is fitted in every chain; what is decided, all chains decide together.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rbig_nnx.fit import gmm
from rbig_nnx.fit.judges import Rows, judged
from rbig_nnx.fit.sketch import gaussian, sketch
from rbig_nnx.math import mixture
from rbig_nnx.math.blocks import in_blocks
from rbig_nnx.math.params import MixtureParams, identity_params

# Pseudo-observations from N(0, 1), in units of the data's mass, that the held-out rows
# choose between, and from a Gaussian.
_SHRINKAGES = (0.0, 0.1, 0.5, 2.0)
_ROUND = 4_096  # held-out rows are gathered in multiples of this
_STANDARD_ERRORS = 1.0  # by which a sharper fit must lead on the held-out rows
# And by so many nats of all held-out rows, where it has a component wider than the simpler
# fit's, in log scale: all that lies far out hangs on that, where no row judges.
_WIDER, _NATS = 0.05, 2.0


class Options(NamedTuple):
    """What `warm_start` was asked for."""

    rotation: str
    smoothing: float
    backend: str
    holds_out: bool


class Mixtures(NamedTuple):
    """Fitted mixtures of all features, [d, K] each, and how far each was shrunk, [d]."""

    params: MixtureParams
    shrinkage: np.ndarray


class Block:
    """What reaches a layer in one chain, or the couplings of one block, which share a fit.

    A coupling is the marginal map of the features that it moves, while its output kernel is
    zero. So a block's couplings, or the one marginal layer in their place, take their parts
    of one fit and of one map, and agree to the last bit.

    Attributes:
      x: the rows, [n, d].
      rows: their weights.
      place: shared with the other chains.
    """

    def __init__(self, x: Array, rows: Rows, place: "Place"):
        self.x, self.rows, self.place = x, rows, place
        self._maps: dict[tuple, tuple[Array, Array]] = {}

    @property
    def key(self) -> Array:
        """Random key, the same in every chain."""
        return self.place.key

    def own(self, results: Sequence[Any]) -> Any:
        """This chain's of the results of all chains."""
        return results[self.place.blocks.index(self)]

    def mixtures(self, layer: Any) -> Mixtures:
        """Fits of every feature, with the components of a coupling or marginal layer."""
        return self.own(self.place.mixtures(kind_of(layer)))

    def mapped(self, layer: Any) -> tuple[Array, Array]:
        """z and log dz/dx of every feature under those fits, [n, d] each."""
        kind = kind_of(layer)
        if kind not in self._maps:
            self._maps[kind] = _map(self.mixtures(layer).params, self.x, *kind[1:])
        return self._maps[kind]


class Place:
    """A place in the flow: the blocks of all chains there, and what they decide together.

    Args:
      key: random key.
      options: of the warm start.
      xs: the rows in each chain, [n, d].
      parts: their weights in each chain.
      following: kind of the mixtures that follow, if any do.
      known: results of `once`, by name.
      elliptical: whether a map of the radius follows.
      normal: whether a layer before has made the rows about standard normal, so that
        features may be left alone.

    Attributes:
      foreseen: what is `known` at the next place, where trying it out has shown it.
    """

    def __init__(
        self,
        key: Array,
        options: Options,
        xs: Sequence[Array],
        parts: Sequence[Rows],
        following: tuple | None = None,
        known: Mapping[Any, Any] | None = None,
        *,
        elliptical: bool = False,
        normal: bool = False,
    ):
        self.key, self.options, self.following = key, options, following
        self.elliptical, self.normal = elliptical, normal
        self.blocks = [Block(x, rows, self) for x, rows in zip(xs, parts, strict=True)]
        self._known = dict(known or {})
        self.foreseen: dict[Any, Any] = {}

    def foresee(self, other: "Place"):
        """Takes what another place has shown for what the next one will."""
        self.foreseen = other._known

    def once(self, name: Any, work: Callable[[], Any]) -> Any:
        """The result of `work`, which is done for the first chain and serves all."""
        if name not in self._known:
            self._known[name] = work()
        return self._known[name]

    def mixtures(self, kind: tuple) -> list[Mixtures]:
        """Fits of every feature, for each chain."""
        return self.once(kind, lambda: _fit_mixtures(self, *kind))[0]

    def held_out(self, kind: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Log densities of the rows that judge under those fits, and their weights."""
        return self.once(kind, lambda: _fit_mixtures(self, *kind))[1]


def kind_of(layer: Any) -> tuple[int, str, float]:
    """What makes layers share a fit."""
    return layer.num_components, layer.family, layer.anchor_weight


@functools.partial(jax.jit, static_argnums=(2, 3))
def _map(params, x, family, anchor_weight):
    def gaussianize(x):
        return mixture.gaussianize(
            x, params, family=family, anchor_weight=anchor_weight
        )

    return in_blocks(gaussianize, x)


def _fit_mixtures(
    place: Place, num_components: int, family: str, anchor_weight: float
) -> tuple[list[Mixtures], tuple[np.ndarray, np.ndarray]]:
    """For each chain a mixture for each feature, and the held-out rows' log densities."""
    strengths = (0.0,)
    if place.options.holds_out and place.options.backend != "sklearn":
        strengths = _SHRINKAGES

    kind = num_components, family, anchor_weight
    first, *others = place.blocks
    fits = [_fit_chain(first, strengths, *kind)]
    # The others leave out some of its rows.
    near = MixtureParams(*(p[0] for p in fits[0]))
    fits += [_fit_chain(block, strengths, *kind, near) for block in others]
    if not place.options.holds_out:
        mixtures = [Mixtures(_on_host(f, 0), np.zeros(f.means.shape[1])) for f in fits]
        return mixtures, (np.zeros(0), np.zeros(0))
    found, weights = [], []
    for block in judged(place.blocks):
        x, weight = _held_out(block.x, block.rows.judge)
        densities = _log_densities(block.own(fits), x, family, anchor_weight)
        found.append(np.asarray(densities))
        weights.append(weight)
    found, weights = np.concatenate(found, axis=1), np.concatenate(weights)
    widths = np.asarray(fits[0].widest())
    chosen, densities = map(
        np.asarray, _choose(found, widths, weights, may_stay=place.normal)
    )
    shrinkage = np.asarray((*strengths, np.inf, np.inf))[chosen]
    mixtures = [Mixtures(_taken(fit, chosen), shrinkage) for fit in fits]
    return mixtures, (densities, weights)


def _fit_chain(
    block: Block,
    strengths: tuple[float, ...],
    num_components: int,
    family: str,
    anchor_weight: float,
    near: MixtureParams | None = None,
) -> MixtureParams:
    """The candidates, [s, d, K]: a fit under each strength, and where rows judge a Gaussian."""
    kind = {
        "num_components": num_components,
        "family": family,
        "anchor_weight": anchor_weight,
    }
    options, base = block.place.options, None
    binned = sketch(block.x, block.rows.fit, block.key)
    if options.holds_out:
        base = gaussian(binned, _num_rows(block.rows.fit))
    if options.backend == "sklearn":
        fits = _fit_by_sklearn(block.x, block.rows, block.key, **kind)
        fits = MixtureParams(*(p[None] for p in fits))
    else:
        fits = gmm.fit_sketch(
            binned._replace(variances=binned.variances + options.smoothing**2),
            key=jax.random.fold_in(block.key, 1),
            prior_weight=strengths,
            base=base,
            start=near,
            **kind,
        )
    if base is None:
        return fits
    plain = identity_params(num_components, family)
    mean, scale = (np.asarray(b, np.float32)[:, None] for b in base)
    gaussians = MixtureParams(
        np.broadcast_to(plain.logits, fits.logits.shape[1:]),
        mean + scale * plain.means,
        np.log(scale) + plain.log_scales,
    )
    candidates = [fits, MixtureParams(*(g[None] for g in gaussians))]
    if block.place.normal:
        shape = gaussians.means.shape
        same = (np.broadcast_to(p, shape)[None] for p in plain)
        candidates.append(MixtureParams(*same))
    return MixtureParams(*map(np.concatenate, zip(*candidates, strict=True)))


def _num_rows(weights: Array) -> float:
    """Kish's effective number of rows."""
    weights = np.asarray(weights, np.float64)
    return float(np.sum(weights) ** 2 / np.sum(weights**2))


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


@functools.partial(jax.jit, static_argnums=(2, 3))
def _log_densities(candidates, x, family, anchor_weight):
    """Of every feature of the rows under every candidate, [s, n, d]."""

    def log_density(params: MixtureParams) -> Array:
        def log_pdf(x):
            return mixture.log_pdf(
                x, params, family=family, anchor_weight=anchor_weight
            )

        return in_blocks(log_pdf, x)

    return jax.lax.map(log_density, candidates)


@functools.partial(jax.jit, static_argnames="may_stay")
def _choose(
    found: Array, widths: Array, weights: Array, *, may_stay: bool
) -> tuple[Array, Array]:
    """Each feature's most shrunk candidate that is not clearly behind the best, [d].

    By held-out log-likelihood, within standard errors of the paired difference (Breiman et
    al., Classification and Regression Trees, 1984, §3.4.3). One with a wider component is
    also clearly ahead only by a likelihood ratio of e² of the held-out rows (as in Wasserman
    et al., Universal inference, 2020).

    Args:
      found: log densities, [s, n, d], from the least shrunk candidate to the most.
      widths: their widest log scales, [s, d].
      weights: of the rows, [n].
      may_stay: whether the last candidate is the feature as it is, which is no simpler than a
        Gaussian of its own mean and scale: it is taken where it is ahead.

    Returns:
      The candidates by number, [d], and the rows' log densities under them, [n].
    """
    shares = weights[:, None] / jnp.sum(weights)
    # Not a product with zero weights: a row that judges nothing may be infinite.
    found = jnp.where(shares > 0, found, 0)
    scores = jnp.sum(shares * found, axis=1)
    fits = found[:-1] if may_stay else found
    best = jnp.argmax(scores[: len(fits)], axis=0)
    leader = jnp.take_along_axis(fits, best[None, None], axis=0)
    lag = jnp.sum(shares * (leader - fits), axis=1, keepdims=True)
    error = jnp.sqrt(jnp.sum(jnp.square(shares * (leader - fits - lag)), axis=1))
    widest = jnp.take_along_axis(widths, best[None], axis=0)
    wider = widest > widths[: len(fits)] + _WIDER
    num_rows = jnp.square(jnp.sum(weights)) / jnp.sum(jnp.square(weights))
    close = lag[:, 0] <= _STANDARD_ERRORS * error
    close |= wider & (num_rows * lag[:, 0] <= _NATS)
    chosen = len(close) - 1 - jnp.argmax(close[::-1], axis=0)
    if may_stay:
        own = jnp.take_along_axis(scores, chosen[None], axis=0)[0]
        chosen = jnp.where(scores[-1] > own, len(fits), chosen)
    return chosen, jnp.sum(
        jnp.take_along_axis(found, chosen[None, None], axis=0)[0], axis=-1
    )


def _taken(candidates: MixtureParams, chosen: np.ndarray) -> MixtureParams:
    return MixtureParams(
        *(
            np.take_along_axis(np.asarray(p), chosen[None, :, None], axis=0)[0]
            for p in candidates
        )
    )


def _fit_by_sklearn(x, rows, key, **options) -> MixtureParams:
    if bool(jnp.any((rows.fit > 0) & (rows.fit != 1))):
        raise ValueError(
            "`weights` must be None with backend='sklearn', whose GaussianMixture takes"
            " none; use backend='jax'."
        )
    kept = np.asarray(x)[np.asarray(rows.fit) > 0]
    return gmm.fit_mixtures_sklearn(kept, key=key, **options)
