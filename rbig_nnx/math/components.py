"""Mixtures with their components on the leading axis: one evaluation serves everything.

Every quantity of a mixture is a sum of terms `weight · factor · exp(−distance²/2)`, taken
relative to the nearest one or to 1. Arrays are [K, *b], all axes of the public functions
reversed: compilers vectorise a long last axis and not one of eight.

How it is written decides its speed on CPUs. XLA computes an exponential, a logarithm or a
quotient once for all that read it, anything cheaper again for each; so what is shared ends
in one of those, and the sums are taken together (`sums`). See docs/performance.md.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from rbig_nnx.math.probit import LOG_SQRT_2PI, folded, log_tail_to_z, times_tail
from rbig_nnx.math.sums import fold, sums

# Masses are at least e^−60: one that underflowed would leave a tail without any term.
_MIN_MASS = float(np.exp(-60.0))
_SQRT_2PI = float(np.exp(LOG_SQRT_2PI))
_INVERSE_SQRT_2PI = float(np.exp(-LOG_SQRT_2PI))

# For policies of `jax.checkpoint`: what a backward pass should not compute again.
KEPT = "sums over the components"
_kept = functools.partial(checkpoint_name, name=KEPT)


class Mixtures(NamedTuple):
    """Mixtures as the evaluation wants them, each [K, *b]."""

    masses: Array  # weights relative to the largest
    means: Array
    inverse_scales: Array


def prepare(logits: Array, means: Array, log_scales: Array) -> Mixtures:
    """From parameters, each [K, *b]."""
    largest = jax.lax.stop_gradient(fold(jnp.maximum, logits))
    masses = jnp.maximum(jnp.exp(logits - largest), _MIN_MASS)
    return Mixtures(masses, means, jnp.exp(-log_scales))


class Terms(NamedTuple):
    """The components at x, each [K, *b]; e = exp((nearest² − distance²) / 2)."""

    u: Array  # (x − μ) / σ
    small: Array  # mass · e · the smaller tail, without its exponential factor
    pdf: Array  # mass · e · density / σ, without the Gaussian's 1/√(2π)
    slope: Array  # −d log density / du
    nearest: Array  # [*b], the distance of the nearest component or anchor


def terms_at(x: Array, mixtures: Mixtures, family: str, anchor_weight: float) -> Terms:
    """Components lead: x [*b], mixtures [K, *b].

    One exponential a component serves both tails and the density: e^(−distance²/2)
    relative to the nearest term of all.
    """
    masses, means, inverse_scales = mixtures
    u = (x - means) * inverse_scales
    a = folded(u, x > means)
    if family == "gaussian":
        distance = a
    else:
        positive = a > 0  # the root has no derivative at 0
        distance = jnp.where(positive, jnp.sqrt(jnp.where(positive, 2 * a, 1)), 0)
    nearest = fold(jnp.minimum, distance)
    if anchor_weight > 0:
        nearest = jnp.minimum(nearest, jnp.abs(x))
    nearest = _kept(jax.lax.stop_gradient(nearest))

    log_decay = _log_decay(distance, nearest)
    if family == "logistic":
        log_decay = jnp.where(positive, log_decay, 0.5 * nearest * nearest - a)
    relative = masses * jnp.exp(log_decay)
    if family == "gaussian":
        small, pdf, slope = times_tail(relative, a), relative * inverse_scales, u
    else:
        tail = 1 / (1 + jnp.exp(-a))
        small, pdf = relative * tail, relative * tail * tail * inverse_scales
        slope = jnp.tanh(0.5 * u)
    return Terms(u, small, pdf, slope, nearest)


def _log_decay(distance: Array, reference: Array) -> Array:
    """−(distance² − reference²)/2, without the squares."""
    return -0.5 * (distance - reference) * (distance + reference)


class LogSum(NamedTuple):
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


class Mixed(NamedTuple):
    """A mixture and its anchor at x, each [*b]; totals in units of `norm`, a mass."""

    lower: LogSum  # log F(x)
    upper: LogSum  # log(1 − F(x))
    pdf: LogSum  # log f(x)
    norm: Array  # mass / norm is (1 − ε) w
    in_upper: Array  # bool: the upper tail is the smaller
    scale: Array  # of `small` in the smaller tail
    anchor_tail: Array  # the anchor's part of the smaller tail
    anchor_pdf: Array  # and of the density
    slope: Array | None  # d log f / dx


def mix(
    x: Array,
    mixtures: Mixtures,
    terms: Terms,
    family: str,
    anchor_weight: float,
    *,
    with_slope: bool = False,
) -> Mixed:
    """Sums the components and adds the anchor.

    The larger tail of a term is its mass minus the smaller, at least half of it, so the
    sums lose no digits:

        F ∝ Σ_right mass_k − Σ_right small_k + Σ_left small_k,   1 − F ∝ Σ_left mass_k + …

    A tail that holds any mass is taken relative to 1, else to the nearest term.
    """
    is_right = x > mixtures.means
    summands = [
        jnp.where(is_right, mixtures.masses, 0),
        jnp.where(is_right, 0, mixtures.masses),
        jnp.where(is_right, -terms.small, terms.small),
        terms.pdf,
    ]
    if with_slope:
        summands.append(terms.pdf * terms.slope * mixtures.inverse_scales)
    right, left, small, pdf, *pull = map(_kept, sums(*summands))
    unit = _INVERSE_SQRT_2PI if family == "gaussian" else 1.0
    pdf = pdf * unit
    # What is multiplied is computed again wherever it is read; quotients are kept.
    norm = (right + left) * (1 / (1 - anchor_weight))
    held_right = held_left = anchor_small = anchor_pdf = jnp.zeros_like(x)
    if anchor_weight > 0:
        distance = folded(x, x > 0)
        relative = anchor_weight * jnp.exp(_log_decay(distance, terms.nearest))
        anchor_small = times_tail(jnp.where(x > 0, -relative, relative), distance)
        anchor_small = anchor_small * norm
        held_right = jnp.where(x > 0, anchor_weight, held_right) * norm
        held_left = jnp.where(x > 0, held_left, anchor_weight) * norm
        anchor_pdf = relative * _INVERSE_SQRT_2PI * norm
    right, left, small = right + held_right, left + held_left, small + anchor_small
    pdf = pdf + anchor_pdf
    decay = jnp.exp(-0.5 * terms.nearest * terms.nearest)
    lower = right + jnp.where(right > 0, decay, 1) * small
    upper = left - jnp.where(left > 0, decay, 1) * small
    in_upper = (right > 0) & ((left <= 0) | (upper < lower))
    scale = jnp.where(jnp.where(in_upper, left, right) > 0, decay, 1)
    anchor_held = jnp.where(in_upper, held_left, held_right)
    return Mixed(
        lower=LogSum(jnp.where(right > 0, 0, terms.nearest), lower),
        upper=LogSum(jnp.where(left > 0, 0, terms.nearest), upper),
        pdf=LogSum(terms.nearest, pdf),
        norm=norm,
        in_upper=in_upper,
        scale=scale,
        anchor_tail=anchor_held + jnp.where(in_upper, -scale, scale) * anchor_small,
        anchor_pdf=anchor_pdf,
        slope=-(pull[0] * unit + anchor_pdf * x) / pdf if with_slope else None,
    )


class Mapped(NamedTuple):
    """z = Φ⁻¹(F) from the smaller tail T, and log dz/dx, each [*b]."""

    z: Array
    log_det: Array
    tail: Array  # T
    mills: Array  # T / φ(z), at most √(π/2)


def to_normal(at: Mixed) -> Mapped:
    """The map at a point."""
    signed = jnp.where(at.in_upper, at.upper.total, -at.lower.total) / at.norm
    tail, sign = jnp.abs(signed), jnp.sign(signed)
    reference = jnp.where(signed > 0, at.upper.distance, at.lower.distance)
    z = log_tail_to_z(jnp.log(tail) - 0.5 * reference * reference, sign)
    mills = times_tail(_SQRT_2PI, folded(z, sign > 0))
    # log f − log φ(z) with φ(z) = T / mills.
    log_det = _log_decay(at.pdf.distance, reference) + jnp.log(
        at.pdf.total * mills / (tail * at.norm)
    )
    return Mapped(z, log_det, tail, mills)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def gaussianize(x, logits, means, log_scales, family, anchor_weight):
    """`mixture.gaussianize` with components leading: x [*b], parameters [K, *b]."""
    mixtures = prepare(logits, means, log_scales)
    terms = terms_at(x, mixtures, family, anchor_weight)
    mapped = to_normal(mix(x, mixtures, terms, family, anchor_weight))
    return mapped.z, mapped.log_det


@gaussianize.defjvp
def _gaussianize_jvp(family, anchor_weight, primals, tangents):
    """Both outputs differentiated by formula: responsibilities, no logsumexp or probit.

    ∂F/∂μ_k = −w_k f_k, ∂F/∂log σ_k = −w_k f_k (x − μ_k), ∂F/∂logit_k = w_k (F_k − Σ_j w_j F_j),
    and dz = dF / φ(z); d log dz/dx = d log f + z dz. The rule is plain JAX, so it can be
    differentiated again.
    """
    x, logits, means, log_scales = primals
    dx, dlogits, dmeans, dlog_scales = tangents
    mixtures = prepare(logits, means, log_scales)
    terms = terms_at(x, mixtures, family, anchor_weight)
    at = mix(x, mixtures, terms, family, anchor_weight, with_slope=True)
    z, log_det, tail, mills = to_normal(at)
    masses, _, inverse_scales = mixtures

    unit = _INVERSE_SQRT_2PI if family == "gaussian" else 1.0
    r = terms.pdf * unit / at.pdf.total  # responsibilities
    is_right = x > means
    # The weights move F, by what they move the smaller tail T: dz = ± dT · mills / T.
    held = jnp.where(is_right == at.in_upper, 0, masses)
    small = jnp.where(is_right, -terms.small, terms.small)
    total = tail * at.norm
    signed = jnp.where(at.in_upper, -mills, mills)
    of_all = (1 - anchor_weight) * at.norm  # mass / of_all is w
    by_logit = (
        signed / total * held
        + mills * at.scale / total * small
        - signed * (1 - at.anchor_tail / total) / of_all * masses
    )
    moved = r * (dmeans + (x - means) * dlog_scales)
    dz = jnp.exp(log_det) * (dx - jnp.sum(moved, axis=0))
    dz += jnp.sum(by_logit * dlogits, axis=0)

    fitted = (1 - at.anchor_pdf / at.pdf.total) / of_all
    dlog_pdf = at.slope * dx + jnp.sum(
        (r - fitted * masses) * dlogits
        + r * terms.slope * inverse_scales * dmeans
        + r * (terms.slope * terms.u - 1) * dlog_scales,
        axis=0,
    )
    return (z, log_det), (dz, dlog_pdf + z * dz)
