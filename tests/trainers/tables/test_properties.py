"""Tables drawn at random: there and back, by the schema and by what is kept of it."""

import json

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest

from tests.properties import SEEDS, examples, holds
from trainers import Schema

N = 60
KINDS = ["real", "positive", "bounded", "rounded", "integer", "word", "truth", "date"]


def column(kind, random):
    """Values of a kind, of a scale from 1e-6 to 1e6."""
    scale = 10 ** random.uniform(-6, 6)
    return {
        "real": lambda: scale * (random.normal(size=N) + random.uniform(-9, 9)),
        "positive": lambda: scale * np.exp(2 * random.normal(size=N)),
        "bounded": lambda: random.uniform(0, 1, N),
        "rounded": lambda: np.round(9 * random.normal(size=N), 1),
        "integer": lambda: random.poisson(10 ** random.uniform(0, 4), N),
        "word": lambda: np.resize(["low", "mid", "high"], N).astype(object),
        "truth": lambda: random.permutation(np.arange(N) % 3 == 0),
        "date": lambda: (
            pd.Timestamp("2001-01-01")
            + pd.to_timedelta(random.integers(0, 9_999, N), unit="D")
        ),
    }[kind]()


def check(kinds, seed):
    random = np.random.default_rng(seed)
    table = pd.DataFrame({f"c{i}": column(k, random) for i, k in enumerate(kinds)})
    schema = Schema.of(table)
    kept = Schema.from_config(json.loads(json.dumps(schema.to_config())))
    rows, log_det = schema.encode(table, seed=seed)
    assert rows.shape == (N, schema.width)
    assert np.isfinite(rows).all()
    assert np.isfinite(log_det).all()
    for one, other in zip((rows, log_det), kept.encode(table, seed=seed), strict=True):
        np.testing.assert_array_equal(one, other)
    back = kept.decode(rows)
    assert back.dtypes.to_dict() == table.dtypes.to_dict()
    for found in schema.columns:
        name = found.name
        if found.kind_name in ("continuous", "positive", "bounded"):
            # float32 rows, of a few standard deviations
            atol = 1e-6 * np.ptp(table[name])
            np.testing.assert_allclose(back[name], table[name], 1e-5, atol)
        else:
            assert back[name].tolist() == table[name].tolist()


@examples(15, 300)
def test_tables_come_back(num_examples):
    @holds(
        num_examples,
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8),
        seed=SEEDS,
    )
    def come_back(kinds, seed):
        check(kinds, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_table_of_256_columns_comes_back(seed):
    check(np.random.default_rng(seed).choice(KINDS, 256), seed)
