"""The parameters of one-dimensional mixtures, and those of mixtures that stand for others."""

import operator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Int

Family = Literal["gaussian", "logistic"]
FAMILIES: tuple[str, ...] = ("gaussian", "logistic")

ANCHOR_WEIGHT = 0.01  # ε: weight of the fixed N(0, 1) component; see docs/design.md
_LEAST_LOG_SCALE = -30.0
# How far apart, in scales. With the variance that the component had, the density of Gaussian
# parts is off by the fourth power of it; that of logistic ones, by its square.
APART: dict[str, float] = {"gaussian": 1e-2, "logistic": 1e-3}


class MixtureParams(NamedTuple):
    """Parameters of mixtures of K components, each array [..., K].

    The weights are softmax(logits), the scales exp(log_scales); no other link function, so
    what a fit writes is read back to the last bit.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> params = rn.MixtureParams(*jnp.arange(12.0).reshape(3, 2, 2))
      >>> params.pack().shape
      (12,)
      >>> bool((rn.MixtureParams.unpack(params.pack(), 2).means == params.means).all())
      True
    """

    logits: Float[Array, "*b k"]
    means: Float[Array, "*b k"]
    log_scales: Float[Array, "*b k"]

    @jax.jit
    def pack(self) -> Float[Array, "*c p"]:
        """The parameters of m mixtures, [..., m, K] each, as one axis [..., 3·K·m].

        Order: kind of parameter, then component, then feature.
        """
        stacked = jnp.stack([jnp.swapaxes(p, -1, -2) for p in self], axis=-3)
        return stacked.reshape(*stacked.shape[:-3], -1)

    @classmethod
    def unpack(cls, flat: Float[Array, "*c p"], num_components: int) -> "MixtureParams":
        """Inverse of `pack`: [..., 3·K·m] to arrays [..., m, K]."""
        # With all axes reversed, as the map wants them: the transposes cancel there.
        width, *rows = flat.T.shape  # no -1 below: there may be no rows
        stacked = flat.T.reshape(
            3, num_components, width // (3 * num_components), *rows
        )
        return cls(*(p[0].T for p in jax.lax.split(stacked, (1, 1, 1))))

    @jax.jit
    def widest(self) -> Float[Array, "*b"]:
        """The largest log scale of each mixture, at least the anchor's 0."""
        return jnp.maximum(jnp.max(self.log_scales, axis=-1), 0)

    def limited(self, max_log_scale: Float[Array, " m"]) -> "MixtureParams":
        """The mixtures, [..., m, K], with no log scale above that of their feature, [m].

        Nor below −30, where a component is narrower than the numbers are apart: a training
        that diverges would end in 1 / exp(−99), which float32 does not have.
        """
        reversed_axes = self.log_scales.T
        limit = max_log_scale.reshape(-1, *[1] * (reversed_axes.ndim - 2))
        return self._replace(log_scales=limit_scales(reversed_axes, limit).T)


def limit_scales(log_scales: Array, limit: Array) -> Array:
    """Log scales between −30 and a limit, as `MixtureParams.limited` explains."""
    # Not `minimum`, whose derivative weighs ties. What lies at the limit, as the widest
    # does where a fit ends, may still become narrower.
    limited = jnp.where(log_scales <= limit, log_scales, limit)
    return jnp.where(limited > _LEAST_LOG_SCALE, limited, _LEAST_LOG_SCALE)


def checked_options(
    num_components: Any, family: str, anchor_weight: Any
) -> tuple[int, float]:
    """Components and weight of the anchor; raises ValueError for what makes no mixture."""
    num_components = whole("num_components", num_components, advice="Try 8.")
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {FAMILIES}; got {family!r}.")
    if not 0 <= anchor_weight < 1:
        raise ValueError(
            f"`anchor_weight` must be in [0, 1), 0 for no anchor; got {anchor_weight}."
        )
    return num_components, float(anchor_weight)


def whole(name: str, value: Any, least: int = 1, *, advice: str = "") -> int:
    """A size as Python has it, which may have come as a number of NumPy or JAX.

    Raises:
      ValueError: no whole number, a truth value, or fewer than `least`.
    """
    try:
        number = operator.index(None if isinstance(value, bool | np.bool_) else value)
    except TypeError:
        rule = f"`{name}` must be a whole number; got {value!r}. {advice}"
        raise ValueError(rule.rstrip()) from None
    if number < least:
        rule = f"`{name}` must be at least {least}; got {number}. {advice}"
        raise ValueError(rule.rstrip())
    return number


def identity_params(num_components: int, family: Family = "gaussian") -> MixtureParams:
    """A mixture close to N(0, 1) whose components differ, so that each can train.

    Means at halved normal quantiles, scales that make the variance 1. The map is
    the identity to a few hundredths: where an untrained or an unneeded layer starts.

    Args:
      num_components: K.
      family: "gaussian" or "logistic" components.

    Returns:
      Parameters, each [K], on the host.
    """
    levels = (np.arange(num_components) + 0.5) / num_components
    means = 0.5 * scipy.special.ndtri(levels)
    scale = np.sqrt(1 - np.mean(means**2))
    if family == "logistic":
        scale *= np.sqrt(3) / np.pi  # a logistic of scale s has variance (π s)²/3
    return MixtureParams(
        logits=np.zeros(num_components, np.float32),
        means=np.asarray(means, np.float32),
        log_scales=np.full(num_components, np.log(scale), np.float32),
    )


def parts_of(
    logits: Float[Array, "m k"], num_components: int
) -> tuple[Int[Array, "m n"], Float[Array, "m n"]]:
    """Of which component each of more is a part, and where among its parts, −1 to 1.

    A mixture is one of more components in one way only, if all have a weight that can train:
    components become several, whose weights add up to theirs. Equal ones would stay equal in
    training; they are set apart by so little that the density does not show it. All K come
    first, then parts of the heaviest ones in turn. What is no part is at 0.

    Args:
      logits: of the weights of K components, [m, K].
      num_components: of the result, n ≥ K.
    """
    m, k = logits.shape
    turn = np.arange(num_components - k)
    heaviest = jnp.argsort(-logits, axis=-1)
    source = jnp.concatenate(
        [jnp.broadcast_to(jnp.arange(k), (m, k)), heaviest[:, turn % k]], axis=-1
    )
    rank = np.concatenate([np.zeros(k), 1 + turn // k])
    others = _over_parts(jnp.ones(source.shape), source) - 1
    return source, jnp.where(others > 0, 2 * rank / jnp.maximum(others, 1) - 1, 0.0)


def split(
    params: MixtureParams, source: Int[Array, "m n"], place: Float[Array, "m n"]
) -> MixtureParams:
    """The mixtures whose components are parts of others, as `parts_of` says.

    Args:
      params: of K components, each [m, K].
      source: the component that each is a part of, [m, n].
      place: of its mean among the parts, in its scales, [m, n].

    Returns:
      Of n components, each [m, n].

    Example:
      >>> import jax.numpy as jnp
      >>> from rbig_nnx.math.params import MixtureParams, parts_of, split
      >>> one = MixtureParams(*jnp.zeros((3, 1, 1)))
      >>> source, place = parts_of(one.logits, 2)
      >>> print(split(one, source, 0.01 * place).means)
      [[-0.01  0.01]]
    """
    logits, means, log_scales = (
        jnp.take_along_axis(p, source, axis=-1) for p in params
    )
    parts = _over_parts(jnp.ones_like(logits), source)
    variance = _over_parts(place**2, source) / parts
    return MixtureParams(
        logits - jnp.log(parts),
        means + place * jnp.exp(log_scales),
        log_scales + 0.5 * jnp.log1p(-variance),
    )


def exact_identity(num_components: int) -> MixtureParams:
    """A Gaussian mixture that is N(0, 1), whose components can train apart, each [K]."""
    one = MixtureParams(*jnp.zeros((3, 1, 1)))
    source, place = parts_of(one.logits, num_components)
    return MixtureParams(*(p[0] for p in split(one, source, APART["gaussian"] * place)))


def _over_parts(values: Float[Array, "m n"], source: Int[Array, "m n"]) -> Array:
    """For each component the sum over all parts of the one that it is a part of, [m, n]."""
    equal = source[:, :, None] == source[:, None, :]
    return jnp.sum(jnp.where(equal, values[:, None, :], 0), axis=-1)
