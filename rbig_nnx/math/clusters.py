"""Mixtures of Gaussians with full covariances, one feature after the other.

The density of such a mixture is a product of one-dimensional mixtures, each of a feature given
those before it,

    p(x_i | x_1 … x_{i−1}) = Σ_k w_ki N(x_i; o_ki + Σ_{j<i} s_kij x_j, σ_ki²),

whose weights w_ki are the components' posterior ones. So z_i = Φ⁻¹(F(x_i | x_1 … x_{i−1})),
the map of Rosenblatt, Remarks on a multivariate transformation, 1952, is a coupling's map
whose conditioner is known, and it makes the mixture standard normal exactly.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rbig_nnx.math import mixture, root
from rbig_nnx.math.params import MixtureParams

# ε: weight of the fixed N(0, I). Log densities of rows in clusters are lower by it, once.
ANCHOR_WEIGHT = 0.001
_FARTHEST = 1e15  # scales from a mean, whose square is a number
# A component has at least e^−40 of the heaviest one's weight: e^−60, below which a mixture
# does not go, over a distance of 1e15 would be no number.
_LEAST_LOG_WEIGHT = -40.0


class ClusterParams(NamedTuple):
    """A mixture of K Gaussians on d features, by regressions on the features before.

    Attributes:
      logits: the weights are softmax(logits), [K].
      offsets: of the regressions, [K, d].
      slopes: [K, d, d]; what is not below the diagonal of the last two axes is not read.
      log_scales: of what the features before leave open, [K, d].
    """

    logits: Float[Array, " k"]
    offsets: Float[Array, "k d"]
    slopes: Float[Array, "k d d"]
    log_scales: Float[Array, "k d"]


@functools.partial(jax.jit, static_argnames="anchor_weight")
def gaussianize(
    x: Float[Array, "*b d"], params: ClusterParams, *, anchor_weight: float
) -> tuple[Float[Array, "*b d"], Float[Array, "*b"]]:
    """Maps rows of the mixture to standard normal ones.

    Args:
      x: rows, [..., d].
      params: of the mixture.
      anchor_weight: weight of one more component, the fixed N(0, I).

    Returns:
      z, [..., d], and log |det ∂z/∂x| in nats, [...].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math import clusters
      >>> slopes = jnp.zeros((1, 2, 2)).at[0, 1, 0].set(3.0)
      >>> zeros = jnp.zeros((1, 2))
      >>> params = clusters.ClusterParams(jnp.zeros(1), zeros, slopes, zeros)
      >>> z, log_det = clusters.gaussianize(jnp.array([2.0, 7.0]), params, anchor_weight=0.0)
      >>> print(z.round(3), log_det.round(3))
      [2. 1.] 0.0
    """
    x, params = _features_first(x, params, anchor_weight)
    logits, offsets, slopes, log_scales = params
    means = offsets + jnp.einsum("kij,j...->ki...", slopes, x, precision="highest")
    gained = _log_density(x, means, log_scales)
    # Summed, not a difference of sums, which far out has no digits left.
    before = jnp.cumsum(gained[:, :-1], axis=1)
    before = jnp.concatenate([jnp.zeros_like(gained[:, :1]), before], axis=1)
    logits = _floored(logits[:, None] + before)
    log_scales = jnp.broadcast_to(log_scales, means.shape)
    each = MixtureParams(logits.T, means.T, log_scales.T)
    z, log_slopes = mixture.gaussianize(x.T, each, anchor_weight=0.0)
    return z, jnp.sum(log_slopes, axis=-1)


@functools.partial(jax.jit, static_argnames="anchor_weight")
def quantiles(
    z: Float[Array, "*b d"], params: ClusterParams, *, anchor_weight: float
) -> Float[Array, "*b d"]:
    """Inverse of `gaussianize`, one feature after the other; arguments as there.

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math import clusters
      >>> slopes = jnp.zeros((1, 2, 2)).at[0, 1, 0].set(3.0)
      >>> zeros = jnp.zeros((1, 2))
      >>> params = clusters.ClusterParams(jnp.zeros(1), zeros, slopes, zeros)
      >>> print(clusters.quantiles(jnp.array([2.0, 1.0]), params, anchor_weight=0.0).round(3))
      [2. 7.]
    """
    z, params = _features_first(z, params, anchor_weight)

    def step(carry, at):
        x, logits = carry
        i, z, offsets, slopes, log_scales = at
        means = offsets + jnp.einsum("kj,j...->k...", slopes, x, precision="highest")
        scales = jnp.broadcast_to(log_scales, means.shape)
        each = MixtureParams(*(p.T for p in (_floored(logits), means, scales)))
        found = root.quantile(z.T, each, anchor_weight=0.0).T
        logits += _log_density(found, means, log_scales)
        return (x.at[i].set(found), logits), None

    # Like what is found, which varies over a mesh as the rows or the parameters do.
    start = jnp.zeros_like(z + sum(p.ravel()[0] for p in params))
    each = (jnp.swapaxes(p, 0, 1) for p in params[1:])
    features = jnp.arange(len(z)), z, *each
    (x, _), _ = jax.lax.scan(step, (start, params.logits + start[:1]), features)
    return x.T


def _features_first(
    rows: Array, params: ClusterParams, anchor_weight: float
) -> tuple[Array, ClusterParams]:
    """Rows [d, *b.T], and parameters with the anchor that broadcast against their axes."""
    logits, offsets, slopes, log_scales = _anchored(params, anchor_weight)
    ones = (1,) * (rows.ndim - 1)
    return rows.astype(jnp.result_type(rows, *params)).T, ClusterParams(
        logits.reshape(*logits.shape, *ones),
        offsets.reshape(*offsets.shape, *ones),
        jnp.tril(slopes, -1),
        log_scales.reshape(*log_scales.shape, *ones),
    )


def _log_density(x: Array, means: Array, log_scales: Array) -> Array:
    """Of each feature under each component, but for a constant."""
    distance = (x - means) * jnp.exp(-log_scales)
    distance = jnp.clip(distance, -_FARTHEST, _FARTHEST)
    return -0.5 * distance * distance - log_scales


def _floored(logits: Array) -> Array:
    # Weights do not change by it; and compiled twice, no logit may be equal to the largest,
    # whose derivative is then 0 / 0.
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=0, keepdims=True))
    return jnp.maximum(logits - largest, _LEAST_LOG_WEIGHT)


def _anchored(params: ClusterParams, anchor_weight: float) -> ClusterParams:
    """With N(0, I) as one more component."""
    logits = jax.nn.log_softmax(params.logits)
    if not anchor_weight:
        return params._replace(logits=logits)
    logits = jnp.append(
        logits + jnp.log1p(-anchor_weight), jnp.log(jnp.asarray(anchor_weight))
    ).astype(logits.dtype)
    rest = (jnp.concatenate([p, jnp.zeros_like(p[:1])]) for p in params[1:])
    return ClusterParams(logits, *rest)
