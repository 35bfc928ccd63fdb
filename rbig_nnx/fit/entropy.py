"""Entropies of kernel estimates of densities, by Fourier series on a circle.

The estimate of standardised values is summed from the empirical characteristic function: no
sort and no scatter, and exact integration on a regular grid.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_HIGHEST = jax.lax.Precision.HIGHEST  # TPUs would round the factors to bfloat16
_HALF_RANGE = 5.0  # half the circumference of the circle, in standard deviations
_BANDWIDTH = 0.15
_NUM_FREQUENCIES = 24
_GRID = 64  # points that a density is integrated on
_BINS = 48  # of each axis of a pair
_NUM_PROJECTIONS = 64  # over half a turn, after which entropies repeat
_FINE = 8  # interpolated angles for each of them

_FREQUENCIES = np.arange(1, _NUM_FREQUENCIES + 1) * np.pi / _HALF_RANGE
_WIDTH = 2 * _HALF_RANGE / _BINS
_CENTERS = (np.arange(_BINS) - (_BINS - 1) / 2) * _WIDTH


def of_rows(y: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Entropy of the density of the values in each row, nats.

    Args:
      y: values of a standard deviation about 1, [..., n].
    """
    phase = jnp.clip(y / _HALF_RANGE, -1, 1) * math.pi
    cos, sin = jnp.cos(phase), jnp.sin(phase)

    def power(carry, _):
        a, b = carry
        out = jnp.mean(a, axis=-1), jnp.mean(b, axis=-1)
        return (a * cos - b * sin, a * sin + b * cos), out

    _, series = jax.lax.scan(power, (cos, sin), None, length=_NUM_FREQUENCIES)
    return _of_series(*(jnp.moveaxis(part, 0, -1) for part in series))


def of_projections(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, " a"]:
    """Entropies of the projections cos(t) u + sin(t) v, nats, for angles t over [0, π).

    Everything but the binning is a product with constants, so that a pair of columns costs
    far less than its projections one by one. Read the result with `at_angle`.

    Args:
      u: uncorrelated with v, both of mean 0 and standard deviation 1, [n].
      v: [n].
    """
    counts = jnp.matmul(_shares(u).T, _shares(v), precision=_HIGHEST) / len(u)
    (cos_u, sin_u), (cos_v, sin_v) = _projection_tables()
    real, imag = (
        jnp.einsum("atu,uv->atv", table, counts, precision=_HIGHEST)
        for table in (cos_u, sin_u)
    )
    entropies = _of_series(
        jnp.sum(real * cos_v - imag * sin_v, axis=-1),
        jnp.sum(real * sin_v + imag * cos_v, axis=-1),
    )
    waves = jnp.fft.rfft(entropies)
    return jnp.fft.irfft(waves, n=_FINE * _NUM_PROJECTIONS) * _FINE


def at_angle(entropies: Float[Array, " a"], angle: Float[Array, "*b"]) -> Array:
    """Interpolates a result of `of_projections`."""
    size = entropies.shape[0]
    position = angle * (size / math.pi)
    below = jnp.floor(position)
    first = below.astype(jnp.int32) % size
    share = position - below
    return (1 - share) * entropies[first] + share * entropies[(first + 1) % size]


def _shares(x: Float[Array, " n"]) -> Float[Array, "n b"]:
    """Of each value in its two nearest bins: summed, a count without scatter."""
    x = jnp.clip(x, _CENTERS[0], _CENTERS[-1])[:, None]
    return jnp.maximum(1 - jnp.abs(x - _CENTERS.astype(np.float32)) / _WIDTH, 0)


def _of_series(real: Array, imag: Array) -> Array:
    """Entropy from an empirical characteristic function, [..., t] each."""
    frequencies, grid = (
        _FREQUENCIES[:, None],
        np.linspace(-_HALF_RANGE, _HALF_RANGE, _GRID, endpoint=False),
    )
    kernel = np.exp(-0.5 * (_BANDWIDTH * frequencies) ** 2) / _HALF_RANGE
    cos, sin = (
        (kernel * wave(frequencies * grid)).astype(np.float32)
        for wave in (np.cos, np.sin)
    )
    density = jnp.matmul(real, cos, precision=_HIGHEST)
    density = density + jnp.matmul(imag, sin, precision=_HIGHEST)
    density = jnp.maximum(density + 0.5 / _HALF_RANGE, 1e-6)
    step = 2 * _HALF_RANGE / _GRID
    return -step * jnp.sum(density * jnp.log(density), axis=-1)


@functools.cache
def _projection_tables():
    """Waves along the bins of both axes, cosines and sines of each, [angle, t, bin]."""
    angles = np.arange(_NUM_PROJECTIONS) * np.pi / _NUM_PROJECTIONS

    def waves(part):
        frequency = part[:, None] * _FREQUENCIES
        # The shares of two bins blur like a triangle; its transform is divided out.
        sharpened = 1 / np.sinc(frequency * _WIDTH / (2 * np.pi)) ** 2
        phase = frequency[..., None] * _CENTERS
        return tuple(
            (sharpened[..., None] * wave(phase)).astype(np.float32)
            for wave in (np.cos, np.sin)
        )

    return waves(np.cos(angles)), waves(np.sin(angles))
