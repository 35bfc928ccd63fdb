"""One-dimensional mixtures and the map that Gaussianizes them, exact in both tails.

A mixture has the CDF

    F(x) = ε Φ(x) + (1 − ε) Σ_k w_k C((x − μ_k) / σ_k),   w = softmax(logits),

with C the standard normal or logistic CDF. The first term is the *identity anchor*: it is
fixed, and beyond the outermost component it alone remains, F → Φ, so the map
z = Φ⁻¹(F(x)) tends to the identity and the tails of stacked layers do not compound.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rbig_nnx.math import components
from rbig_nnx.math.params import ANCHOR_WEIGHT, Family, MixtureParams


def components_first(x: Array, params: MixtureParams) -> tuple[Array, ...]:
    """Broadcasts to x's batch and reverses all axes: x [*b].T, parameters [K, *b.T].

    All of one dtype: a reduction takes no others.
    """
    ndim = max(x.ndim, params.means.ndim - 1)
    dtype = jnp.result_type(x, *params)

    def widen(a: Array, ndim: int) -> Array:
        return a.reshape((1,) * (ndim - a.ndim) + a.shape).astype(dtype).T

    return (widen(x, ndim), *(widen(p, ndim + 1) for p in params))


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def gaussianize(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
    """Maps x to z = Φ⁻¹(F(x)), F the CDF of a mixture. Strictly increasing, exact tails.

    Chen and Gopinath, Gaussianization, 2000. z comes from the smaller of the two tails by
    a log-space probit, without clipping; derivatives are by formula.

    Args:
      x: points, [...].
      params: mixture parameters, each [..., K], leading axes broadcasting against x.
      family: "gaussian" or "logistic" components.
      anchor_weight: ε in [0, 1), the weight of the fixed N(0, 1) component.

    Returns:
      z, [...], and log dz/dx = log f(x) − log φ(z) in nats, [...].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.mixture import gaussianize
      >>> from rbig_nnx.math.params import MixtureParams
      >>> normal = MixtureParams(*jnp.zeros((3, 1)))
      >>> x = jnp.array([-40.0, 0.5, 12.0])
      >>> z, log_det = gaussianize(x, normal)
      >>> print(bool(jnp.allclose(z, x, rtol=1e-6)))
      True
    """
    first = components_first(x, params)
    z, log_det = components.gaussianize(*first, family, anchor_weight)
    return z.T, log_det.T


def _mixed(x, params, family, anchor_weight) -> components.Mixed:
    x, *first = components_first(x, params)
    mixtures = components.prepare(*first)
    terms = components.terms_at(x, mixtures, family, anchor_weight)
    return components.mix(x, mixtures, terms, family, anchor_weight)


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_pdf(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log f(x) of the mixture in nats, [...]; arguments as `gaussianize`."""
    at = _mixed(x, params, family, anchor_weight)
    return (at.pdf.value - jnp.log(at.norm)).T


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_cdf(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log F(x) of the mixture, [...]; exact in the lower tail. Arguments as `gaussianize`."""
    at = _mixed(x, params, family, anchor_weight)
    return (at.lower.value - jnp.log(at.norm)).T


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def log_survival(
    x: Float[Array, "*b"],
    params: MixtureParams,
    *,
    family: Family = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> Float[Array, "*c"]:
    """log(1 − F(x)), [...]; exact in the upper tail. Arguments as `gaussianize`."""
    at = _mixed(x, params, family, anchor_weight)
    return (at.upper.value - jnp.log(at.norm)).T
