"""Mixture fits of all columns at once, beside the identity anchor.

Rows to bins (`sketch`), bins to several starts (`starts`), each run briefly by EM and the
best of each column to the end (`em`). One compiled program for any number of rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray

from rbig_nnx.fit import em
from rbig_nnx.fit.sketch import Sketch, check_columns, sketch, spread, with_prior
from rbig_nnx.fit.starts import as_starts, starts
from rbig_nnx.math.arrays import Numbers, host_floats
from rbig_nnx.math.params import ANCHOR_WEIGHT, MixtureParams, checked_options

_BRIEF_CYCLES = 10
_NUM_CYCLES = 60
_MORE_CYCLES = 30  # under a further prior, from the end under the one before


@functools.partial(jax.jit, static_argnums=(3, 4))
def _fit(data, starts, num_cycles, family, anchor_weight):
    mixtures = em.best_of(starts, data, num_cycles, family, anchor_weight)
    return MixtureParams(*(jnp.swapaxes(p, -1, -2) for p in mixtures))


def fit_sketch(
    data: Sketch,
    *,
    num_components: int,
    key: PRNGKeyArray,
    family: str = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
    prior_weight: ArrayLike = 0.0,
    base: tuple[np.ndarray, np.ndarray] | None = None,
    num_iterations: int = _NUM_CYCLES,
    start: MixtureParams | None = None,
) -> MixtureParams:
    """`fit_mixtures` from a sketch.

    Of several values of `prior_weight` in order, [p], the result is [p, d, K], and each fit
    goes on from the one before. The first goes on from `start`, a fit of much the same rows,
    if there is one: then it takes half of the time.
    """
    num_components, anchor_weight = checked_options(
        num_components, family, anchor_weight
    )
    sets = []
    for weight in np.atleast_1d(prior_weight):
        own = with_prior(data, weight, base)
        sets.append(em.Points(*own, min_scale=em.MIN_SCALE * spread(own)))
    more = min(_MORE_CYCLES, num_iterations)
    if start is None:
        begin = starts(sets[0], key, num_components, family)
        num_cycles = np.array([_BRIEF_CYCLES, num_iterations, more])
    else:
        begin = as_starts(start)
        num_cycles = np.array([0, more, more])
    params = _fit(
        em.Points(*(np.stack(a).astype(np.float32) for a in zip(*sets, strict=True))),
        begin,
        num_cycles,
        family,
        anchor_weight,
    )
    return params if np.ndim(prior_weight) else MixtureParams(*(p[0] for p in params))


def fit_mixtures(
    x: Numbers,
    *,
    num_components: int,
    key: PRNGKeyArray,
    weights: Numbers | None = None,
    family: str = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
    prior_weight: ArrayLike = 0.0,
    num_iterations: int = _NUM_CYCLES,
) -> MixtureParams:
    """Fits one mixture to every column by EM, all columns at once.

    Maximises the weighted likelihood of ε N(0, 1) + (1 − ε) Σ_k w_k f_k over the K free
    components. Several starts run briefly, the best of each column to the end, by
    accelerated EM of a fixed length, so equal shapes reuse one compiled program. Not within
    `jax.jit`: bins and starts are worked out on the host.

    Args:
      x: data, [n, d]; may be sharded over rows.
      num_components: K.
      key: random key; the same key gives the same bits.
      weights: nonnegative weights of the rows, [n]. None: equal.
      family: "gaussian" or "logistic" components.
      anchor_weight: ε in [0, 1), the weight of the fixed N(0, 1) component.
      prior_weight: shrinkage to the identity, as pseudo-observations from N(0, 1) of this
        many times the data's mass. inf: nothing else.
      num_iterations: accelerated EM cycles, three steps each, of the last run.

    Returns:
      MixtureParams, each [d, K].

    Example:
      >>> import jax
      >>> x = jax.random.normal(jax.random.key(0), (1000, 2))
      >>> fit_mixtures(x, num_components=3, key=jax.random.key(1)).means.shape
      (2, 3)
    """
    num_components, anchor_weight = checked_options(
        num_components, family, anchor_weight
    )
    return fit_sketch(
        sketch(x, weights, key),
        num_components=num_components,
        key=jax.random.fold_in(key, 1),
        family=family,
        anchor_weight=anchor_weight,
        prior_weight=prior_weight,
        num_iterations=num_iterations,
    )


def fit_mixtures_sklearn(
    x: Numbers,
    *,
    num_components: int,
    key: PRNGKeyArray,
    weights: Numbers | None = None,
    family: str = "gaussian",
    anchor_weight: float = ANCHOR_WEIGHT,
) -> MixtureParams:
    """The reference for `fit_mixtures`: scikit-learn's GaussianMixture, column by column.

    The anchor is ignored in the fit; arguments and result as `fit_mixtures`.
    """
    num_components, _ = checked_options(num_components, family, anchor_weight)
    if weights is not None:
        raise ValueError(
            "`weights` must be None with scikit-learn, whose GaussianMixture takes no "
            'weights, got an array. Use backend="jax".'
        )
    if family != "gaussian":
        raise ValueError(
            '`family` must be "gaussian" with scikit-learn, which fits no other, got '
            f'{family!r}. Use backend="jax".'
        )
    from sklearn.mixture import GaussianMixture  # the only user of scikit-learn

    columns = host_floats(x, "x").astype(np.float64)
    check_columns(columns, None)
    seed = int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
    fits = [
        GaussianMixture(
            num_components,
            tol=1e-6,
            max_iter=500,
            reg_covar=em.MIN_SCALE**2,
            random_state=seed,
        ).fit(columns[:, [j]])
        for j in range(columns.shape[1])
    ]

    def stacked(values):
        return jnp.asarray(np.stack(values), jnp.float32)

    return MixtureParams(
        stacked([np.log(np.maximum(f.weights_, em.MIN_WEIGHT)) for f in fits]),
        stacked([f.means_[:, 0] for f in fits]),
        stacked([0.5 * np.log(f.covariances_[:, 0, 0]) for f in fits]),
    )
