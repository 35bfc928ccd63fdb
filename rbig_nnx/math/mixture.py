"""One-dimensional mixtures and the map that Gaussianizes them, exact in both tails.

A mixture has the CDF

    F(x) = ε Φ(x) + (1 − ε) Σ_k w_k C((x − μ_k) / σ_k),   w = softmax(logits),

with C the standard normal or logistic CDF. The first term is the *identity anchor*: it is
fixed, and beyond the outermost component it alone remains, F → Φ, so the map
z = Φ⁻¹(F(x)) tends to the identity and the tails of stacked layers do not compound.

Every quantity is a sum of terms `weight · factor · exp(−distance²/2)`, taken relative to
the nearest one or to 1. Inside, components lead and the batch trails
(all axes reversed), because compilers vectorise a long last axis and not one of eight.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from rbig_nnx.math.probit import LOG_SQRT_2PI, log_tail_to_z, scaled_tail
from rbig_nnx.math.sums import fold

Family = Literal["gaussian", "logistic"]
FAMILIES: tuple[str, ...] = ("gaussian", "logistic")

ANCHOR_WEIGHT = 0.01  # ε: weight of the fixed N(0, 1) component; see docs/design.md


# Weights are at least e^−60: one that underflowed would leave a tail without any term.
_MIN_WEIGHT = float(np.exp(-60.0))


class MixtureParams(NamedTuple):
    """Parameters of mixtures of K components, each array [..., K].

    The weights are softmax(logits), the scales exp(log_scales); no other link function, so
    what a fit writes is read back to the last bit.
    """

    logits: Float[Array, "*b k"]
    means: Float[Array, "*b k"]
    log_scales: Float[Array, "*b k"]

    def pack(self) -> Float[Array, "*c p"]:
        """The parameters of m mixtures, [..., m, K] each, as one axis [..., 3·K·m].

        Order: kind of parameter, then component, then feature.
        """
        stacked = jnp.stack([jnp.swapaxes(p, -1, -2) for p in self], axis=-3)
        return stacked.reshape(*stacked.shape[:-3], -1)

    @classmethod
    def unpack(cls, flat: Float[Array, "*c p"], num_components: int) -> "MixtureParams":
        """Inverse of `pack`: [..., 3·K·m] to arrays [..., m, K]."""
        # With all axes reversed, as the map wants them: the transposes cancel there.
        stacked = flat.T.reshape(3, num_components, -1, *flat.T.shape[1:])
        return cls(*(p[0].T for p in jax.lax.split(stacked, (1, 1, 1))))

    def widest(self) -> Float[Array, "*b"]:
        """The largest log scale of each mixture, at least the anchor's 0."""
        return jnp.maximum(jnp.max(self.log_scales, axis=-1), 0)

    def limited(self, max_log_scale: Float[Array, " m"]) -> "MixtureParams":
        """The mixtures, [..., m, K], with no log scale above that of their feature, [m]."""
        reversed_axes = self.log_scales.T
        limit = max_log_scale.reshape(-1, *[1] * (reversed_axes.ndim - 2))
        return self._replace(log_scales=jnp.minimum(reversed_axes, limit).T)


def check_options(num_components: int, family: str, anchor_weight: float) -> None:
    """Raises ValueError for arguments that make no mixture."""
    if num_components < 1:
        raise ValueError(
            f"`num_components` must be at least 1; got {num_components}. Try 8."
        )
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {FAMILIES}; got {family!r}.")
    if not 0 <= anchor_weight < 1:
        raise ValueError(
            f"`anchor_weight` must be in [0, 1), 0 for no anchor; got {anchor_weight}."
        )


def identity_params(num_components: int, family: Family = "gaussian") -> MixtureParams:
    """A mixture close to N(0, 1) whose components differ, so that each can train.

    Means at halved normal quantiles, scales that make the variance 1. The map is
    the identity to a few hundredths: where an untrained or an unneeded layer starts.

    Args:
      num_components: K.
      family: "gaussian" or "logistic" components.

    Returns:
      Parameters, each [K].
    """
    levels = (np.arange(num_components) + 0.5) / num_components
    means = 0.5 * scipy.special.ndtri(levels)
    scale = np.sqrt(1 - np.mean(means**2))
    if family == "logistic":
        scale *= np.sqrt(3) / np.pi  # a logistic of scale s has variance (π s)²/3
    return MixtureParams(
        logits=jnp.zeros(num_components),
        means=jnp.asarray(means, jnp.float32),
        log_scales=jnp.full(num_components, np.log(scale), jnp.float32),
    )


class _Terms(NamedTuple):
    """Components at u = (x − μ)/σ: tail(|u|) = tail · exp(−distance²/2), density likewise."""

    u: Array
    distance: Array
    tail: Array
    density: Array | float


def _terms(u: Array, family: str) -> _Terms:
    a = jnp.abs(u)
    if family == "gaussian":
        return _Terms(u, a, scaled_tail(a), float(np.exp(-LOG_SQRT_2PI)))
    q = 1 / (1 + jnp.exp(-a))
    positive = a > 0  # the root has no derivative at 0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, 2 * a, 1)), 0)
    return _Terms(u, root, q, q * q)


class _LogSum(NamedTuple):
    """A logarithm as log(total) − distance²/2, distance that of the nearest term or 0.

    Far out the square is huge and the total is not: kept apart, the squares of two sums with
    the same nearest component cancel exactly in their ratio, however they are compiled.
    """

    distance: Array
    total: Array

    @property
    def value(self) -> Array:
        """The logarithm."""
        return jnp.log(self.total) - 0.5 * self.distance * self.distance


def _log_decay(distance: Array, reference: Array) -> Array:
    """−(distance² − reference²)/2, without the squares."""
    return -0.5 * (distance - reference) * (distance + reference)


def _softmax(logits: Array) -> Array:
    largest = jax.lax.stop_gradient(fold(jnp.maximum, logits))
    # Within 1 of the largest: see `_gaussianize_jvp` for the division.
    origin = largest * jnp.abs(largest) / (1 + jnp.abs(largest))
    exponentials = jnp.exp(logits - origin)
    return exponentials * (1 / fold(jnp.add, exponentials))


class _Mixtures(NamedTuple):
    """Mixtures as the evaluation wants them; components lead, each [K, ...]."""

    weights: Array  # softmax(logits)
    floored: Array  # the weights as they enter the sums
    means: Array
    inverse_scales: Array


def _mixtures(logits, means, log_scales, anchor_weight) -> _Mixtures:
    weights = _softmax(logits)
    floored = jnp.maximum((1 - anchor_weight) * weights, _MIN_WEIGHT)
    return _Mixtures(weights, floored, means, jnp.exp(-log_scales))


class _Sums(NamedTuple):
    """What the two tails and the density of a mixture are sums of."""

    small: Array  # Σ of each term's smaller tail, negative where that is the upper one
    right: Array  # Σ of the weights of the terms with u > 0, whose lower tail is the larger
    left: Array  # Σ of the other weights
    pdf: Array


class _Evaluation(NamedTuple):
    """A mixture at x: what the map, its derivative rule and the densities are made of."""

    lower: _LogSum  # log F(x)
    upper: _LogSum  # log(1 − F(x))
    pdf: _LogSum  # log f(x)
    lower_scale: Array  # exp((distance_lower² − distance_pdf²) / 2)
    upper_scale: Array
    u: Array  # [K, ...]
    terms: _Sums  # [K, ...]
    anchor: _Sums


def _evaluate(x, mixtures: _Mixtures, family, anchor_weight) -> _Evaluation:
    """Components lead: x [*b], mixtures [K, *b].

    One exponential a component serves both tails and the density: e^(−distance²/2)
    relative to the nearest term of all. The larger tail of a term is its weight minus the
    smaller, at least half of the weight, so the sums lose no digits:

        F = Σ_right w_k − Σ_right small_k + Σ_left small_k,   1 − F = Σ_left w_k + …

    A sum that holds any weight is taken relative to 1, else to the nearest term.
    """
    _, floored, means, inverse_scales = mixtures
    terms = _terms((x - means) * inverse_scales, family)
    nearest = fold(jnp.minimum, terms.distance)
    anchor = _terms(x, "gaussian") if anchor_weight > 0 else None
    if anchor is not None:
        nearest = jnp.minimum(nearest, anchor.distance)
    nearest = jax.lax.stop_gradient(nearest)

    def parts(terms: _Terms, right: Array, weight, slope) -> _Sums:
        relative = weight * jnp.exp(_log_decay(terms.distance, nearest))
        small = relative * terms.tail
        return _Sums(
            small=jnp.where(right, -small, small),
            right=jnp.where(right, weight, 0),
            left=jnp.where(right, 0, weight),
            pdf=relative * terms.density * slope,
        )

    each = parts(terms, x > means, floored, inverse_scales)
    anchor_parts = _Sums(0, 0, 0, 0)
    if anchor is not None:
        anchor_parts = parts(anchor, x > 0, anchor_weight, 1)
    small, right, left, pdf = (
        fold(jnp.add, a) + b for a, b in zip(each, anchor_parts, strict=True)
    )
    to_lower = jnp.where(right > 0, 0, nearest)
    to_upper = jnp.where(left > 0, 0, nearest)
    lower_scale = jnp.exp(_log_decay(nearest, to_lower))
    upper_scale = jnp.exp(_log_decay(nearest, to_upper))
    return _Evaluation(
        lower=_LogSum(to_lower, right + lower_scale * small),
        upper=_LogSum(to_upper, left - upper_scale * small),
        pdf=_LogSum(nearest, pdf),
        lower_scale=lower_scale,
        upper_scale=upper_scale,
        u=terms.u,
        terms=each,
        anchor=anchor_parts,
    )


class _Mapped(NamedTuple):
    """z = Φ⁻¹(F) from the smaller tail T, and log dz/dx."""

    z: Array
    log_det: Array
    in_upper: Array  # bool: T is the upper tail
    inverse_tail: Array  # 1 / the total that is T
    inverse_pdf: Array  # 1 / the total of the density
    mills: Array  # T / φ(z), at most √(π/2)


def _map(e: _Evaluation) -> _Mapped:
    # Relative to 1 where both sums hold weight; else the one without is the smaller.
    in_upper = (e.lower.distance == 0) & (
        (e.upper.distance > 0) | (e.upper.total < e.lower.total)
    )
    reference = jnp.where(in_upper, e.upper.distance, e.lower.distance)
    inverse_tail = 1 / jnp.where(in_upper, e.upper.total, e.lower.total)
    inverse_pdf = 1 / e.pdf.total
    distance = log_tail_to_z(-jnp.log(inverse_tail) - 0.5 * reference * reference)
    mills = scaled_tail(distance) * float(np.exp(LOG_SQRT_2PI))
    # log f − log φ(z) with φ(z) = T / mills.
    log_det = _log_decay(e.pdf.distance, reference) + jnp.log(
        inverse_tail * mills / inverse_pdf
    )
    z = jnp.where(in_upper, distance, -distance)
    return _Mapped(z, log_det, in_upper, inverse_tail, inverse_pdf, mills)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _gaussianize(x, logits, means, log_scales, family, anchor_weight):
    mixtures = _mixtures(logits, means, log_scales, anchor_weight)
    m = _map(_evaluate(x, mixtures, family, anchor_weight))
    return m.z, m.log_det


@_gaussianize.defjvp
def _gaussianize_jvp(family, anchor_weight, primals, tangents):
    """Both outputs differentiated by formula: responsibilities, no logsumexp or probit.

    ∂F/∂μ_k = −w_k f_k, ∂F/∂log σ_k = −w_k f_k (x − μ_k), ∂F/∂logit_k = w_k (F_k − Σ_j w_j F_j),
    and dz = dF / φ(z); d log dz/dx = d log f + z dz. The rule is plain JAX, so it can be
    differentiated again.
    """
    x, logits, means, log_scales = primals
    dx, dlogits, dmeans, dlog_scales = tangents
    mixtures = _mixtures(logits, means, log_scales, anchor_weight)
    e = _evaluate(x, mixtures, family, anchor_weight)
    m = _map(e)

    # What the components share ends in a division: compilers compute that once, and a sum
    # or a product again for each component that uses it. So dz is taken times `over`.
    over = 1 + jnp.abs(m.z)
    r = e.terms.pdf * m.inverse_pdf  # responsibilities
    shift = x - means
    sign = jnp.where(m.in_upper, -1, 1)

    # The weights move F, by what they move the smaller tail.
    scale = jnp.where(m.in_upper, e.upper_scale, e.lower_scale)
    held = jnp.where(m.in_upper, -e.terms.left, e.terms.right)
    anchor_tail = jnp.where(m.in_upper, e.anchor.left, e.anchor.right)
    anchor_tail += sign * scale * e.anchor.small
    by_weights = jnp.sum((held + scale * e.terms.small) * dlogits, axis=0) / over
    by_sum = jnp.sum(mixtures.weights * dlogits, axis=0) / over
    by_moves = (dx - jnp.sum(r * (dmeans + shift * dlog_scales), axis=0)) / over
    per_tail = m.mills * over
    dz = (
        by_weights * (per_tail * m.inverse_tail)
        - by_sum * (per_tail * sign * (1 - anchor_tail * m.inverse_tail))
        + by_moves * (over * jnp.exp(m.log_det))
    )

    psi = e.u if family == "gaussian" else jnp.tanh(0.5 * e.u)  # −d log C'(u) / du
    pull = r * psi * mixtures.inverse_scales
    anchor_r = e.anchor.pdf * m.inverse_pdf
    x_slope = -fold(jnp.add, pull) - anchor_r * x
    dlog_pdf = x_slope * dx + jnp.sum(
        (r - mixtures.weights * (1 - anchor_r)) * dlogits
        + pull * dmeans
        + r * (psi * e.u - 1) * dlog_scales,
        axis=0,
    )
    return (m.z, m.log_det), (dz, dlog_pdf + m.z * dz)


def _components_first(x: Array, params: MixtureParams) -> tuple[Array, ...]:
    """Broadcasts to x's batch and reverses all axes: x [*b].T, parameters [K, *b.T]."""
    ndim = max(x.ndim, params.means.ndim - 1)
    x = x.reshape((1,) * (ndim - x.ndim) + x.shape)

    def widen(p: Array) -> Array:
        return p.reshape((1,) * (ndim + 1 - p.ndim) + p.shape).T

    return (x.T, *(widen(p) for p in params))


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def gaussianize(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """Maps x to z = Φ⁻¹(F(x)), F the CDF of a mixture. Strictly increasing, exact tails.

    Chen and Gopinath, Gaussianization, 2000. z comes from the smaller of the two tails by
    a log-space probit, without clipping; derivatives are by formula.

    Args:
      x: points, [...].
      params: mixture parameters, each [..., K], leading axes broadcasting against x.
      family: "gaussian" or "logistic" components.
      anchor_weight: ε in [0, 1), the weight of the fixed N(0, 1) component.

    Returns:
      z, [...], and log dz/dx = log f(x) − log φ(z) in nats, [...].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.mixture import MixtureParams, gaussianize
      >>> normal = MixtureParams(*jnp.zeros((3, 1)))
      >>> x = jnp.array([-40.0, 0.5, 12.0])
      >>> z, log_det = gaussianize(x, normal)
      >>> print(bool(jnp.allclose(z, x, rtol=1e-6)))
      True
    """
    z, log_det = _gaussianize(*_components_first(x, params), family, anchor_weight)
    return z.T, log_det.T


def _evaluated(x, params, family, anchor_weight) -> _Evaluation:
    x, *first = _components_first(x, params)
    return _evaluate(x, _mixtures(*first, anchor_weight), family, anchor_weight)


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_pdf(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log f(x) of the mixture in nats, [...]; arguments as `gaussianize`."""
    return _evaluated(x, params, family, anchor_weight).pdf.value.T


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_cdf(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log F(x) of the mixture, [...]; exact in the lower tail. Arguments as `gaussianize`."""
    return _evaluated(x, params, family, anchor_weight).lower.value.T


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_survival(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log(1 − F(x)), [...]; exact in the upper tail. Arguments as `gaussianize`."""
    return _evaluated(x, params, family, anchor_weight).upper.value.T
