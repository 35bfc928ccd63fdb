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
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from rbig_nnx.math.probit import LOG_SQRT_2PI, log_tail_to_z, scaled_tail

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


def _fold(combine: Callable, terms: Array) -> Array:
    """Reduces the leading axis, written out: components are few.

    As one expression it fuses with what surrounds it; a reduction over a leading axis ran
    at a third of the speed on CPUs. Not for tangents: its transpose pads.
    """
    return functools.reduce(combine, [terms[k] for k in range(terms.shape[0])])


def _softmax(logits: Array) -> Array:
    exponentials = jnp.exp(logits - jax.lax.stop_gradient(_fold(jnp.maximum, logits)))
    return exponentials / _fold(jnp.add, exponentials)


class _Parts(NamedTuple):
    """What each component, or the anchor, adds to the totals of the mixture."""

    lower: Array | float
    upper: Array | float
    pdf: Array | float


class _Evaluation(NamedTuple):
    """A mixture at x: what the map, its derivative rule and the densities are made of."""

    lower: _LogSum  # log F(x)
    upper: _LogSum  # log(1 − F(x))
    pdf: _LogSum  # log f(x)
    weights: Array  # [K, ...], softmax(logits)
    inverse_scales: Array  # [K, ...]
    u: Array  # [K, ...]
    components: _Parts  # [K, ...]
    totals: _Parts  # of the components
    anchor: _Parts


def _evaluate(x, logits, means, log_scales, family, anchor_weight) -> _Evaluation:
    """Components lead: x [*b], parameters [K, *b].

    One exponential a component serves both tails and the density: e^(−distance²/2)
    relative to the nearest term of all. A tail that holds a term's larger part is at least
    half of that term's weight, and is taken relative to 1 instead.
    """
    weights = _softmax(logits)
    inverse_scales = jnp.exp(-log_scales)
    terms = _terms((x - means) * inverse_scales, family)
    nearest = _fold(jnp.minimum, terms.distance)
    leftmost, rightmost = _fold(jnp.minimum, terms.u), _fold(jnp.maximum, terms.u)
    anchor = _terms(x, "gaussian") if anchor_weight > 0 else None
    if anchor is not None:
        nearest = jnp.minimum(nearest, anchor.distance)
        leftmost, rightmost = jnp.minimum(leftmost, x), jnp.maximum(rightmost, x)
    nearest = jax.lax.stop_gradient(nearest)
    to_lower = jnp.where(rightmost > 0, 0, nearest)
    to_upper = jnp.where(leftmost > 0, nearest, 0)
    lower_scale = jnp.exp(_log_decay(nearest, to_lower))
    upper_scale = jnp.exp(_log_decay(nearest, to_upper))

    def parts(terms: _Terms, weight: Array | float, slope: Array | float) -> _Parts:
        relative = weight * jnp.exp(_log_decay(terms.distance, nearest))
        small = relative * terms.tail
        right = terms.u > 0
        # The larger part is one minus the smaller: no digits are lost, it is at least 1/2.
        lower, upper = small * lower_scale, small * upper_scale
        return _Parts(
            lower=jnp.where(right, weight - lower, lower),
            upper=jnp.where(right, upper, weight - upper),
            pdf=relative * terms.density * slope,
        )

    floored = jnp.maximum((1 - anchor_weight) * weights, _MIN_WEIGHT)
    components = parts(terms, floored, inverse_scales)
    totals = _Parts(*(_fold(jnp.add, part) for part in components))
    totals = jax.lax.optimization_barrier(totals)
    anchor_parts = _Parts(0, 0, 0)
    if anchor is not None:
        anchor_parts = parts(anchor, anchor_weight, 1)
    lower, upper, pdf = (a + b for a, b in zip(totals, anchor_parts, strict=True))
    return _Evaluation(
        lower=_LogSum(to_lower, lower),
        upper=_LogSum(to_upper, upper),
        pdf=_LogSum(nearest, pdf),
        weights=weights,
        inverse_scales=inverse_scales,
        u=terms.u,
        components=components,
        totals=totals,
        anchor=anchor_parts,
    )


class _Mapped(NamedTuple):
    """z = Φ⁻¹(F) from the smaller tail T, and log dz/dx."""

    z: Array
    log_det: Array
    in_upper: Array  # bool: T is the upper tail
    tail: Array  # the total that is T
    mills: Array  # T / φ(z), at most √(π/2)


def _map(e: _Evaluation) -> _Mapped:
    log_lower, log_upper = e.lower.value, e.upper.value
    in_upper = log_upper < log_lower
    reference = jnp.where(in_upper, e.upper.distance, e.lower.distance)
    tail = jnp.where(in_upper, e.upper.total, e.lower.total)
    distance = log_tail_to_z(jnp.minimum(log_upper, log_lower))
    mills = scaled_tail(distance) * float(np.exp(LOG_SQRT_2PI))
    # log f − log φ(z) with φ(z) = T / mills.
    log_det = _log_decay(e.pdf.distance, reference) + jnp.log(
        e.pdf.total / tail * mills
    )
    z = jnp.where(in_upper, distance, -distance)
    return _Mapped(z, log_det, in_upper, tail, mills)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _gaussianize(x, logits, means, log_scales, family, anchor_weight):
    m = _map(_evaluate(x, logits, means, log_scales, family, anchor_weight))
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
    e = _evaluate(x, logits, means, log_scales, family, anchor_weight)
    m = _map(e)

    # Responsibilities, and each component's share of dz/dx.
    r = e.components.pdf / e.pdf.total
    slope = jnp.exp(m.log_det)

    # The weights move the smaller tail: t_k = w_k tail_k / φ(z).
    t = jnp.where(m.in_upper, e.components.upper, e.components.lower)
    total = jnp.where(m.in_upper, e.totals.upper, e.totals.lower)
    t = (t - e.weights * total) * (m.mills / m.tail)
    dz = slope * dx + jnp.sum(
        jnp.where(m.in_upper, -t, t) * dlogits
        - slope * r * (dmeans + (x - means) * dlog_scales),
        axis=0,
    )

    psi = e.u if family == "gaussian" else jnp.tanh(0.5 * e.u)  # −d log C'(u) / du
    pull = r * psi * e.inverse_scales
    x_slope = -_fold(jnp.add, pull)
    x_slope -= e.anchor.pdf / e.pdf.total * x
    dlog_pdf = x_slope * dx + jnp.sum(
        (r - e.weights * (e.totals.pdf / e.pdf.total)) * dlogits
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
    return _evaluate(*_components_first(x, params), family, anchor_weight)


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
