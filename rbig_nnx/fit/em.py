"""Expectation-maximisation on binned columns, accelerated, all columns at once.

Within a bin the responsibilities are shared (Verbeek, Nunnink and Vlassis, Accelerated
EM-based clustering of large data sets, 2006), which is EM on a lower bound of the
likelihood.

Components lead inside, [K, d, M]: compilers vectorise a long last axis, not one of eight.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from rbig_nnx.math.sums import fold

MIN_SCALE = 1e-3  # of a component, in standard deviations of the feature
MIN_WEIGHT = 1e-6  # of a component: keeps the logits finite
_SMALLEST_STEP = 1e-3  # of all parameters together: EM goes on without extrapolation
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Points(NamedTuple):
    """What EM reads: masses that sum to 1 per feature, and the smallest scale [d]."""

    points: Array
    masses: Array
    variances: Array
    min_scale: Array


class Mixture(NamedTuple):
    """EM's parameters, each [K, d]."""

    log_weights: Array
    means: Array
    log_scales: Array


def em_step(
    mixture: Mixture, data: Points, family: str, anchor_weight: float
) -> tuple[Mixture, Array]:
    """One EM step, and the mean log-likelihood [d] of the mixture that came in.

    Logistic components: the M-step minorises log sech² by a parabola in u, which weighs
    the rows by tanh(u/2)/u, so the likelihood still never falls.
    """
    scales = jnp.exp(mixture.log_scales)[..., None]
    u = (data.points - mixture.means[..., None]) / scales
    square = u * u + data.variances / (scales * scales)
    log_joint = (mixture.log_weights - mixture.log_scales)[..., None]
    if family == "gaussian":
        log_joint = log_joint - 0.5 * square - _LOG_SQRT_2PI
    else:
        a = jnp.sqrt(square)
        log_joint = log_joint - a - 2 * jnp.log1p(jnp.exp(-a))
    if anchor_weight > 0:
        log_joint = log_joint + math.log1p(-anchor_weight)
        anchor = math.log(anchor_weight) - _LOG_SQRT_2PI
        anchor = anchor - 0.5 * (data.points**2 + data.variances)
        top = jnp.maximum(fold(jnp.maximum, log_joint), anchor)
        joint = jnp.exp(log_joint - top)
        total = fold(jnp.add, joint) + jnp.exp(anchor - top)
    else:
        top = fold(jnp.maximum, log_joint)
        joint = jnp.exp(log_joint - top)
        total = fold(jnp.add, joint)
    log_likelihood = jnp.sum(data.masses * (top + jnp.log(total)), axis=-1)

    r = joint * (data.masses / total)
    mass = jnp.sum(r, axis=-1)
    if family == "gaussian":
        pull, pulled = r, mass
    else:
        pull = r * jnp.where(a > 1e-3, jnp.tanh(0.5 * a) / jnp.maximum(a, 1e-3), 0.5)
        pulled = jnp.sum(pull, axis=-1)
    # Moments about the old mean, in old scales: nothing large cancels.
    alive = mass > 1e-12
    shift = jnp.sum(pull * u, axis=-1) / jnp.where(alive, pulled, 1)
    second = jnp.sum(pull * square, axis=-1) - pulled * shift**2
    ratio = jnp.maximum(second, 0) / jnp.where(alive, mass, 1)
    scales = scales[..., 0]
    means = jnp.where(alive, mixture.means + scales * shift, mixture.means)
    new_scales = jnp.where(alive, scales * jnp.sqrt(ratio), scales)
    new_scales = jnp.maximum(new_scales, data.min_scale)
    weights = jnp.maximum(mass / jnp.sum(mass, axis=0), MIN_WEIGHT)
    weights = weights / jnp.sum(weights, axis=0)
    return Mixture(jnp.log(weights), means, jnp.log(new_scales)), log_likelihood


def _extrapolate(start, first, second, data: Points) -> Mixture:
    """The step of SQUAREM (Varadhan and Roland, 2008), one length per feature."""
    # Means in units of the feature, so that the three kinds of parameters compare.
    unit = jnp.log(data.min_scale / MIN_SCALE)
    by = jnp.exp(-unit)

    def norm(tree):
        square = tree.log_weights**2 + (tree.means * by) ** 2 + tree.log_scales**2
        return jnp.sqrt(jnp.sum(square, axis=0))

    r = jax.tree.map(jnp.subtract, first, start)
    v = jax.tree.map(lambda c, b, dr: c - b - dr, second, first, r)
    length = jnp.clip(norm(r) / jnp.maximum(norm(v), 1e-12), 1.0, 256.0)
    # Steps as small as rounding would be extrapolated to noise.
    length = jnp.where(norm(r) > _SMALLEST_STEP, length, 1.0)
    out = jax.tree.map(
        lambda p, dr, dv: p + 2 * length * dr + length**2 * dv, start, r, v
    )
    log_weights = jnp.clip(jax.nn.log_softmax(out.log_weights, axis=0), -14.0)
    log_scales = jnp.clip(out.log_scales, jnp.log(data.min_scale), unit + 20)
    return Mixture(jax.nn.log_softmax(log_weights, axis=0), out.means, log_scales)


def best_of(
    starts: Mixture,
    data: Points,
    num_cycles: Int[Array, "3"],
    family: str,
    anchor_weight: float,
) -> Mixture:
    """Runs every start briefly, and from the best of each feature to the end.

    On the data sets after the first each run goes on from the end of the one before. One
    loop for all runs, so that a run is compiled once.

    Args:
      starts: initial mixtures, each array [S, K, d].
      data: what is fitted, each array with a leading axis of P data sets, each similar to
        the one before. The brief runs are on the first.
      num_cycles: of the brief runs, of the run to the end, and of those on further sets.
        Without brief runs the first start is taken.
      family: "gaussian" or "logistic".
      anchor_weight: of the fixed N(0, 1) component.

    Returns:
      The mixtures, each array [P, K, d].
    """
    count = len(starts.means)

    def step(number, carry):
        best, highest, ends = carry
        brief, own = number < count, jnp.maximum(number - count, 0)
        start = jax.tree.map(lambda s, b: jnp.where(brief, s[number], b), starts, best)
        rows = jax.tree.map(lambda a: a[own], data)
        length = num_cycles[jnp.where(brief, 0, 1 + (own > 0))]
        found, value = _run(start, rows, length, family, anchor_weight)
        better = ~brief | (value > highest)  # false for NaN
        best = jax.tree.map(functools.partial(jnp.where, better), found, best)
        highest = jnp.where(better, value, highest)
        ends = jax.tree.map(lambda e, f: e.at[own].set(f), ends, found)
        return best, highest, ends

    first = jax.tree.map(lambda s: s[0], starts)
    lowest = jnp.full(first.means.shape[1:], -jnp.inf)
    num_sets = len(data.points)
    ends = jax.tree.map(lambda a: jnp.zeros((num_sets, *a.shape), a.dtype), first)
    return jax.lax.fori_loop(0, count + num_sets, step, (first, lowest, ends))[2]


def _run(mixture, data, num_cycles, family, anchor_weight):
    """`num_cycles` of three EM steps each, extrapolated where that raises the likelihood.

    Returns the mixture and the mean log-likelihood [d] one step before it.
    """

    def where(condition, a, b):
        return jax.tree.map(functools.partial(jnp.where, condition), a, b)

    def step_of_cycle(number, carry):
        # One copy of the step to compile. `before` is the likelihood of the first step.
        current, start, previous, before = carry
        stepped, value = em_step(current, data, family, anchor_weight)
        far = _extrapolate(start, previous, stepped, data)
        good = value >= before  # false for NaN too
        kept = where(good, stepped, previous)
        phase = number % 3
        last = phase == 2
        current = where(phase == 0, stepped, where(last, kept, far))
        start = where(last, kept, start)
        before = jnp.where((phase == 1) | (last & good), value, before)
        return current, start, where(last, kept, stepped), before

    before = jnp.full(mixture.means.shape[1:], -jnp.inf)
    carry = (mixture, mixture, mixture, before)
    carry = jax.lax.fori_loop(0, 3 * num_cycles, step_of_cycle, carry)
    return carry[0], carry[3]
