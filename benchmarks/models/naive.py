"""The same architecture written the naive way, in FlowJAX and Equinox.

What a first implementation of a Gaussianization flow looks like: the CDF clipped away from
0 and 1, `norm.cdf` and `ndtri`, derivatives by autodiff, bisection for the inverse, blocks in
an unrolled chain, and the warm start's mixtures fitted by scikit-learn in a loop.
"""

import equinox as eqx
import flowjax.bijections as bij
import jax
import jax.numpy as jnp
import numpy as np
import paramax
from flowjax.distributions import Normal, Transformed
from jax.scipy.special import logsumexp, ndtri
from jax.scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

CLIP = 1e-6
_BISECTIONS = 50


class MixtureCDF(bij.AbstractBijection):
    """z = Φ⁻¹(clip(F(x))) for one feature."""

    shape: tuple = ()
    cond_shape: tuple | None = None
    logits: jax.Array
    means: jax.Array
    log_scales: jax.Array

    def __init__(self, num_components):
        self.logits = jnp.zeros(num_components)
        self.means = jnp.linspace(-1.5, 1.5, num_components)
        self.log_scales = jnp.full(num_components, -0.5)

    def _cdf(self, x):
        weights = jax.nn.softmax(self.logits)
        cdf = jnp.sum(weights * norm.cdf(x, self.means, jnp.exp(self.log_scales)))
        return jnp.clip(cdf, CLIP, 1 - CLIP)

    def transform_and_log_det(self, x, condition=None):
        """z, and log f(x) − log φ(z)."""
        del condition
        z = ndtri(self._cdf(x))
        terms = norm.logpdf(x, self.means, jnp.exp(self.log_scales))
        log_pdf = logsumexp(jax.nn.log_softmax(self.logits) + terms)
        return z, log_pdf - norm.logpdf(z)

    def inverse_and_log_det(self, y, condition=None):
        """Bisection between bounds that any clipped value respects."""
        del condition
        target = norm.cdf(y)
        reach = 10 * jnp.exp(jnp.max(self.log_scales))
        low, high = jnp.min(self.means) - reach, jnp.max(self.means) + reach

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            below = self._cdf(middle) < target
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
        x = 0.5 * (low + high)
        return x, -self.transform_and_log_det(x)[1]


class Rotation(bij.AbstractBijection):
    """x @ Q, for a fixed orthogonal Q."""

    matrix: jax.Array
    shape: tuple
    cond_shape: tuple | None = None

    def __init__(self, matrix):
        self.matrix = paramax.non_trainable(jnp.asarray(matrix, jnp.float32))
        self.shape = (len(matrix),)

    def transform_and_log_det(self, x, condition=None):
        """A rotation changes no volume."""
        del condition
        return x @ paramax.unwrap(self.matrix), jnp.zeros(())

    def inverse_and_log_det(self, y, condition=None):
        """The transpose."""
        del condition
        return y @ paramax.unwrap(self.matrix).T, jnp.zeros(())


def flow(key, num_features, num_blocks, *, num_components=8, width=64, rotations=None):
    """A distribution: rotation, coupling, complementary coupling, `num_blocks` times.

    Data to latent is the bijections' forward direction, as in this library.
    """
    layers = []
    for i in range(num_blocks):
        keys = jax.random.split(jax.random.fold_in(key, i), 3)
        if rotations is None:
            q = np.linalg.qr(
                np.asarray(jax.random.normal(keys[0], (num_features,) * 2))
            )[0]
        else:
            q = rotations[i]
        flip = bij.Permute(jnp.arange(num_features)[::-1])
        layers.append(Rotation(q))
        for coupling_key in keys[1:]:
            layers.append(
                bij.Coupling(
                    coupling_key,
                    transformer=MixtureCDF(num_components),
                    untransformed_dim=num_features // 2,
                    dim=num_features,
                    nn_width=width,
                    nn_depth=2,
                )
            )
            layers.append(flip)
    base = Normal(jnp.zeros(num_features))
    return Transformed(base, bij.Invert(bij.Chain(layers)))


def fit_blocks(x, num_blocks, num_components, seed=0, **options):
    """The warm start of the naive way: PCA and one scikit-learn fit a feature and block.

    Args:
      x: rows, [n, d].
      num_blocks: rotations, each followed by one mixture a feature.
      num_components: of a mixture.
      seed: of scikit-learn's starts.
      **options: of `GaussianMixture`, its defaults otherwise.

    Returns:
      The mean held-in log density in nats of the diagonal flow that was fitted.
    """
    x = (x - x.mean(0)) / x.std(0)
    log_det = np.zeros(len(x))
    for _ in range(num_blocks):
        x = PCA().fit(x).transform(x)
        columns = []
        for column in x.T:
            mixture = GaussianMixture(num_components, random_state=seed, **options)
            mixture.fit(column[:, None])
            scales = np.sqrt(mixture.covariances_[:, 0, 0])
            cdf = norm.cdf(column[:, None], mixture.means_[:, 0], scales)
            cdf = np.clip(np.asarray(cdf) @ mixture.weights_, CLIP, 1 - CLIP)
            z = np.asarray(ndtri(cdf))
            log_det += mixture.score_samples(column[:, None]) - norm.logpdf(z)
            columns.append(z)
        x = np.stack(columns, axis=1)
    return float(np.mean(log_det + np.asarray(norm.logpdf(x)).sum(1)))


def split(distribution):
    """Trainable arrays, and a function that puts them back."""
    params, static = eqx.partition(
        distribution,
        eqx.is_inexact_array,
        is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
    )

    def join(params):
        return paramax.unwrap(eqx.combine(params, static))

    return params, join
