"""The Gaussian tail and its inverse, exact in log space.

JAX has `log_ndtr`, which evaluates three series and selects, and no inverse of it. Both
functions here are one branch-free rational polynomial: Chebyshev interpolants in
s = (t − c) / (t + c), which maps the half line t ≥ 0 to [−1, 1) (Shepherd and Laframboise,
Chebyshev approximation of (1 + 2x) exp(x²) erfc(x), 1981). The coefficients are computed
at import from SciPy, so they are nowhere typed in. Errors: `docs/design.md`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev

LOG_SQRT_2PI = float(0.5 * np.log(2 * np.pi))
_LOG_HALF = float(np.log(0.5))
# Floats of Python take the dtype of what they meet; NumPy's make it float64.
_SQRT_2PI = float(np.exp(LOG_SQRT_2PI))
_INVERSE_SQRT_2PI = float(np.exp(-LOG_SQRT_2PI))
_ROOT_AT_HALF = float(np.sqrt(-2 * _LOG_HALF))

_TAIL_CENTRE = 3.75  # Shepherd and Laframboise's c; flat between 3 and 4.5
_PROBIT_CENTRE = 4.0
# Degrees at which the interpolant's relative error is below the dtype's rounding.
_TAIL_DEGREE = {"float32": 10, "float64": 24}
_PROBIT_DEGREE = 10  # a start good to 1.3e-5 relative; Newton squares the error
_NEWTON_STEPS = {"float32": 1, "float64": 3}


def _half_line(s: np.ndarray, centre: float) -> np.ndarray:
    return centre * (1 + s) / np.maximum(1 - s, 1e-12)


@functools.cache
def _tail_coefficients(degree: int) -> tuple[float, ...]:
    """Power coefficients, highest first, of (1 + t) exp(t²/2) Φ(−t) in s."""

    def target(s: np.ndarray) -> np.ndarray:
        t = _half_line(s, _TAIL_CENTRE)
        return 0.5 * scipy.special.erfcx(t / np.sqrt(2)) * (1 + t)

    return _interpolate(target, degree)


@functools.cache
def _probit_coefficients(degree: int) -> tuple[float, ...]:
    """Power coefficients, highest first, of z / r in s, where log Φ(−z) = −r²/2."""

    def target(s: np.ndarray) -> np.ndarray:
        r = _half_line(s, _PROBIT_CENTRE) + _ROOT_AT_HALF
        return -scipy.special.ndtri_exp(np.minimum(-r * r / 2, _LOG_HALF)) / r

    return _interpolate(target, degree)


def _interpolate(target, degree: int) -> tuple[float, ...]:
    power = chebyshev.cheb2poly(chebyshev.chebinterpolate(target, degree))
    return tuple(float(c) for c in power[::-1])


def _horner(coefficients: tuple[float, ...], s: Array) -> Array:
    value = jnp.full_like(s, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * s + coefficient
    return value


def _precision(x: Array) -> str:
    return "float64" if x.dtype == jnp.float64 else "float32"


def _tail_parts(t: Array) -> tuple[Array, Array]:
    """Numerator and denominator of `times_tail`."""
    s = (t - _TAIL_CENTRE) / (t + _TAIL_CENTRE)
    return _horner(_tail_coefficients(_TAIL_DEGREE[_precision(t)]), s), 1 + t


@jax.custom_jvp
def folded(u: Float[Array, "*b"], is_right: Array) -> Array:
    """|u|, at 0 with the derivative of the side that `is_right` says; that of `abs` is 0."""
    del is_right
    return jnp.abs(u)


@folded.defjvp
def _folded_jvp(primals, tangents):
    (u, is_right), (du, _) = primals, tangents
    return folded(u, is_right), jnp.where(is_right, du, -du)


@jax.custom_jvp
def times_tail(factor: Float[ArrayLike, "*b"], t: Float[Array, "*b"]) -> Array:
    """factor · exp(t²/2) Φ(−t) for t ≥ 0: the Gaussian tail without its exponential factor.

    Falls from 1/2 like 1 / (t √2π), so it neither under- nor overflows.
    """
    numerator, denominator = _tail_parts(t)
    return factor * numerator / denominator


@times_tail.defjvp
def _times_tail_jvp(primals, tangents):
    (factor, t), (dfactor, dt) = primals, tangents
    tail = times_tail(1.0, t)
    slope = t * tail - _INVERSE_SQRT_2PI
    return times_tail(factor, t), dfactor * tail + factor * slope * dt


@jax.custom_jvp
def log_tail_to_z(
    log_tail: Float[Array, "*b"], sign: Float[ArrayLike, "*b"] = 1.0
) -> Float[Array, "*b"]:
    """The z ≥ 0 with log Φ(−z) = log_tail, times `sign`: the log-space probit of one tail.

    Newton on log Φ(−z) = −z²/2 + log `times_tail`(1, z), started from a Chebyshev
    interpolant. The oracle in the tests is −`scipy.special.ndtri_exp`.

    Args:
      log_tail: log probabilities, at most log ½, [...]; larger values are read as log ½.
      sign: 1 or −1, [...].

    Returns:
      z, [...]; float32 is right to a few roundings for any finite input.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.probit import log_tail_to_z
      >>> print(log_tail_to_z(jnp.float32(-1e4)).round(2))
      141.37
    """
    log_tail = jnp.minimum(log_tail, _LOG_HALF)
    r = jnp.sqrt(-2 * log_tail)
    v = r - _ROOT_AT_HALF
    s = (v - _PROBIT_CENTRE) / (v + _PROBIT_CENTRE)
    z = jnp.maximum(_horner(_probit_coefficients(_PROBIT_DEGREE), s) * r, 0)
    for remaining in reversed(range(_NEWTON_STEPS[_precision(z)])):
        numerator, denominator = _tail_parts(z)
        # (r − z)(r + z) / 2, not r²/2 − z²/2: the squares cancel in a deep tail.
        residual = jnp.log(numerator / denominator) + 0.5 * (r - z) * (r + z)
        # z + residual · tail · √2π over one denominator: what reads z reads a quotient.
        z = z * denominator + residual * numerator * _SQRT_2PI
        z = jnp.maximum(z, 0) * (1 if remaining else sign) / denominator
    return z


@log_tail_to_z.defjvp
def _log_tail_to_z_jvp(primals, tangents):
    (log_tail, sign), (dlog_tail, _) = primals, tangents
    z = log_tail_to_z(log_tail, sign)
    slope = times_tail(1.0, folded(z, sign > 0)) * _SQRT_2PI
    return z, -sign * slope * dlog_tail
