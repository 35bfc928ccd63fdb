import numpy as np
import pytest
import scipy.stats

from trainers.command.steps.baselines import Mixture
from trainers.estimators.encoded import EncodedTable
from trainers.tables.door import frame_of
from trainers.tables.schema import Schema


def encoded(rows, context=None):
    return EncodedTable(rows=rows, log_det=np.full(len(rows), 0.5), context=context)


def test_one_component_is_the_gaussian_with_what_the_encoding_adds():
    x = np.random.default_rng(0).normal(size=(500, 3)) @ np.diag([0.5, 1.0, 2.0])
    mixture = Mixture.fit(encoded(x), encoded(x), seed=0, sizes=(1,))
    normal = scipy.stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True))
    np.testing.assert_allclose(
        mixture.log_prob(encoded(x)), normal.logpdf(x) + 0.5, atol=1e-4
    )


def test_collapsed_components_are_left_out_and_validation_chooses():
    random = np.random.default_rng(0)
    x = random.normal(size=(320, 2)) + 6 * random.integers(0, 2, size=(320, 1))
    x = np.concatenate([x, x.sum(1, keepdims=True)], axis=1)  # a plane
    told = []
    mixture = Mixture.fit(
        encoded(x), encoded(x[::3]), seed=0, fitted=lambda *one: told.append(one)
    )
    assert mixture.num_components >= 2
    assert np.isfinite(mixture.log_prob(encoded(x))).all()
    assert told[-1] == (12, "32 components")
    few = random.normal(size=(9, 12))
    assert Mixture.fit(encoded(few), encoded(few), seed=0).num_components == 1


def test_given_a_context_it_is_the_regression():
    random = np.random.default_rng(0)
    context = random.normal(size=(2_000, 1))
    x = 2 * context + 0.5 * random.normal(size=(2_000, 1))
    table = encoded(x, context)
    mixture = Mixture.fit(table, table, seed=0, sizes=(1,))
    right = scipy.stats.norm(2 * context, 0.5).logpdf(x)[:, 0] + 0.5
    assert np.abs(mixture.log_prob(table) - right).mean() < 0.03


def test_discrete_columns_have_masses():
    x = np.random.default_rng(0).integers(0, 2, size=(400, 2))
    frame = frame_of(x)
    schema = Schema.of(frame)
    table = EncodedTable.of(frame, schema, seed=0)
    mixture = Mixture.fit(table, table, seed=0, sizes=(1,))
    cells = frame_of(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    mass = np.exp(mixture.log_prob_of(cells, schema, num_draws=64))
    assert mass.sum() == pytest.approx(1, abs=0.03)
    assert mass == pytest.approx(np.full(4, 0.25), abs=0.05)
