"""Information measures of data under fitted densities, in nats.

Each is an average over given rows, so use rows that took no part in the fit: on fitted rows
entropies come out too small. A density is anything with `log_prob(x)`, [n, d] to [n]; the
errors of the estimates are those of the densities, which `total_correlation` of a Gaussian
sample or another known case shows.

All of them are of continuous columns. Of one that repeats its values, such as integers or
what is rounded, a density has needles there and no entropy: a warning names it.

Example:
  >>> import distrax
  >>> import jax
  >>> import jax.numpy as jnp
  >>> from rbig_nnx import information
  >>> known = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
  >>> x = known.sample(seed=jax.random.key(0), sample_shape=4_000)
  >>> print(abs(information.entropy(known, x) - known.entropy()) < 0.05)
  True
"""

import warnings
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rbig_nnx.fit import gmm
from rbig_nnx.fit.sample import sample_rows
from rbig_nnx.math import mixture
from rbig_nnx.math.arrays import Numbers, float_array
from rbig_nnx.math.probit import LOG_SQRT_2PI

_NUM_COMPONENTS = 8  # of the marginal mixtures
_TIED_ROWS = 4_096  # that are looked at for ties
_OFTEN = 0.01  # share of the rows that is no coincidence for one value, and
_TIED = 0.2  # the share that such values have together, which is too much


@runtime_checkable
class Density(Protocol):
    """Anything with a log density in nats."""

    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log p(x) in nats, [n]."""
        ...


def _columns(x: Numbers, name: str = "x") -> Float[Array, "n d"]:
    """The rows as floats, with a warning of columns with many ties."""
    x = float_array(x, name, spreads=lambda: 0.0)
    if isinstance(x, jax.core.Tracer):
        return x
    rows = sample_rows(x, None, jax.random.key(0), _TIED_ROWS)
    tied = [j for j, column in enumerate(rows.T) if _share_of_ties(column) > _TIED]
    if tied:
        warnings.warn(
            f"`{name}` has discrete columns, {tied} (from 0): few values, such as integers,"
            " repeat. A density has needles there, and what is computed from it is no"
            " entropy of theirs. Blur them by their step, x + step * uniform(-1/2, 1/2),"
            " before fitting and here, or use the command `rbig-nnx information`.",
            stacklevel=3,
        )
    return x


def _share_of_ties(column: np.ndarray) -> float:
    """Of the rows whose value many other rows have too."""
    _, counts = np.unique(column, return_counts=True)
    often = counts[counts >= max(_OFTEN * len(column), 3)]
    return often.sum() / max(len(column), 1)


def entropy(density: Density, x: Numbers) -> Float[Array, ""]:
    """H(X) = −E log p(X), by the mean over rows of x.

    Args:
      density: fitted to X.
      x: held-out rows, [n, d].

    Returns:
      Nats; the excess over the true entropy is KL(X ‖ density) in expectation.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> x = jax.random.normal(jax.random.key(0), (4000, 2))
      >>> flow, _ = rn.warm_start(
      ...     rn.diagonal_flow(2, 1, rngs=nnx.Rngs(0)), x[:2000], key=jax.random.key(1))
      >>> print(abs(rn.information.entropy(flow, x[2000:]) - 2.838) < 0.1)
      True
    """
    return _entropy(density, _columns(x))


def _entropy(density: Density, x: Array) -> Array:
    return -jnp.mean(density.log_prob(x))


def negentropy(density: Density, x: Numbers) -> Float[Array, ""]:
    """J(X) = H(N(μ, Σ)) − H(X), Σ the full covariance of x: 0 only for a Gaussian.

    Comon, Independent component analysis, a new concept?, 1994. Arguments as `entropy`.

    Example:
      >>> import distrax
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from rbig_nnx import information
      >>> known = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
      >>> x = known.sample(seed=jax.random.key(0), sample_shape=4_000)
      >>> print(abs(information.negentropy(known, x)) < 0.01)
      True
    """
    x = _columns(x)
    d = x.shape[1]
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False))
    gaussian = 0.5 * jnp.linalg.slogdet(covariance)[1] + d * (LOG_SQRT_2PI + 0.5)
    return gaussian - _entropy(density, x)


def total_correlation(density: Density, x: Numbers, *, key: Array) -> Float[Array, ""]:
    """TC(X) = Σ_j H(X_j) − H(X); the marginals are mixtures fitted to x's columns.

    Not within `jax.jit`, since it fits.

    Watanabe, Information theoretical analysis of multivariate correlation, 1960.

    Args:
      density: fitted to X.
      x: held-out rows, [n, d].
      key: random key of the marginal fits.

    Returns:
      Nats, 0 for independent columns.

    Example:
      >>> import distrax
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from rbig_nnx import information
      >>> known = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
      >>> x = known.sample(seed=jax.random.key(0), sample_shape=4_000)
      >>> print(abs(information.total_correlation(known, x, key=jax.random.key(1))) < 0.02)
      True
    """
    x = _columns(x)
    scale = jnp.std(x, axis=0)
    standard = (x - jnp.mean(x, axis=0)) / scale
    marginals = gmm.fit_mixtures(standard, num_components=_NUM_COMPONENTS, key=key)
    log_p = mixture.log_pdf(standard, marginals) - jnp.log(scale)
    return -jnp.sum(jnp.mean(log_p, axis=0)) - _entropy(density, x)


def mutual_information(
    joint: Density,
    density_x: Density,
    density_y: Density,
    x: Numbers,
    y: Numbers,
) -> Float[Array, ""]:
    """I(X; Y) = H(X) + H(Y) − H(X, Y) = E log p(x, y) / (p(x) p(y)).

    Args:
      joint: fitted to the columns of x and then y.
      density_x: fitted to X.
      density_y: fitted to Y.
      x: held-out rows, [n, d].
      y: the same rows' other columns, [n, e].

    Returns:
      Nats.

    Example:
      >>> import distrax
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from rbig_nnx import information
      >>> known = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
      >>> x = known.sample(seed=jax.random.key(0), sample_shape=4_000)
      >>> one = distrax.MultivariateNormalDiag(jnp.zeros(1), jnp.ones(1))
      >>> print(abs(information.mutual_information(known, one, one, x[:, :1], x[:, 1:])) < 1e-4)
      True
    """
    x, y = _columns(x), _columns(y, "y")
    both = jnp.concatenate([x, y], axis=1)
    return _entropy(density_x, x) + _entropy(density_y, y) - _entropy(joint, both)


def kl_divergence(
    density_p: Density, density_q: Density, x: Numbers
) -> Float[Array, ""]:
    """KL(p ‖ q) = E_p log p(X)/q(X), by the mean over rows of x ~ p.

    Kullback and Leibler, On information and sufficiency, 1951.

    Args:
      density_p: the density x comes from.
      density_q: the other density.
      x: rows drawn from p, [n, d].

    Returns:
      Nats.

    Example:
      >>> import distrax
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from rbig_nnx import information
      >>> known = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
      >>> x = known.sample(seed=jax.random.key(0), sample_shape=4_000)
      >>> other = distrax.MultivariateNormalDiag(jnp.ones(2), jnp.ones(2))
      >>> print(abs(information.kl_divergence(known, other, x) - 1) < 0.05)  # |mean|² / 2
      True
    """
    x = _columns(x)
    return jnp.mean(density_p.log_prob(x) - density_q.log_prob(x))
