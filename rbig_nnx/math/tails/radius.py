"""The radius of elliptical rows to that of Gaussian ones, and back, in closed form.

With a tail index λ ≥ 0, t = x / scale and d features,

    y = t √(log(1 + λ |t|²) / (λ |t|²)),   t = y √((exp(λ |y|²) − 1) / (λ |y|²)):

the map of `rbig_nnx.math.tails.columns` for |t|, while directions stay. At λ = 0 both are the
identity, exactly. No map of single features makes a multivariate Student's t Gaussian, however
they are rotated, since all its features share one random scale; a map of the radius does (Lyu
and Simoncelli, Nonlinear extraction of independent components of natural images using radial
Gaussianization, Neural Computation, 2009). A normal y has P(|t| > r) that falls like
r^(−1/λ), but for powers of log r, so λ is 1/ν of Student's t.

With v = λ |y|² = log(1 + λ |t|²) and q = log(|y| / |t|)

    log|det ∂y/∂t| = (d − 2) q − v,

and with c(v) of `rbig_nnx.math.tails.columns`, all derivatives are those of u = λ |t|²:

    ∂v/∂u = exp(−v),   ∂q/∂u = −c exp(−v) / 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rbig_nnx.math.tails.columns import (
    TailParams,
    bounded,
    curvature,
    lighten,
    log_ratio,
)

_FAR = (
    1e15  # of y: its square has a float, and exp(λ y²) none, unless λ is 0 to rounding
)
_MOST = 1e30  # of v, likewise
# Derivatives in λ saturate from here: at λ = 0 they grow like |t|³, and soon have no float.
_STEEPEST = 1e3


class RadialParams(NamedTuple):
    """The parameters of the map."""

    log_scale: Float[Array, ""]
    index: Float[Array, ""]  # of the tail, at least 0


def _square(a: Array, bound: float) -> Array:
    """|a|², of entries up to the bound."""
    return jnp.sum(jnp.square(bounded(a, bound)), axis=-1)


def _most(a: Array) -> float:
    """A bound of numbers whose norm has a float too."""
    return 1e-3 * float(jnp.finfo(a.dtype).max)


def _norm(t: Array) -> Array:
    """Without squares that may overflow or vanish."""
    size = jnp.maximum(jnp.max(jnp.abs(t), axis=-1), jnp.finfo(t.dtype).tiny)
    return size * jnp.sqrt(jnp.sum(jnp.square(t / size[..., None]), axis=-1))


@jax.custom_jvp
def _contraction(t: Array, index: Array) -> tuple[Array, Array, Array]:
    """|y| / |t|, its logarithm q and v = λ |y|² of points t, [..., d]; [...] each."""
    r, zero = _norm(t), jnp.zeros_like(index)
    y, log_slope = lighten(r, TailParams(zero, zero, index, index))
    ratio = jnp.where(r > 0, y / jnp.where(r > 0, r, 1), 1)
    v = jnp.square(jnp.sqrt(index) * y)  # not 0 · ∞
    return ratio, -(log_slope + v), v


@_contraction.defjvp
def _contraction_jvp(primals, tangents):
    (t, index), (dt, dindex) = primals, tangents
    ratio, q, v = _contraction(t, index)
    # exp(−v) is taken into both factors of t · dt: far out it alone has no float.
    near = jnp.exp(-0.5 * v)[..., None]
    inward = jnp.sum(near * t * (near * dt), axis=-1)
    dv = 2 * index * inward + _square(near * t, _STEEPEST) * dindex
    dq = -0.5 * curvature(v) * dv
    return (ratio, q, v), (ratio * dq, dq, dv)


@jax.custom_jvp
def _expansion(v: Array) -> Array:
    """log(|t| / |y|) of v = λ |y|²."""
    return 0.5 * log_ratio(v)


@_expansion.defjvp
def _expansion_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    return _expansion(v), 0.5 * curvature(v) * dv


def _alike(points: Array, params: RadialParams) -> list[Array]:
    """The points and the parameters, all of one dtype."""
    dtype = jnp.result_type(points, *params)
    return [jnp.asarray(a, dtype) for a in (points, *params)]


@jax.jit
def contract(
    x: Float[Array, "*b d"], params: RadialParams
) -> tuple[Float[Array, "*b d"], Float[Array, "*b"]]:
    """Maps elliptical rows x with power-law tails to y with Gaussian ones.

    Exact to rounding up to the square root of the sum of squares that has a float, smooth at
    0, and the identity at index 0 and log scale 0.

    Args:
      x: points, [..., d].
      params: log scale and tail index.

    Returns:
      y, [..., d], and log|det ∂y/∂x| in nats, [...].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.tails.radius import RadialParams, contract
      >>> params = RadialParams(*jnp.array([0.0, 0.2]))
      >>> y, _ = contract(jnp.array([[0.3, 0.4], [3.0, 4.0], [3e8, 4e8]]), params)
      >>> print((10 * y).astype(int))
      [[  2   3]
       [ 17  23]
       [ 83 110]]
    """
    x, log_scale, index = _alike(x, params)
    narrow = jnp.exp(-log_scale)
    ratio, q, v = _contraction(bounded(x * narrow, _most(x)), index)
    d = x.shape[-1]
    return x * (ratio * narrow)[..., None], (d - 2) * q - v - d * log_scale


@jax.jit
def expand(
    y: Float[Array, "*b d"], params: RadialParams
) -> tuple[Float[Array, "*b d"], Float[Array, "*b"]]:
    """Maps y with Gaussian tails to elliptical rows x: the inverse of `contract`.

    Args:
      y: points, [..., d].
      params: as for `contract`.

    Returns:
      x, [..., d], and log|det ∂x/∂y| in nats, [...]. Where x has no float it is as far out
      as it can be, in the same direction; the log det is right there too.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.tails.radius import RadialParams, expand
      >>> params = RadialParams(*jnp.array([0.0, 0.2]))
      >>> print(expand(jnp.array([3.0, 4.0]), params)[0].round())
      [16. 22.]
    """
    y, log_scale, index = _alike(y, params)
    y = bounded(y, jnp.finfo(y.dtype).max)
    fixed = jax.lax.stop_gradient(index)
    v = fixed * _square(y, _FAR) + (index - fixed) * _square(y, _STEEPEST)
    v = jnp.minimum(v, _MOST)
    log_growth = _expansion(v)
    size = jnp.maximum(jnp.max(jnp.abs(y), axis=-1), 1)
    room = jax.lax.stop_gradient(jnp.log(1e3 * 0.99 * _most(y)) - jnp.log(size))
    growth = jnp.exp(jnp.minimum(log_growth + log_scale, room))
    d = y.shape[-1]
    return y * growth[..., None], (d - 2) * log_growth + v + d * log_scale
