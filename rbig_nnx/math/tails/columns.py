"""Power-law tails to Gaussian ones, and back: one elementwise map in closed form.

With a tail index λ ≥ 0 for each side,

    z = sign(t) √(log(1 + λ t²) / λ),   t = sign(z) √((exp(λ z²) − 1) / λ),

t = (x − location) / scale. At λ = 0 both are the identity, exactly. Else P(|t| > r) of a
normal z falls like r^(−1/λ) / √(log r). With λ = 1/ν it is Wallace's normal
deviate of Student's t with ν degrees of freedom, off by less than a factor of
√(1 − 1/(2ν)) (Bounds on normal approximations to Student's and the chi-square
distributions, Annals of Mathematical Statistics, 1959). The sides meet with one slope and no
curvature.

All derivatives are by formula. They need one function, c(v) = 1 / (1 − exp(−v)) − 1/v of
v = λ z² = log(1 + λ t²), which rises from ½ to 1:

    ∂t/∂z = (t / z) (1 + v c),              ∂t/∂λ = t z² c / 2,
    ∂ log(∂t/∂z)/∂z = λ z (2 − c),          ∂ log(∂t/∂z)/∂λ = z² (1 − c/2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

_NONE = 1e-10  # √λ |t| below which the map is the identity to rounding
_FAR = 1e9  # beyond which 1 + λ t² is λ t², in every dtype, and squares may overflow
# Derivatives in λ saturate here: at λ = 0 they grow like t³, which at 1e13 has no float.
_STEEPEST = 1e18
_MOST = 1e30  # of v; t has no float from v = 180 or, in double precision, 1420
# Of c's series: right to the dtype's rounding up to v = 1.
_NUM_TERMS = {"float32": 4, "float64": 10}


class TailParams(NamedTuple):
    """The parameters of the map, arrays that broadcast against x."""

    location: Float[Array, "*b"]
    log_scale: Float[Array, "*b"]
    left: Float[Array, "*b"]  # tail indices, at least 0
    right: Float[Array, "*b"]


def _largest(a: Array) -> float:
    return float(jnp.finfo(a.dtype).max)


def curvature(v: Array) -> Array:
    """c(v) = 1 / (1 − exp(−v)) − 1/v for v ≥ 0."""
    # ½ + Σ B_2k / (2k)! v^(2k − 1), of Bernoulli numbers.
    k = np.arange(_NUM_TERMS[v.dtype.name], 0, -1)
    terms = scipy.special.bernoulli(2 * k[0])[2 * k] / scipy.special.factorial(2 * k)
    near, far = jnp.where(v < 1, v, 1), jnp.where(v < 1, 1, v)
    series = jnp.zeros_like(v)
    for term in terms:
        series = series * near * near + float(term)
    direct = -1 / jnp.expm1(-far) - 1 / far
    return jnp.where(v < 1, 0.5 + near * series, direct)


def log_ratio(v: Array) -> Array:
    """log((exp(v) − 1) / v) for v ≥ 0."""
    known = v > _NONE**2
    near = jnp.where(known & (v < 1), v, 1)
    far = jnp.maximum(v, 1)
    outer = far + jnp.log1p(-jnp.exp(-far)) - jnp.log(far)
    inner = jnp.where(known, jnp.log(jnp.expm1(near) / near), 0)
    return jnp.where(v < 1, inner, outer)


def bounded(a: Array, bound: Array | float = _STEEPEST) -> Array:
    """a within ±bound."""
    return jnp.clip(a, -bound, bound)


@jax.custom_jvp
def _lighten(t: Array, index: Array) -> tuple[Array, Array]:
    """z and log dz/dt of the map at location 0 and scale 1."""
    root = jnp.sqrt(index)
    r = jnp.where(index > 0, root * jnp.abs(t), 0)  # not 0 · ∞
    # Within r < 1: z = t √(log(1 + u) / u).
    known = (r > _NONE) & (r < 1)
    u = jnp.square(jnp.where(known, r, 1))
    ratio = jnp.where(known, jnp.log1p(u) / u, 1)
    inner_slope = jnp.where(known, -0.5 * jnp.log(ratio) - jnp.log1p(u), 0)
    # Beyond, where t² may overflow: log(1 + u) = log(1 + near²) + 2 log far.
    near = jnp.clip(r, 1, _FAR)
    far = jnp.maximum(jnp.where(index > 0, root * (jnp.abs(t) / _FAR), 1), 1)
    v = jnp.log1p(near * near) + 2 * jnp.log(far)
    outer = jnp.copysign(jnp.sqrt(v) / jnp.where(index > 0, root, 1), t)
    outer_slope = -0.5 * (jnp.log(v) + v + jnp.log1p(1 / (near * near)))
    inside = r < 1
    z = jnp.where(inside, t * jnp.sqrt(ratio), outer)
    return z, jnp.where(inside, inner_slope, outer_slope)


@_lighten.defjvp
def _lighten_jvp(primals, tangents):
    (t, index), (dt, dindex) = primals, tangents
    z, log_slope = _lighten(t, index)
    v = index * z * z
    c = curvature(v)
    slope = jnp.exp(log_slope)
    shrink = 1 / (1 + v * c)
    square = z * z
    dz = slope * dt - bounded(0.5 * z * square * c * shrink) * dindex
    bend = index * z * (2 - c) * slope
    dlog_slope = -bend * dt - bounded(square * (1 - 0.5 * c) * shrink) * dindex
    return (z, log_slope), (dz, dlog_slope)


@jax.custom_jvp
def _fatten(z: Array, index: Array) -> tuple[Array, Array]:
    """t, at most the largest float, and log dt/dz."""
    root = jnp.sqrt(index)
    v = jnp.minimum(jnp.square(root * z), _MOST)
    log_growth = 0.5 * log_ratio(v)
    t = bounded(z * jnp.exp(log_growth), _largest(z))
    return t, v - log_growth


@_fatten.defjvp
def _fatten_jvp(primals, tangents):
    (z, index), (dz, dindex) = primals, tangents
    t, log_slope = _fatten(z, index)
    v = index * z * z
    c = curvature(v)
    square, most = z * z, 1e-3 * _largest(z)
    slope = jnp.minimum(jnp.exp(log_slope), most)
    dt = slope * dz + bounded(0.5 * t * square * c, most) * dindex
    bend = bounded(index * z * (2 - c), most)
    dlog_slope = bend * dz + bounded(square * (1 - 0.5 * c)) * dindex
    return (t, log_slope), (dt, dlog_slope)


def _alike(points: Array, params: TailParams) -> list[Array]:
    """The points and the parameters, all of one dtype and shape."""
    dtype = jnp.result_type(points, *params)
    return jnp.broadcast_arrays(*(jnp.asarray(a, dtype) for a in (points, *params)))


@jax.jit
def lighten(
    x: Float[Array, "*b"], params: TailParams
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """Maps x with power-law tails to z with Gaussian ones. Strictly increasing.

    Exact to rounding over the whole range of floats: no clipping, no series that ends.

    Args:
      x: points, [...].
      params: location, log scale and the tail indices of both sides, broadcasting against x.

    Returns:
      z, [...], and log dz/dx in nats, [...].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.tails.columns import TailParams, lighten
      >>> cauchy = TailParams(*jnp.array([0.0, 0.0, 1.0, 1.0]))
      >>> z, _ = lighten(jnp.array([-1e30, -1.0, 0.0, 1e6]), cauchy)
      >>> print(z.round(1))
      [-11.8  -0.8   0.    5.3]
    """
    x, location, log_scale, left, right = _alike(x, params)
    t = (x - location) * jnp.exp(-log_scale)
    t = jnp.where(jnp.isinf(x), x, bounded(t, _largest(t)))
    z, log_slope = _lighten(t, jnp.where(t < 0, left, right))
    return z, log_slope - log_scale


@jax.jit
def fatten(
    z: Float[Array, "*b"], params: TailParams
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """Maps z with Gaussian tails to x with power-law ones: the inverse of `lighten`.

    Args:
      z: points, [...].
      params: as for `lighten`.

    Returns:
      x, [...], and log dx/dz in nats, [...]. Where x is beyond the largest float it is that
      float; log dx/dz is right there too.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.tails.columns import TailParams, fatten
      >>> fatter_right = TailParams(*jnp.array([10.0, 0.0, 0.0, 0.5]))
      >>> x, _ = fatten(jnp.array([-3.0, 0.0, 3.0]), fatter_right)
      >>> print(x.round(2))
      [ 7.   10.   23.34]
    """
    z, location, log_scale, left, right = _alike(z, params)
    t, log_slope = _fatten(z, jnp.where(z < 0, left, right))
    scale = jnp.exp(log_scale)
    # No product may overflow: its derivative would be ∞ where that of the bound is 0.
    reach = jax.lax.stop_gradient(0.999 * _largest(t) / jnp.maximum(scale, 1))
    return location + scale * bounded(t, reach), log_slope + log_scale
