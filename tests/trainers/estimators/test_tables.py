"""FlowDensity on what people bring: types, offsets, words, contexts, weights, few rows."""

import datetime
import pickle

import numpy as np
import pandas as pd
import pytest

from tests.slow import slow
from tests.trainers.estimators.small import SMALL
from trainers import CheckpointError, FlowDensity, FlowOutlierDetector
from trainers.tables.checks import InputError

RNG = np.random.default_rng(0)


def curve(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 2))
    return x + x[:, :1] ** 2 * [0, 0.5]


def counted(n, seed=0):
    """Counts from 0 to 9 and a Gaussian that depends on them; H = log 10 + log 2πe / 2."""
    random = np.random.default_rng(seed)
    count = random.integers(0, 10, n)
    return np.c_[count, random.normal(size=n) + 0.3 * count]


@pytest.fixture(scope="module")
def mixed():
    random = np.random.default_rng(0)
    kind = random.choice(["low", "mid", "high"], 600, p=[0.5, 0.3, 0.2])
    shift = pd.Series(kind).map({"low": 0.0, "mid": 3.0, "high": 6.0}).to_numpy()
    return pd.DataFrame(
        {
            "kind": kind,
            "x": shift + random.normal(size=600),
            "n": random.poisson(3, 600),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(range(600), "D"),
        }
    )


@pytest.fixture(scope="module")
def density(mixed):
    return FlowDensity(**SMALL).fit(mixed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offset", "scale"),
    [
        (1e7, 1),
        slow(1.7e9, 1e4),
        slow(0, 1e-12),
    ],
)
def test_offset_and_scale_change_log_p_by_a_constant(offset, scale):
    here = FlowDensity(**SMALL).fit(curve(600)).score(curve(500, 1))
    model = FlowDensity(**SMALL).fit(curve(600) * scale + offset)
    score = model.score(curve(500, 1) * scale + offset) + 2 * np.log(scale)
    np.testing.assert_allclose(score, here, atol=1e-3)
    drawn = model.sample(1_000, random_state=0)
    assert min(len(np.unique(column)) for column in drawn.T) >= 990


@pytest.mark.slow
def test_a_table_with_counts_has_a_mass_of_one():
    model = FlowDensity(**SMALL | {"num_steps": 200}).fit(counted(600))
    line = np.linspace(-8, 12, 401)
    grid = np.stack(np.meshgrid(np.arange(-3, 14), line), -1).reshape(-1, 2)
    mass = np.exp(model.score_samples(grid)).sum() * (line[1] - line[0])
    np.testing.assert_allclose(mass, 1, atol=0.02)
    limit = -np.log(10) - 0.5 * np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(model.score(counted(2_000, 1)), limit, atol=0.15)
    drawn = model.sample(500, random_state=0)[:, 0]
    assert set(drawn) <= set(range(10))


def test_coins_have_the_mass_of_coins():
    coins = RNG.integers(0, 2, (600, 2))
    model = FlowDensity(**SMALL).fit(coins)
    np.testing.assert_allclose(model.score(coins), -2 * np.log(2), atol=0.05)


def test_a_data_frame_goes_in_and_comes_out(density, mixed):
    drawn = density.sample(200, random_state=0)
    assert list(drawn.columns) == list(mixed.columns)
    assert (drawn.dtypes == mixed.dtypes).all()
    assert set(drawn["kind"]) == {"low", "mid", "high"}
    assert drawn["n"].between(mixed["n"].min(), mixed["n"].max()).all()
    means = drawn.groupby("kind")["x"].mean()
    assert means["low"] < means["mid"] < means["high"]
    assert np.isfinite(density.score_samples(drawn)).all()
    other = mixed.assign(kind="never")
    assert (density.score_samples(other) == -np.inf).all()


def test_transform_goes_there_and_back(density, mixed):
    frame = density.inverse_transform(density.transform(mixed))
    assert (frame["kind"] == mixed["kind"]).all()
    assert (frame["n"] == mixed["n"]).all()
    np.testing.assert_allclose(frame["x"], mixed["x"], atol=1e-3)
    wide = pd.DataFrame({"a": RNG.normal(size=600), "b": RNG.normal(size=600)})
    model = FlowDensity(**SMALL).fit(wide).set_output(transform="pandas")
    latent = model.transform(wide)
    assert list(latent.columns) == ["flowdensity0", "flowdensity1"]
    np.testing.assert_allclose(model.inverse_transform(latent), wide, atol=1e-4)


def test_a_saved_density_is_the_same(density, mixed, tmp_path):
    density.save(tmp_path / "d")
    copy = FlowDensity.load(tmp_path / "d")
    np.testing.assert_array_equal(
        copy.score_samples(mixed), density.score_samples(mixed)
    )
    assert copy.sample(3, random_state=1).equals(density.sample(3, random_state=1))
    assert list(copy.feature_names_in_) == list(mixed.columns)
    assert copy.get_params()["hidden"] == [8]
    assert {k: v.dtype for k, v in copy.history_.items()} == {
        k: v.dtype for k, v in density.history_.items()
    }
    with pytest.raises(CheckpointError, match=r"FlowDensity\.load"):
        FlowOutlierDetector.load(tmp_path / "d")
    density.table_.save(tmp_path / "of a command")
    assert FlowDensity.load(tmp_path / "of a command").n_features_in_ == mixed.shape[1]
    with pytest.raises(CheckpointError, match=r"FlowDensity\.load"):
        FlowOutlierDetector.load(tmp_path / "of a command")


def test_kinds_by_number_are_saved_by_name(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2)).round(1)
    for table, kinds, names in (
        (x, {np.int64(0): np.str_("continuous")}, {"x0": "continuous"}),
        (pd.DataFrame(x, columns=["1", "0"]), {0: "continuous"}, {"0": "continuous"}),
    ):
        model = FlowDensity(**SMALL, kinds=kinds).fit(table)
        assert model.schema_.column(*names).why == "as asked"
        model.save(tmp_path / "d")
        assert FlowDensity.load(tmp_path / "d").get_params()["kinds"] == names


@pytest.mark.slow
def test_a_context_is_given_and_not_modelled():
    context = pd.DataFrame({"g": RNG.choice(["a", "b"], 600)})
    x = RNG.normal(size=(600, 1)) + 5 * (context[["g"]] == "b").to_numpy()
    model = FlowDensity(**SMALL | {"num_steps": 200}).fit(x, context=context)
    a, b = pd.DataFrame({"g": ["a"]}), pd.DataFrame({"g": ["b"]})
    zero, five = np.zeros((1, 1)), np.full((1, 1), 5.0)
    assert model.score_samples(zero, a) > model.score_samples(zero, b) + 2
    assert model.score_samples(five, b) > model.score_samples(five, a) + 2
    drawn = model.sample(300, random_state=0, context=b)
    assert drawn.mean() > model.sample(300, random_state=0, context=a).mean() + 3
    with pytest.raises(InputError, match="conditional on g"):
        model.score_samples(zero)


@pytest.mark.slow
def test_what_is_left_out_and_what_is_extrapolated_is_said():
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {"a": random.normal(size=100), "name": [f"row {i}" for i in range(100)]}
    )
    years = pd.DataFrame({"year": random.integers(2001, 2016, 100)})
    small = SMALL | {"num_steps": 10}
    with pytest.warns(UserWarning, match="left out of the density: name"):
        fitted = FlowDensity(**small).fit(table, context=years)
    with pytest.warns(UserWarning, match="`year` is given far beyond the fit"):
        fitted.sample(2, context=pd.DataFrame({"year": [2040]}))
    both = table.assign(year=years.year)
    with pytest.raises(
        InputError, match=r"must not hold what is given, year\. Pass it as"
    ):
        fitted.score_samples(both)
    with pytest.raises(InputError, match="`n_samples` must fit into the memory of"):
        fitted.sample(10**12, context=years[:1])
    with pytest.raises(
        InputError, match=r"`n_samples` must be a whole number .*; got -1"
    ):
        fitted.sample(-1, context=years[:1])


def test_weights_decide():
    weights = np.arange(1_200) % 2
    x = RNG.normal(size=(1_200, 2)) + 6 * (1 - weights[:, None])
    model = FlowDensity(**SMALL).fit(x, sample_weight=weights)
    limit = -1 - np.log(2 * np.pi)
    assert model.score(RNG.normal(size=(2_000, 2))) > limit - 0.2
    days = weights.astype("M8[D]")
    for bad in (
        -weights,
        weights * 0,
        weights[:5],
        weights * np.nan,
        days,
        weights + 1j,
    ):
        with pytest.raises(InputError, match="`sample_weight` must"):
            model.fit(x, sample_weight=bad)


@pytest.mark.slow
def test_copies_of_rows_are_weights():
    x = RNG.normal(size=(600, 2))
    weights = RNG.integers(0, 4, 600)
    one = FlowDensity(**SMALL).fit(x, sample_weight=weights)
    other = FlowDensity(**SMALL).fit(np.repeat(x, weights, axis=0))
    np.testing.assert_array_equal(one.score_samples(x), other.score_samples(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "num_seeds"), [(3, 1), *(slow(n, 3) for n in (2, 3, 5, 10, 20))]
)
def test_few_rows_are_fitted_under_every_seed(n, num_seeds):
    for seed in range(num_seeds):
        x = np.random.default_rng(seed).normal(size=(n, 2))
        model = FlowDensity(**SMALL | {"num_steps": 2, "random_state": seed}).fit(x)
        assert np.isfinite(model.score_samples(x)).all()


def test_no_number_of_rows_compiles_anew(density, mixed):
    import jax

    density.sample(5), density.score_samples(mixed[:5])
    with jax.log_compiles(False), jax.no_tracing():
        for n in (1, 7, 100, 599):
            density.sample(n)
            density.score_samples(mixed[:n])


@pytest.mark.slow
def test_rounded_columns_as_densities():
    mix = 0.3 * np.array([[1, 0.8], [0, 0.6]])
    x, fresh = (
        (RNG.normal(size=(2_000, 2)) @ mix).round(1),
        RNG.normal(size=(999, 2)) @ mix,
    )
    inverse = np.linalg.inv(mix)
    truth = -((fresh @ inverse) ** 2).sum(1).mean() / 2 - np.log(2 * np.pi * 0.054)
    model = FlowDensity(**SMALL | {"num_steps": 200}, jitter=0.1).fit(x)
    np.testing.assert_allclose(model.score(fresh), truth, atol=0.15)
    masses = FlowDensity(**SMALL).fit(x)
    assert masses.score(x) < 0  # two cells of .1 each weigh 4.6 nats less


@pytest.mark.parametrize("number", [2.5, "3", -1, True, None])
def test_samples_are_counted_in_whole_numbers(density, number):
    with pytest.raises(InputError, match="`n_samples` must be a whole number"):
        density.sample(number)
    assert len(density.sample(np.int64(2))) == 2


@pytest.mark.slow
def test_types_and_names_come_back_from_a_checkpoint_and_a_pickle(tmp_path):
    random = np.random.default_rng(0)
    levels = pd.CategoricalDtype(["z", "q", "x"], ordered=True)
    table = pd.DataFrame(
        {
            0: pd.array(random.poisson(3, 200), "Int64"),
            ("a", 1): pd.Categorical(random.choice(["x", "z"], 200), dtype=levels),
            datetime.date(2020, 1, 1): random.normal(size=200).astype("float16"),
        }
    )
    small = SMALL | {"num_steps": 1, "num_components": 1}
    model = FlowDensity(**small).fit(table)
    model.save(tmp_path / "d")
    for copy in (model, FlowDensity.load(tmp_path / "d"), copied(model)):
        drawn = copy.sample(20, random_state=0)
        assert drawn.columns.equals(table.columns)
        assert drawn.dtypes.equals(table.dtypes)
        assert drawn[0].dtype == "Int64"
        assert np.isfinite(copy.score(drawn))


def copied(model):
    return pickle.loads(pickle.dumps(model))
