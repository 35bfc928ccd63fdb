"""The data's location, scale and linear dependence: fixed layers whose log det counts."""

from typing import Any

import distrax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rbig_nnx.bijectors import Linear
from rbig_nnx.math.arrays import at_least_float32
from rbig_nnx.math.params import whole
from rbig_nnx.nn.base.layer import Frozen, Layer

_BOUND = 1e18  # standard deviations


class Bounded(distrax.Bijector):
    """The identity up to ±1e18; what lies beyond, infinity too, has no density.

    There the squares in the layers that follow would overflow, and make NaN of it.
    """

    def __init__(self):
        super().__init__(event_ndims_in=0)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        log_det = jnp.where(jnp.abs(x) > _BOUND, -jnp.inf, jnp.zeros_like(x))
        return jnp.clip(x, -_BOUND, _BOUND), log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return y, jnp.zeros_like(y)


class Standardize(Layer):
    """y = (x − mean) / exp(log_scale), fixed; the identity until `warm_start` fits it.

    Args:
      num_features: d.
      param_dtype: dtype of the two vectors, at least float32.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.Standardize(2)
      >>> print(layer.bijector().forward(jnp.array([1.0, 2.0])))
      [1. 2.]
    """

    def __init__(
        self,
        num_features: int,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        self.num_features = num_features = whole("num_features", num_features)
        zeros = np.zeros(num_features, at_least_float32(param_dtype))
        self.mean, self.log_scale = Frozen(jnp.array(zeros)), Frozen(jnp.array(zeros))

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The layer as a bijector, data to latent."""
        del context
        # Two maps, not one with shift −mean/scale, which cancels where mean ≫ scale.
        centre = distrax.ScalarAffine(shift=-self.mean[...])
        rescale = distrax.ScalarAffine(
            shift=jnp.zeros_like(self.mean[...]), log_scale=-self.log_scale[...]
        )
        return distrax.Block(distrax.Chain([Bounded(), rescale, centre]), 1)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}


class Whiten(Layer):
    """y = x W with a fixed symmetric W; the identity until `warm_start` fits it.

    Fitted, W = C^(−1/2), the whitening that moves the features least (Kessy, Lewin and
    Strimmer, Optimal whitening and decorrelation, 2018): what follows finds uncorrelated
    features, each still mostly itself. Rotations alone cannot unmix sources that were mixed
    by anything but a rotation; behind this layer they can. Place it after `Standardize`, and
    `TailTransform` if there is one.

    Args:
      num_features: d.
      param_dtype: dtype of the matrix, at least float32.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.Whiten(2)
      >>> layer.set_covariance(jnp.array([[4.0, 0.0], [0.0, 9.0]]))
      >>> print(layer.bijector().forward(jnp.array([2.0, 3.0])))
      [1. 1.]
    """

    def __init__(
        self,
        num_features: int,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        self.num_features = num_features = whole("num_features", num_features)
        dtype = at_least_float32(param_dtype)
        identity = np.eye(num_features, dtype=dtype)
        self.matrix, self.inverse = (
            Frozen(jnp.array(identity)),
            Frozen(jnp.array(identity)),
        )
        self.log_det = Frozen(jnp.zeros((), dtype))

    def set_covariance(self, covariance: Float[Array, "d d"]) -> None:
        """Writes the whitening of rows of this covariance, along `principal_axes`.

        Raises:
          ValueError: for what is no covariance of the features.
        """
        _check_covariance(covariance, self.num_features)
        variances, axes = principal_axes(covariance)
        scales = np.sqrt(variances)
        for variable, value in (
            (self.matrix, axes / scales @ axes.T),
            (self.inverse, axes * scales @ axes.T),
            (self.log_det, -np.sum(np.log(scales))),
        ):
            variable[...] = jnp.asarray(value, variable.dtype)

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The layer as a bijector, data to latent."""
        del context
        return Linear(self.matrix[...], self.inverse[...], self.log_det[...])

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}


def _check_covariance(covariance: Any, num_features: int) -> None:
    c = np.asarray(covariance, np.float64)
    shape = (num_features, num_features)
    if c.shape != shape:
        raise ValueError(f"`covariance` must be of shape {shape}; got {c.shape}.")
    largest = np.abs(c).max()
    if not np.isfinite(largest) or np.abs(c - c.T).max() > 1e-4 * largest:
        raise ValueError(
            "`covariance` must be finite and symmetric; got another matrix."
        )


def principal_axes(covariance: Float[Array, "d d"]) -> tuple[np.ndarray, np.ndarray]:
    """Variances, ascending, and axes, float64, [d] and [d, d] (columns).

    Axes of less than a millionth of the largest variance count as so wide: their numbers
    are rounding of the others'. Of rows that are all alike, as wide as 1.

    Raises:
      ValueError: for an axis of negative variance, but for rounding.
    """
    variances, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
    if variances[0] < -1e-4 * np.abs(variances).max():
        raise ValueError(
            "`covariance` must have no negative variance; got"
            f" {variances[0]:.3g} along an axis."
        )
    return np.maximum(variances, 1e-6 * variances[-1] or 1.0), axes
