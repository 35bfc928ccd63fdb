"""A fit is never worse than where it starts: of any scale, with far rows and repeats."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.fit import em, sketch
from rbig_nnx.fit.starts import starts
from tests.properties import SEEDS, examples, holds
from tests.slow import slow

N = 500
KEY = jax.random.key(0)


def columns(seed):
    """Six columns of scales from 1e-6 to 1e6, some rows 1e4 standard deviations out, [N, 6]."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(N, 6)) * np.exp(random.normal(size=(1, 6)) * 0.5)
    x[:, 1] = np.where(random.random(N) < 0.3, 0.5, x[:, 1])
    x[:, 2] = random.poisson(3, N)
    x[:, 3] = random.standard_cauchy(N).clip(-1e4, 1e4)
    x[random.integers(N, size=2), 4] = 1e4
    x[:, 5] = np.where(x[:, 5] > 0, 3 + 1e-3 * x[:, 5], x[:, 5])
    return np.float32(x * 10 ** random.uniform(-6, 6, 6))


@functools.partial(jax.jit, static_argnames=("family", "anchor_weight"))
def before_and_after(begin, data, family, anchor_weight):
    """Mean log-likelihoods of all starts, [S, 6], and of the fit from them, [6]."""

    def score(mixture):
        return em.em_step(mixture, data, family, anchor_weight)[1]

    sets = jax.tree.map(lambda a: a[None], data)
    found = em.best_of(begin, sets, jnp.array([2, 10, 0]), family, anchor_weight)
    return jax.lax.map(score, begin), score(jax.tree.map(lambda p: p[0], found))


@pytest.mark.parametrize("num_components", [4, slow(128)])
@pytest.mark.parametrize("anchor_weight", [0.0, 0.01])
@pytest.mark.parametrize("family", ["gaussian", slow("logistic")])
@examples(5, 50)
def test_em_ends_no_lower_than_any_start(
    num_examples, family, anchor_weight, num_components
):
    @holds(num_examples, seed=SEEDS)
    def no_lower(seed):
        data = sketch.sketch(columns(seed), None, KEY)
        data = data._replace(masses=data.masses / N)
        data = em.Points(*data, min_scale=em.MIN_SCALE * sketch.spread(data))
        begin = starts(data, KEY, num_components, family)
        first, last = before_and_after(begin, data, family, anchor_weight)
        assert np.isfinite(last).all()
        assert np.all(last >= np.max(first, axis=0) - 1e-4)
