"""One-dimensional mixtures and the map that Gaussianizes them, exact in both tails.

A mixture has the CDF

    F(x) = ε Φ(x) + (1 − ε) Σ_k w_k C((x − μ_k) / σ_k),   w = softmax(logits),

with C the standard normal or logistic CDF. The first term is the *identity anchor*: it is
fixed, and beyond the outermost component it alone remains, F → Φ, so the map
z = Φ⁻¹(F(x)) tends to the identity and the tails of stacked layers do not compound.

Every quantity is a sum of terms `weight · factor · exp(−distance²/2)`, taken relative to
the nearest one. Inside, components lead and the batch trails
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
_MIN_LOG_WEIGHT = -60.0


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

    distance: Array
    tail: Array
    density: Array | float


def _terms(u: Array, family: str) -> _Terms:
    a = jnp.abs(u)
    if family == "gaussian":
        return _Terms(a, scaled_tail(a), float(np.exp(-LOG_SQRT_2PI)))
    q = 1 / (1 + jnp.exp(-a))
    positive = a > 0  # the root has no derivative at 0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, 2 * a, 1)), 0)
    return _Terms(root, q, q * q)


class _Summand(NamedTuple):
    """Terms factor · exp(log_weight − distance²/2), to be summed."""

    distance: Array
    log_weight: Array | float
    factor: Array | float

    def over(self, total: "_LogSum") -> Array:
        """Each term's share of the sum."""
        decay = _log_decay(self.distance, total.distance)
        return jnp.exp(decay + self.log_weight - total.rest) * self.factor


class _LogSum(NamedTuple):
    """A logarithm as rest − distance²/2, the distance being that of the nearest term.

    Far out the square is huge and the rest is not: kept apart, the squares of two sums with
    the same nearest component cancel exactly in their ratio, however they are compiled.
    """

    distance: Array
    rest: Array

    @property
    def value(self) -> Array:
        """The logarithm."""
        return self.rest - 0.5 * self.distance * self.distance

    @classmethod
    def of(cls, components: _Summand, anchor: _Summand | None) -> "_LogSum":
        """Sums over the leading axis of `components`, and the anchor."""
        nearest = _fold(jnp.minimum, components.distance)
        if anchor is not None:
            nearest = jnp.minimum(nearest, anchor.distance)
        one = cls(jax.lax.stop_gradient(nearest), jnp.zeros_like(nearest))
        total = _fold(jnp.add, components.over(one))
        if anchor is not None:
            total = total + anchor.over(one)
        return cls(one.distance, jnp.log(total))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - jax.lax.stop_gradient(_fold(jnp.maximum, logits))
    return shifted - jnp.log(_fold(jnp.add, jnp.exp(shifted)))


def _fold(combine: Callable, terms: Array) -> Array:
    """Reduces the leading axis, written out: components are few.

    As one expression it fuses with what surrounds it; a reduction over a leading axis ran
    at a third of the speed on CPUs. Not for tangents: its transpose pads.
    """
    return functools.reduce(combine, [terms[k] for k in range(terms.shape[0])])


def _log_decay(distance: Array, reference: Array) -> Array:
    """−(distance² − reference²)/2, without the squares."""
    return -0.5 * (distance - reference) * (distance + reference)


def _tails(
    u: Array, log_weight: Array | float, terms: _Terms
) -> tuple[_Summand, _Summand]:
    """Weighted lower and upper tail of each component."""
    right = u > 0
    # The large tail is one minus the small one: no digits are lost, it is at least 1/2.
    large = 1 - terms.tail * jnp.exp(-0.5 * terms.distance * terms.distance)
    to_upper = jnp.where(right, terms.distance, 0)
    to_lower = jnp.where(right, 0, terms.distance)
    lower = _Summand(to_lower, log_weight, jnp.where(right, large, terms.tail))
    upper = _Summand(to_upper, log_weight, jnp.where(right, terms.tail, large))
    return lower, upper


class _Evaluation(NamedTuple):
    """A mixture at x: what the map, its derivative rule and the densities are made of."""

    log_lower: _LogSum  # log F(x)
    log_upper: _LogSum  # log(1 − F(x))
    log_pdf: _LogSum  # log f(x)
    u: Array  # [K, ...]
    lower: _Summand  # [K, ...]
    upper: _Summand  # [K, ...]
    pdf: _Summand  # [K, ...]
    anchor_pdf: _Summand | None


def _evaluate(x, logits, means, log_scales, family, anchor_weight) -> _Evaluation:
    """Components lead: x [*b], parameters [K, *b]."""
    log_weights = jnp.maximum(_log_softmax(logits), _MIN_LOG_WEIGHT)
    log_weights = log_weights + float(np.log1p(-anchor_weight))
    u = (x - means) * jnp.exp(-log_scales)
    terms = _terms(u, family)
    lower, upper = _tails(u, log_weights, terms)
    pdf = _Summand(terms.distance, log_weights - log_scales, terms.density)
    anchor_lower = anchor_upper = anchor_pdf = None
    if anchor_weight > 0:
        log_anchor = float(np.log(anchor_weight))
        anchor = _terms(x, "gaussian")
        anchor_lower, anchor_upper = _tails(x, log_anchor, anchor)
        anchor_pdf = _Summand(anchor.distance, log_anchor, anchor.density)
    return _Evaluation(
        log_lower=_LogSum.of(lower, anchor_lower),
        log_upper=_LogSum.of(upper, anchor_upper),
        log_pdf=_LogSum.of(pdf, anchor_pdf),
        u=u,
        lower=lower,
        upper=upper,
        pdf=pdf,
        anchor_pdf=anchor_pdf,
    )


class _Mapped(NamedTuple):
    """z = Φ⁻¹(F) from the smaller tail T, and log dz/dx."""

    z: Array
    log_det: Array
    in_upper: Array  # bool: T is the upper tail
    log_tail: _LogSum  # log T
    mills: Array  # T / φ(z), at most √(π/2)


def _map(e: _Evaluation) -> _Mapped:
    in_upper = e.log_upper.value < e.log_lower.value
    log_tail = _LogSum(
        jnp.where(in_upper, e.log_upper.distance, e.log_lower.distance),
        jnp.where(in_upper, e.log_upper.rest, e.log_lower.rest),
    )
    distance = log_tail_to_z(log_tail.value)
    mills = scaled_tail(distance) * float(np.exp(LOG_SQRT_2PI))
    # log f − log φ(z) with φ(z) = T / mills.
    log_det = _log_decay(e.log_pdf.distance, log_tail.distance)
    log_det = log_det + (e.log_pdf.rest - log_tail.rest)
    z = jnp.where(in_upper, distance, -distance)
    return _Mapped(z, log_det + jnp.log(mills), in_upper, log_tail, mills)


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
    weights = jnp.exp(_log_softmax(logits))

    # Responsibilities, and each component's share of dz/dx.
    r = e.pdf.over(e.log_pdf)
    slope = jnp.exp(m.log_det)

    # The weights move the smaller tail: t_k = w_k tail_k / φ(z).
    t = (
        jnp.where(m.in_upper, e.upper.over(m.log_tail), e.lower.over(m.log_tail))
        * m.mills
    )
    t = t - weights * _fold(jnp.add, t)
    dz = slope * dx + jnp.sum(
        jnp.where(m.in_upper, -t, t) * dlogits
        - slope * r * (dmeans + (x - means) * dlog_scales),
        axis=0,
    )

    psi = e.u if family == "gaussian" else jnp.tanh(0.5 * e.u)  # −d log C'(u) / du
    pull = r * psi * jnp.exp(-log_scales)
    x_slope = -_fold(jnp.add, pull)
    if e.anchor_pdf is not None:
        x_slope -= e.anchor_pdf.over(e.log_pdf) * x
    dlog_pdf = x_slope * dx + jnp.sum(
        (r - weights * _fold(jnp.add, r)) * dlogits
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
    return _evaluated(x, params, family, anchor_weight).log_pdf.value.T


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_cdf(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log F(x) of the mixture, [...]; exact in the lower tail. Arguments as `gaussianize`."""
    return _evaluated(x, params, family, anchor_weight).log_lower.value.T


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_survival(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log(1 − F(x)), [...]; exact in the upper tail. Arguments as `gaussianize`."""
    return _evaluated(x, params, family, anchor_weight).log_upper.value.T
