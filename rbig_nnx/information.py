"""Information measures of data under fitted densities, in nats.

Each is an average over given rows, so use rows that took no part in the fit: on fitted rows
entropies come out too small. A density is anything with `log_prob(x)`, [n, d] to [n]; the
errors of the estimates are those of the densities, which `total_correlation` of a Gaussian
sample or another known case shows.
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from rbig_nnx.fit import gmm
from rbig_nnx.math import mixture
from rbig_nnx.math.probit import LOG_SQRT_2PI

_NUM_COMPONENTS = 8  # of the marginal mixtures


@runtime_checkable
class Density(Protocol):
    """Anything with a log density in nats."""

    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log p(x) in nats, [n]."""
        ...


def entropy(density: Density, x: Float[Array, "n d"]) -> Float[Array, ""]:
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
    return -jnp.mean(density.log_prob(x))


def negentropy(density: Density, x: Float[Array, "n d"]) -> Float[Array, ""]:
    """J(X) = H(N(μ, Σ)) − H(X), Σ the full covariance of x: 0 only for a Gaussian.

    Comon, Independent component analysis, a new concept?, 1994. Arguments as `entropy`.
    """
    d = x.shape[1]
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False))
    gaussian = 0.5 * jnp.linalg.slogdet(covariance)[1] + d * (LOG_SQRT_2PI + 0.5)
    return gaussian - entropy(density, x)


def total_correlation(
    density: Density, x: Float[Array, "n d"], *, key: Array
) -> Float[Array, ""]:
    """TC(X) = Σ_j H(X_j) − H(X); the marginals are mixtures fitted to x's columns.

    Not within `jax.jit`, since it fits.

    Watanabe, Information theoretical analysis of multivariate correlation, 1960.

    Args:
      density: fitted to X.
      x: held-out rows, [n, d].
      key: random key of the marginal fits.

    Returns:
      Nats, 0 for independent columns.
    """
    scale = jnp.std(x, axis=0)
    standard = (x - jnp.mean(x, axis=0)) / scale
    marginals = gmm.fit_mixtures(standard, num_components=_NUM_COMPONENTS, key=key)
    log_p = mixture.log_pdf(standard, marginals) - jnp.log(scale)
    return -jnp.sum(jnp.mean(log_p, axis=0)) - entropy(density, x)


def mutual_information(
    joint: Density,
    density_x: Density,
    density_y: Density,
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
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
    """
    both = jnp.concatenate([x, y], axis=1)
    return entropy(density_x, x) + entropy(density_y, y) - entropy(joint, both)


def kl_divergence(
    density_p: Density, density_q: Density, x: Float[Array, "n d"]
) -> Float[Array, ""]:
    """KL(p ‖ q) = E_p log p(X)/q(X), by the mean over rows of x ~ p.

    Kullback and Leibler, On information and sufficiency, 1951.

    Args:
      density_p: the density x comes from.
      density_q: the other density.
      x: rows drawn from p, [n, d].

    Returns:
      Nats.
    """
    return jnp.mean(density_p.log_prob(x) - density_q.log_prob(x))
