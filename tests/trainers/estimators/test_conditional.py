"""Densities given a context: to latent space and back, rows without weight, saves beside."""

import functools

import numpy as np
import pandas as pd
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.trainers.checkpoints.test_steady import Others
from tests.trainers.estimators.small import SMALL
from trainers import FlowDensity, Schema
from trainers.estimators.table_flow import TableFlow
from trainers.tables.checks import InputError

RNG = np.random.default_rng(0)
X, CONTEXT = RNG.normal(size=(60, 2)), RNG.normal(size=(60, 1))


def table_flow(rows, context=None, seed=0):
    flow = rn.coupling_flow(
        2,
        1,
        num_components=2,
        hidden=(4,),
        context_features=0 if context is None else 1,
        rngs=nnx.Rngs(seed),
    )
    kernels = nnx.state(flow, lambda path, _: path[-1] == "kernel")
    nnx.update(flow, nnx.map_state(lambda _, v: v + 0.3, kernels))
    given = None if context is None else Schema.of(context, given=True)
    return TableFlow(flow, Schema.of(rows), given)


@pytest.fixture
def density(tmp_path):
    table_flow(X, CONTEXT).save(tmp_path)
    return FlowDensity.load(tmp_path)


def test_rows_go_to_latent_space_and_back_given_a_context(density):
    z = density.transform(X, context=CONTEXT)
    assert np.abs(z - density.transform(X, CONTEXT[::-1])).max() > 1e-3
    np.testing.assert_allclose(
        density.inverse_transform(z, context=CONTEXT), X, atol=1e-4
    )
    one = density.inverse_transform(z[:3], context=CONTEXT[:1])
    assert one.shape == (3, 2)
    with pytest.raises(InputError, match="`context` must be given"):
        density.transform(X)
    with pytest.raises(InputError, match="`context` must be given"):
        density.inverse_transform(z)


def test_fit_transform_hands_on_the_context(density):
    density.fit = lambda *args, **kwargs: density
    z = density.fit_transform(X, context=CONTEXT)
    np.testing.assert_array_equal(z, density.transform(X, CONTEXT))
    named = density.set_output(transform="pandas").fit_transform(X, context=CONTEXT)
    assert isinstance(named, pd.DataFrame)
    np.testing.assert_array_equal(named, z)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_latent_rows_are_finite(density, bad):
    z = np.zeros((3, 2))
    z[1, 0] = bad
    with pytest.raises(InputError, match=r"`X` must be finite .* the first is row 1"):
        density.inverse_transform(z, context=CONTEXT[:1])
    with pytest.raises(InputError, match="`X` must hold real numbers"):
        density.inverse_transform(np.full((3, 2), "a"), context=CONTEXT[:1])


def test_rows_without_weight_decide_nothing_given_a_context(monkeypatch):
    seen = []

    class Seen(Exception):
        pass

    def train(self, train, valid, seed):
        seen.append([train, valid])
        raise Seen

    monkeypatch.setattr(FlowDensity, "_train", train)
    weights = np.zeros(60)
    weights[10:30] = 1
    x, context = X.copy(), CONTEXT.copy()
    x[:10], context[30:] = 1e6, -1e6  # which would be another schema
    kept = weights > 0
    for few in ((x, weights, context), (x[kept], None, context[kept])):
        with pytest.raises(Seen):
            FlowDensity(**SMALL).fit(few[0], sample_weight=few[1], context=few[2])
    for one, two in zip(*seen, strict=True):
        assert one.weights is None
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.context, two.context)
    weights[10] = 2
    with pytest.raises(Seen):
        FlowDensity(**SMALL).fit(x, sample_weight=weights, context=context)
    every = np.concatenate([part.weights for part in seen[-1]])
    np.testing.assert_array_equal(np.sort(every), [1] * 19 + [2])
    with pytest.raises(InputError, match="one row for each of 60 rows of X; got 20"):
        FlowDensity(**SMALL).fit(x, sample_weight=weights, context=context[kept])


@pytest.mark.parametrize("load", [TableFlow.load, FlowDensity.load])
@pytest.mark.parametrize("moment", ["read_meta", "read_arrays"])
def test_schema_flow_and_estimator_are_of_one_save(tmp_path, monkeypatch, load, moment):
    tables = [table_flow(X, seed=1), table_flow(1_000 + 50 * X, seed=2)]
    fitted = {"n_features_in_": 2, "feature_names_in_": [], "history_": {}}
    abouts = [
        {"estimator": "FlowDensity", "params": {"verbose": n}, "fitted": fitted}
        for n in (0, 1)
    ]
    saves = [
        functools.partial(table.save, tmp_path, about={"estimator": about})
        for table, about in zip(tables, abouts, strict=True)
    ]
    saves[0]()
    Others(monkeypatch, moment, saves[1], after=True)
    found = load(tmp_path)
    table = getattr(found, "table_", found)
    number = int(table.schema.columns[0].high > 100)
    np.testing.assert_array_equal(table.log_prob(X), tables[number].log_prob(X))
    assert getattr(found, "verbose", number) == number
