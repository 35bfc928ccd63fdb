"""Two moons with their true density: the experiment in which the limit is known.

A uniform angle on one of two half circles, plus N(0, σ²I). The density is the integral over
the angle, so the best that any model can reach on fresh points is known to four digits.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.datasets import make_moons

NOISE = 0.06  # σ, in the raw units of the circles' radius 1

_NUM_ANGLES = 1_000  # midpoints: π/1000 apart, a twentieth of σ


class Moons:
    """Standardised two moons: the training sample's mean and scale, fixed.

    Args:
      num_train: size of the sample with `random_state` 0.
      noise: σ.
    """

    def __init__(self, num_train: int = 3_000, *, noise: float = NOISE):
        self.noise = noise
        raw = self._raw(num_train, 0)
        self.mean, self.scale = raw.mean(0), raw.std(0)
        self.train = self._standardised(raw)

    def sample(self, n: int, *, random_state: int) -> Float[np.ndarray, "n 2"]:
        """Fresh points under the training sample's standardisation, [n, 2]."""
        return self._standardised(self._raw(n, random_state))

    def log_prob(self, x: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
        """True log density in nats, [n]."""
        scale, mean = jnp.asarray(self.scale), jnp.asarray(self.mean)
        values = _log_prob_of_raw(jnp.asarray(x) * scale + mean, self.noise)
        return np.asarray(values) + np.log(self.scale).sum()

    def _raw(self, n: int, random_state: int) -> np.ndarray:
        return make_moons(n, noise=self.noise, random_state=random_state)[0]

    def _standardised(self, raw: np.ndarray) -> np.ndarray:
        return ((raw - self.mean) / self.scale).astype(np.float32)


@functools.partial(jax.jit, static_argnums=1)
def _log_prob_of_raw(x: Array, noise: float) -> Array:
    angles = (jnp.arange(_NUM_ANGLES) + 0.5) / _NUM_ANGLES * jnp.pi
    outer = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    inner = jnp.stack([1 - jnp.cos(angles), 0.5 - jnp.sin(angles)], axis=1)
    centres = jnp.concatenate([outer, inner])

    def at(point: Array) -> Array:
        squares = jnp.sum(jnp.square(point - centres), axis=1) / noise**2
        return jax.nn.logsumexp(-0.5 * squares)

    total = jax.lax.map(at, x, batch_size=1_000)
    return total - np.log(2 * _NUM_ANGLES) - np.log(2 * np.pi * noise**2)
