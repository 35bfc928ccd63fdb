"""The z-quantile of a mixture: a bracketed solve with an implicit derivative.

The z-quantile of a mixture lies between the smallest and the largest z-quantile of its
components, min_k q_k(z) ≤ x ≤ max_k q_k(z), with q_k(z) = μ_k + σ_k z for Gaussian ones, so
no search for a bracket is needed. Halley's steps on z(x) − z, replaced by bisection where
they leave the bracket or stop halving the residual, until every point has converged; a
point that has rests, so that its value does not depend on its neighbours. The derivative
is that of the implicit function, never one through the iterations (which is silently
wrong).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.export import is_symbolic_dim
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from rbig_nnx.math import components
from rbig_nnx.math.mixture import components_first
from rbig_nnx.math.params import ANCHOR_WEIGHT, Family, MixtureParams
from rbig_nnx.math.probit import times_tail
from rbig_nnx.math.sums import fold, sums

# A cap, never reached by the tests' worst mixtures (needles 1e-3 wide, 2e4 apart).
_MAX_STEPS = 100
_MANY = 1024  # points, from which it pays to gather the last ones


def _logit_of_normal_cdf(z: Array) -> Array:
    """log Φ(z) − log Φ(−z): the logistic quantile at the probability Φ(z)."""
    a = jnp.abs(z)
    log_tail = -0.5 * a * a + jnp.log(times_tail(1.0, a))
    return jnp.sign(z) * (jnp.log1p(-jnp.exp(log_tail)) - log_tail)


def _bracket(z, mixtures, family, anchor_weight) -> tuple[Array, Array]:
    standard = z if family == "gaussian" else _logit_of_normal_cdf(z)
    quantiles = mixtures.means + standard / mixtures.inverse_scales
    low = fold(jnp.minimum, quantiles)
    high = fold(jnp.maximum, quantiles)
    if anchor_weight > 0:
        low, high = jnp.minimum(low, z), jnp.maximum(high, z)
    return low, high


class _Search(NamedTuple):
    """Where the solve of each point stands."""

    x: Array
    low: Array  # the bracket
    high: Array
    last: Array  # |z(x) − z| before
    moving: Array  # bool: not yet converged


def _step(search: _Search, z, mixtures, family, anchor_weight) -> _Search:
    x, low, high, last, moving = search
    terms = components.terms_at(x, mixtures, family, anchor_weight)
    at = components.mix(x, mixtures, terms, family, anchor_weight, with_slope=True)
    found = components.to_normal(at)
    residual = found.z - z
    low = jnp.where(residual <= 0, x, low)
    high = jnp.where(residual >= 0, x, high)
    steepness = jnp.exp(found.log_det)
    newton = residual / steepness
    # By how much of itself the slope dz/dx changes over the step.
    bend = (at.slope + found.z * steepness) * newton
    halley = x - newton / jnp.maximum(1 - 0.5 * bend, 0.5)
    trusted = (halley >= low) & (halley <= high) & (2 * jnp.abs(residual) <= last)
    # A short step is no sign: before a bend the slope may be a thousand times too
    # steep. NaN compares false, and rests.
    resolution = 2 * jnp.finfo(x.dtype).eps
    moving &= jnp.abs(residual) > resolution * (1 + jnp.abs(z))
    moving &= high - low > resolution * jnp.abs(x)
    x = jnp.where(moving, jnp.where(trusted, halley, 0.5 * (low + high)), x)
    # Halley's step leaves an error of third order in units of the narrowest component:
    # where that is nothing, no other evaluation has to tell.
    widths = newton * fold(jnp.maximum, mixtures.inverse_scales)
    relative = functools.reduce(jnp.maximum, map(jnp.abs, (bend, residual, widths)))
    moving &= ~(trusted & (jnp.abs(residual) * relative**2 <= resolution))
    return _Search(x, low, high, jnp.abs(residual), moving)


def _solve(search: _Search, z, mixtures, family, anchor_weight, *, leave=0) -> _Search:
    """Steps until at most `leave` points are moving."""

    def unfinished(carry):
        count, search = carry
        return (count < _MAX_STEPS) & (jnp.sum(search.moving) > leave)

    def step(carry):
        count, search = carry
        return count + 1, _step(search, z, mixtures, family, anchor_weight)

    return jax.lax.while_loop(unfinished, step, (0, search))[1]


def _solve_stragglers_apart(search: _Search, z, *rest) -> Array:
    """The x of all points; the last few points are gathered and solved by themselves.

    Most points need two or three steps and one in a hundred twice as many. Not for rows
    that are sharded, where a gather is a message: on one CPU it is nearly free.
    """
    mixtures, *options = rest
    few = z.size // 16
    search = _solve(search, z, *rest, leave=few)

    def finished(search, z, mixtures):
        at = jnp.nonzero(search.moving, size=few, fill_value=z.size)

        def gather(a: Array) -> Array:
            return a.at[(..., *at)].get(mode="clip")  # an axis of length 1 broadcasts

        found = jnp.arange(few) < jnp.sum(search.moving)
        part = _Search(*(gather(a) for a in search))._replace(moving=found)
        part = _solve(part, gather(z), jax.tree.map(gather, mixtures), *options)
        return search.x.at[at].set(part.x, mode="drop")

    def as_found(search, z, mixtures):
        del z, mixtures
        return search.x

    return jax.lax.cond(jnp.any(search.moving), finished, as_found, search, z, mixtures)


def _solution(z, logits, means, log_scales, *, family, anchor_weight):
    """Components lead: z [*b], parameters [K, *b] or 1 in place of axes of b."""
    mixtures = components.prepare(logits, means, log_scales)
    low, high = _bracket(z, mixtures, family, anchor_weight)
    first, mass = sums(mixtures.masses * means, mixtures.masses)
    mean = first / mass
    start = (1 - anchor_weight) * mean + z
    start = jnp.where((start > low) & (start < high), start, 0.5 * (low + high))
    # Like `start`, which varies over a mesh as the points or the parameters do.
    last, moving = jnp.full_like(start, jnp.inf), jnp.ones_like(start, bool)
    search = _Search(start, low, high, last, moving)

    def solve(search, z, mixtures):
        return _solve(search, z, mixtures, family, anchor_weight).x

    def apart(search, z, mixtures):
        return _solve_stragglers_apart(search, z, mixtures, family, anchor_weight)

    if is_symbolic_dim(z.size) or z.size < _MANY:
        return solve(search, z, mixtures)
    return jax.lax.platform_dependent(search, z, mixtures, cpu=apart, default=solve)


@functools.cache
def _where_it_lies(broadcasts, family, anchor_weight):
    """`_solution` of points that may be spread over devices, each of which stops by itself.

    To the compiler the loop's stopping test would be a sum over all devices in every step.
    On one device this is `_solution`, and on TPUs, where that sum is still made.

    Args:
      broadcasts: of the axes of z, whether the parameters have one point there.
      family: as of `quantile`.
      anchor_weight: likewise.
    """
    solution = functools.partial(_solution, family=family, anchor_weight=anchor_weight)

    @custom_partitioning
    def apart(z, logits, means, log_scales):
        return solution(z, logits, means, log_scales)

    def partition(mesh, args, result):
        del args
        where = result.sharding
        spec = (*where.spec, *[None] * (len(broadcasts) - len(where.spec)))
        own = (
            None if one else axis for one, axis in zip(broadcasts, spec, strict=True)
        )
        of_params = NamedSharding(mesh, PartitionSpec(None, *own))
        return mesh, solution, where, (where, *[of_params] * 3)

    axes = [f"b{i}" for i in range(len(broadcasts))]
    rule = [" ".join(axes)] + [
        " ".join(["k", *[f"p{i}" if one else a for i, (one, a) in found]])
        for found in [list(enumerate(zip(broadcasts, axes, strict=True)))] * 3
    ]
    apart.def_partition(
        partition=partition,
        sharding_rule=f"{', '.join(rule)} -> {rule[0]}",
    )

    @jax.custom_batching.custom_vmap
    def solve(*args):
        # The compiler of TPUs knows no functions that partition themselves.
        return jax.lax.platform_dependent(*args, tpu=solution, default=apart)

    @solve.def_vmap
    def _(axis_size, in_batched, z, *params):
        def second(param, batched):
            return jnp.moveaxis(param, 0, 1) if batched else param[:, None]

        z = z if in_batched[0] else jnp.broadcast_to(z, (axis_size, *z.shape))
        params = [second(*pair) for pair in zip(params, in_batched[1:], strict=True)]
        alone = not any(in_batched[1:])
        params = jnp.broadcast_arrays(*params)
        found = _where_it_lies((alone, *broadcasts), family, anchor_weight)
        return found(z, *params), True

    return solve


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _quantile(z, logits, means, log_scales, family, anchor_weight):
    """As `_solution`."""
    if is_symbolic_dim(z.size):
        return _solution(
            z, logits, means, log_scales, family=family, anchor_weight=anchor_weight
        )
    broadcasts = tuple(
        one == 1 != size for one, size in zip(logits.shape[1:], z.shape, strict=True)
    )
    solve = _where_it_lies(broadcasts, family, anchor_weight)
    return solve(z, logits, means, log_scales)


@_quantile.defjvp
def _quantile_jvp(family, anchor_weight, primals, tangents):
    """dx = (dz − ∂z/∂params · dparams) / (dz/dx) at the solution."""
    z, *params = primals
    dz, *dparams = tangents
    x = _quantile(z, *params, family, anchor_weight)
    (_, log_det), (dz_params, _) = jax.jvp(
        lambda *p: components.gaussianize(x, *p, family, anchor_weight), params, dparams
    )
    return x, (dz - dz_params) * jnp.exp(-log_det)


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def quantile(
    z: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """The x with F(x) = Φ(z): the inverse of `mixture.gaussianize`.

    Args:
      z: standard normal scores, [...].
      params: mixture parameters, each [..., K], leading axes broadcasting against z.
      family: "gaussian" or "logistic" components.
      anchor_weight: the weight of the fixed N(0, 1) component.

    Returns:
      x, [...], differentiable in z and in the parameters (implicit function theorem).

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.mixture import gaussianize
      >>> from rbig_nnx.math.params import MixtureParams
      >>> from rbig_nnx.math.root import quantile
      >>> two = MixtureParams(jnp.zeros(2), jnp.array([-2.0, 2.0]), jnp.zeros(2) - 1)
      >>> z, _ = gaussianize(jnp.array([-1.5, 0.0, 2.5]), two)
      >>> print(quantile(z, two).round(4))
      [-1.5  0.   2.5]
    """
    first = components_first(z, params)
    shape = jnp.broadcast_shapes(first[0].shape, first[1].shape[1:])
    return _quantile(
        jnp.broadcast_to(first[0], shape), *first[1:], family, anchor_weight
    ).T
