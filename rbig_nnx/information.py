"""Information measures of data under fitted densities, in nats.

Each is an average over given rows, so use rows that took no part in the fit: on fitted rows
entropies come out too small. A density is anything with `log_prob(x)`, [n, d] to [n].

With `standard_error=True` a measure comes with that of its average, an `Estimate`. The
densities' own errors come on top: an entropy is too large by KL(X ‖ density), whatever the
number of rows, which `total_correlation` of a Gaussian sample or another known case shows.

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
from typing import NamedTuple, Protocol, runtime_checkable

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


class Estimate(NamedTuple):
    """A mean over rows, and its standard error, nats."""

    mean: Float[Array, ""]
    standard_error: Float[Array, ""]


Measure = Float[Array, ""] | Estimate


def _measured(terms: Float[Array, " n"], *, standard_error: bool) -> Measure:
    """The mean of the rows' terms, and its error where that is wanted."""
    mean = jnp.mean(terms)
    if not standard_error:
        return mean
    return Estimate(mean, jnp.std(terms, ddof=1) / jnp.sqrt(len(terms)))


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


def entropy(density: Density, x: Numbers, *, standard_error: bool = False) -> Measure:
    """H(X) = −E log p(X), by the mean over rows of x.

    Args:
      density: fitted to X.
      x: held-out rows, [n, d].
      standard_error: return an `Estimate`, with the error of the mean.

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
    return _measured(-density.log_prob(_columns(x)), standard_error=standard_error)


def negentropy(
    density: Density, x: Numbers, *, standard_error: bool = False
) -> Measure:
    """J(X) = H(N(μ, Σ)) − H(X), Σ the full covariance of x: 0 only for a Gaussian.

    Comon, Independent component analysis, a new concept?, 1994. Arguments as `entropy`; the
    error counts that of the covariance.

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
    centred = x - jnp.mean(x, axis=0)
    squares = jnp.sum(centred * jnp.linalg.solve(covariance, centred.T).T, axis=1)
    # What a row adds to ½ log det Σ, beside that itself, is ½ (its square − d).
    squares = 0.5 * (squares - jnp.mean(squares))
    gaussian = 0.5 * jnp.linalg.slogdet(covariance)[1] + d * (LOG_SQRT_2PI + 0.5)
    return _measured(
        gaussian + squares + density.log_prob(x), standard_error=standard_error
    )


def total_correlation(
    density: Density, x: Numbers, *, key: Array, standard_error: bool = False
) -> Measure:
    """TC(X) = Σ_j H(X_j) − H(X); the marginals are mixtures fitted to x's columns.

    Not within `jax.jit`, since it fits.

    Watanabe, Information theoretical analysis of multivariate correlation, 1960.

    Args:
      density: fitted to X.
      x: held-out rows, [n, d].
      key: random key of the marginal fits.
      standard_error: return an `Estimate`.

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
    return _measured(
        density.log_prob(x) - jnp.sum(log_p, axis=1), standard_error=standard_error
    )


def mutual_information(
    joint: Density,
    density_x: Density,
    density_y: Density,
    x: Numbers,
    y: Numbers,
    *,
    standard_error: bool = False,
) -> Measure:
    """I(X; Y) = H(X) + H(Y) − H(X, Y) = E log p(x, y) / (p(x) p(y)).

    Args:
      joint: fitted to the columns of x and then y.
      density_x: fitted to X.
      density_y: fitted to Y.
      x: held-out rows, [n, d].
      y: the same rows' other columns, [n, e].
      standard_error: return an `Estimate`.

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
    apart = density_x.log_prob(x) + density_y.log_prob(y)
    return _measured(joint.log_prob(both) - apart, standard_error=standard_error)


def conditional_mutual_information(
    joint: Density,
    density_xz: Density,
    density_yz: Density,
    density_z: Density,
    x: Numbers,
    y: Numbers,
    z: Numbers,
    *,
    standard_error: bool = False,
) -> Measure:
    """I(X; Y | Z) = E log p(x, y, z) p(z) / (p(x, z) p(y, z)).

    Wyner, A definition of conditional mutual information for arbitrary ensembles, 1978.

    Args:
      joint: fitted to the columns of x, then y, then z.
      density_xz: fitted to those of x and then z.
      density_yz: fitted to those of y and then z.
      density_z: fitted to Z.
      x: held-out rows, [n, d].
      y: the same rows' other columns, [n, e].
      z: and those that are given, [n, c].
      standard_error: return an `Estimate`.

    Returns:
      Nats, 0 where x and y are independent once z is known.

    Example:
      >>> import distrax
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from rbig_nnx import information
      >>> known = [distrax.MultivariateNormalDiag(jnp.zeros(d), jnp.ones(d)) for d in (3, 2, 1)]
      >>> columns = known[0].sample(seed=jax.random.key(0), sample_shape=100)
      >>> x, y, z = jnp.split(columns, 3, axis=1)
      >>> found = information.conditional_mutual_information(
      ...     known[0], known[1], known[1], known[2], x, y, z)
      >>> print(abs(found) < 1e-4)
      True
    """
    x, y, z = _columns(x), _columns(y, "y"), _columns(z, "z")

    def log_prob(density: Density, *parts: Array) -> Array:
        return density.log_prob(jnp.concatenate(parts, axis=1))

    together = log_prob(joint, x, y, z) + density_z.log_prob(z)
    apart = log_prob(density_xz, x, z) + log_prob(density_yz, y, z)
    return _measured(together - apart, standard_error=standard_error)


def kl_divergence(
    density_p: Density,
    density_q: Density,
    x: Numbers,
    *,
    standard_error: bool = False,
) -> Measure:
    """KL(p ‖ q) = E_p log p(X)/q(X), by the mean over rows of x ~ p.

    Kullback and Leibler, On information and sufficiency, 1951.

    Args:
      density_p: the density x comes from.
      density_q: the other density.
      x: rows drawn from p, [n, d].
      standard_error: return an `Estimate`.

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
    return _measured(
        density_p.log_prob(x) - density_q.log_prob(x), standard_error=standard_error
    )
