"""A density is a density: in 1, 2 and 3 dimensions it integrates to one, in float32, and
samples are drawn from it.

The grid is even in s, where x = sinh(b s) / b standard deviations: dense in the middle, far
out at the ends. Sums over an even grid converge exponentially in what it resolves.
"""

import functools

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from flax import nnx
from sklearn.ensemble import HistGradientBoostingClassifier

import rbig_nnx as rn
from tests.nn.flows import moved
from tests.slow import slow
from trainers import FlowDensity, TrainConfig, fit

CHUNK = 41_472  # points that are scored at once; every grid has a multiple of it
NUM = {1: 41_472, 2: 864, 3: 144}  # points an axis
BEND = {1: 1.0, 2: 0.7, 3: 0.4}
REACH = {1: 1e4, 2: 1e3, 3: 25.0}  # standard deviations
FAMILIES = ("gaussian", "logistic")


def rows_of(d, seed=0, n=2_500, freedom=np.inf):
    """Two lobes, a waist that depends on them and a skewed column, each of a scale of its own.

    Of fewer degrees of freedom, the columns of a row share a random scale.
    """
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n, 3))
    lobe = np.where(random.random(n) < 0.4, -1.5, 1.0)
    x = [lobe + 0.5 * noise[:, 0], 0.3 * lobe + 0.6 * lobe**2 * noise[:, 1]]
    x = np.stack([*x, np.exp(0.5 * noise[:, 2]) + 0.5 * lobe], axis=1)
    if np.isfinite(freedom):
        x /= np.sqrt(random.chisquare(freedom, (n, 1)) / freedom)
    return (x * [1, 30, 0.01] + [0, 5, -2])[:, :d].astype(np.float32)


class Axes:
    """The grid of d features with the means and standard deviations of rows."""

    def __init__(self, x, num=None, reach=None):
        self.mean, self.std = x.mean(0, dtype=float), x.std(0, dtype=float)
        d = x.shape[1]
        self.bend, self.num = BEND[d], num or NUM[d]
        end = np.arcsinh((reach or REACH[d]) * self.bend) / self.bend
        self.step = 2 * end / self.num
        self.s = (np.arange(self.num) + 0.5) * self.step - end

    def to_s(self, x):
        return np.arcsinh((x - self.mean) / self.std * self.bend) / self.bend

    def to_x(self, s):
        return (self.mean + self.std * np.sinh(self.bend * s) / self.bend).astype(
            np.float32
        )

    def masses(self, log_prob):
        """p(x) dx at every point of the grid, [num, …, num]."""
        d = len(self.mean)
        s = np.stack(np.meshgrid(*[self.s] * d, indexing="ij"), axis=-1).reshape(-1, d)
        slopes = np.prod(self.std * np.cosh(self.bend * s) * self.step, axis=1)
        masses = scores(log_prob, self.to_x(s)) * slopes
        return masses.reshape([self.num] * d)


def scores(log_prob, x):
    """p of many rows, in float64."""
    parts = x.reshape(-1, CHUNK, x.shape[-1])
    return np.exp(np.concatenate([np.asarray(log_prob(p), float) for p in parts]))


def total(flow, x, num=None, context=None, reach=None):
    def log_prob(points):
        if context is None:
            return flow.log_prob(points)
        return flow.log_prob(points, np.full((len(points), 1), context, np.float32))

    return Axes(x, num, reach).masses(log_prob).sum()


def one(abs=1e-3):
    return pytest.approx(1, abs=abs)


@functools.cache
def started(d, rotation="pca", family="gaussian", build="coupling_flow", **options):
    if build == "coupling_flow":
        options = {"hidden": (8,)} | options
    flow = getattr(rn, build)(
        d, 2, num_components=3, family=family, **options, rngs=nnx.Rngs(0)
    )
    x = rows_of(d)
    return rn.warm_start(flow, x, key=jax.random.key(0), rotation=rotation)[0], x


def known(d, law):
    """Densities as sharp as the flows' and as heavy, in units of standard deviations."""
    if law == "heavy":
        return scipy.stats.multivariate_t(shape=np.eye(d) / 3, df=3).logpdf
    turn = scipy.stats.special_ortho_group(3, seed=0).rvs()[:d, :d] if d > 1 else 1.0
    turn = np.linalg.qr(np.atleast_2d(turn))[0]
    sds = {1: [0.003], 2: [0.04, 1.0], 3: [0.12, 0.5, 1.0]}[d]
    cov = turn * np.square(sds) @ turn.T
    ridge = scipy.stats.multivariate_normal(np.full(d, 0.5), cov)
    wide = scipy.stats.multivariate_normal(np.full(d, -1.0), np.eye(d))
    return lambda x: np.logaddexp(ridge.logpdf(x), wide.logpdf(x)) - np.log(2)


@pytest.mark.parametrize("law", ["sharp", "heavy"])
@pytest.mark.parametrize("d", [1, 2, slow(3)])
def test_the_grid_resolves_what_is_known(d, law):
    axes = Axes(np.stack([-np.ones(d), np.ones(d)]))
    assert axes.masses(known(d, law)).sum() == one(2e-4)


@pytest.mark.parametrize(
    ("d", "rotation", "family", "num"),
    [
        (2, "pca", "gaussian", 288),
        *(slow(1, "pca", family, None) for family in FAMILIES),
        *(
            slow(d, rotation, family, None)
            for d in (2, 3)
            for rotation in ("pca", "random", "ica", "nongaussian", "auto")
            for family in FAMILIES
        ),
    ],
)
def test_a_start_and_what_is_near_it(d, rotation, family, num):
    flow, x = started(d, rotation, family)
    assert total(flow, x, num) == one()
    assert total(moved(flow), x, num) == one()


LIVES = [(d, family, "coupling_flow") for d in (2, 3) for family in FAMILIES]
LIVES += [(1, "logistic", "diagonal_flow"), (3, "gaussian", "diagonal_flow")]


@pytest.mark.slow
@pytest.mark.parametrize(("d", "family", "build"), LIVES)
def test_trained_then_tuned_to_other_rows_then_widened(d, family, build):
    flow, x = started(d, "pca", family, build)
    config = TrainConfig(num_steps=150, batch_size=256, eval_every=50)
    others = (rows_of(d, seed=1) - x.mean(0)) * np.float32(0.7) + x.mean(0) + x.std(0)
    for rows in (x, others):
        flow = fit(flow, rows, config=config).model
        assert total(flow, x) == one()
    hidden = {"hidden": (12,)} if d > 1 and build == "coupling_flow" else {}
    wide = rn.widen(flow, num_components=5, num_blocks=3, **hidden, rngs=nnx.Rngs(1))
    assert total(wide, x) == one()
    assert total(moved(wide), x) == one()


LAYERS = {
    "tails": {"tails": True},
    "marginals": {"marginals": True},
    "whiten": {"whiten": True},
    "radial": {"radial": True},
    "clusters": {"clusters": 3},
    "no anchor": {"anchor_weight": 0.0},
    "scanned": {"scan_blocks": True},
}
LAYERS["all"] = {k: v for la in list(LAYERS.values())[:5] for k, v in la.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "d"),
    [
        *((name, 2) for name in LAYERS),
        *((name, 1) for name in ("tails", "clusters", "all")),
        *((name, 3) for name in ("radial", "clusters", "all")),
    ],
)
def test_layers_next_to_the_data(name, d):
    x = rows_of(d, freedom=6)
    flow = rn.diagonal_flow(d, 1, num_components=3, **LAYERS[name], rngs=nnx.Rngs(0))
    flow, _ = rn.warm_start(flow, x, key=jax.random.key(0))
    reach = max(REACH[d], 100.0)  # standard deviations, for tails
    assert total(flow, x, reach=reach) == one()
    assert total(moved(flow), x, reach=reach) == one()


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 3])
def test_given_any_context(d):
    c = np.random.default_rng(2).normal(size=(2_500, 1)).astype(np.float32)
    x = rows_of(d) * (1 + 0.5 * np.tanh(c))
    flow = rn.coupling_flow(
        d, 2, num_components=3, hidden=(8,), context_features=1, rngs=nnx.Rngs(0)
    )
    flow, _ = rn.warm_start(flow, x, key=jax.random.key(0), context=c)
    for flow_ in (flow, moved(flow)):
        for context in (-2.0, 0.3):
            assert total(flow_, x, context=context) == one()
    # Far out the density is sharper: in three dimensions 24 million points.
    num = {3: 288}.get(d)
    assert total(moved(flow), x, num, context=8.0) == one()


def grown(d):
    """A flow whose couplings look at what they are given, its rows and 100,000 samples."""
    flow, x = started(d)
    flow = moved(flow)
    return flow, x, np.asarray(flow.sample(jax.random.key(1), 100_000), float)


@pytest.mark.parametrize(("d", "num"), [(2, 288), slow(1, None), slow(3, None)])
def test_samples_fall_into_cells_as_often_as_log_prob_says(d, num):
    flow, x, samples = grown(d)
    axes = Axes(x, num)
    per_axis = {1: 144, 2: 48, 3: 24}[d]
    expected = axes.masses(flow.log_prob)
    for axis in range(d):
        blocks = np.split(expected, per_axis, axis=axis)
        expected = np.concatenate(
            [b.sum(axis, keepdims=True) for b in blocks], axis=axis
        )
    edges = np.linspace(-1, 1, per_axis + 1) * (axes.s[-1] + axes.step / 2)
    counts, _ = np.histogramdd(axes.to_s(samples), bins=[edges] * d)
    assert counts.sum() == len(samples)
    enough = (expected * len(samples)) >= 10
    assert enough.sum() >= 20

    def p_value(expected):
        observed, wanted = (
            np.append(a[enough], a[~enough].sum())
            for a in (counts, expected / expected.sum() * len(samples))
        )
        return scipy.stats.chisquare(observed, wanted).pvalue

    assert p_value(expected) > 1e-3
    assert p_value(expected**1.03) < 1e-3  # a density 3 % sharper


@pytest.mark.parametrize("d", [2, slow(1), slow(3)])
def test_each_feature_of_samples_is_uniform_under_its_conditional(d):
    flow, x, samples = grown(d)
    axes = Axes(x, num := 864)
    samples, s = samples[:1_440], axes.to_s(samples[:1_440])
    for feature in range(d):
        line = np.repeat(s[:, None], num, axis=1)
        line[..., feature] = axes.s
        masses = scores(flow.log_prob, axes.to_x(line).reshape(-1, d)).reshape(-1, num)
        masses *= np.cosh(axes.bend * axes.s)
        below = np.cumsum(masses, axis=1) / masses.sum(axis=1, keepdims=True)
        ends = axes.s + axes.step / 2
        u = [
            np.interp(at, ends, row)
            for at, row in zip(s[:, feature], below, strict=True)
        ]
        assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2, 3])
def test_no_classifier_tells_samples_from_rows_drawn_by_log_prob(d):
    flow, x, samples = grown(d)
    axes, random = Axes(x), np.random.default_rng(3)
    masses = axes.masses(flow.log_prob).ravel()
    at = random.choice(masses.size, len(samples), p=masses / masses.sum())
    places = np.stack(np.unravel_index(at, [axes.num] * d), axis=1)
    places = axes.s[places] + axes.step * (random.random(places.shape) - 0.5)
    drawn = axes.to_x(places)

    def accuracy(rows):
        both, label = np.concatenate([rows, drawn]), np.repeat([0, 1], len(drawn))
        order = random.permutation(len(both))
        train, test = np.split(order, 2)
        classifier = HistGradientBoostingClassifier(max_iter=50, random_state=0)
        return classifier.fit(both[train], label[train]).score(both[test], label[test])

    chance = 0.5 + 4 * np.sqrt(0.25 / len(samples))
    assert accuracy(samples) < chance
    assert accuracy(samples + 0.2 * x.std(0)) > chance


def table_of(name):
    """Rows, and values of every column that together hold all of the mass."""
    random, n = np.random.default_rng(4), 600
    word = random.choice(["low", "mid", "high"], n, p=[0.5, 0.3, 0.2])
    shift = pd.Series(word).map({"low": 0, "mid": 1, "high": 3}).to_numpy()
    normal, yes = random.normal(size=n), random.random(n) < 0.2 + 0.2 * shift
    count = random.poisson(1 + shift)
    return {
        "a count and a real number": (
            {"count": count, "real": normal + 0.3 * count},
            {"count": np.arange(-8, 25), "real": np.linspace(-8, 12, 201)},
        ),
        "words, truths and counts": (
            {"word": word, "yes": yes, "count": count},
            {
                "word": ["low", "mid", "high"],
                "yes": [False, True],
                "count": np.arange(-8, 25),
            },
        ),
        "a fine grid and a truth": (
            {"fine": np.round(4 * normal + shift, 1), "yes": yes},
            {"fine": np.round(np.arange(-400, 450) / 10, 1), "yes": [False, True]},
        ),
    }[name]


def fitted(name):
    """A density of a table, all places where it has mass, and their log p."""
    rows, places = table_of(name)
    density = FlowDensity(
        **{"num_blocks": 1, "num_components": 4, "hidden": (8,), "num_steps": 100},
        **{"rotation": "pca", "tails": False, "marginals": False, "radial": False},
        **{"clusters": 0, "num_draws": 1_024, "random_state": 0},
    ).fit(pd.DataFrame(rows))
    places = pd.MultiIndex.from_product(places.values(), names=places).to_frame(False)
    return density, places, density.score_samples(places)


@pytest.mark.slow
def test_a_density_over_a_count_adds_and_integrates_to_one():
    density, places, log_p = fitted("a count and a real number")
    step = np.diff(np.unique(places["real"]))[0]
    between = places.assign(real=places["real"] + 0.37 * step)
    for log_p_ in (log_p, density.score_samples(between)):
        assert np.exp(log_p_).sum() * step == one()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["words, truths and counts", "a fine grid and a truth"]
)
def test_masses_add_to_one_and_samples_have_them(name):
    density, places, log_p = fitted(name)
    assert np.exp(log_p).sum() == one()
    samples = density.sample(20_000, random_state=1)
    names = list(places)
    counts = samples.groupby(names).size()
    wanted = pd.Series(20_000 * np.exp(log_p), pd.MultiIndex.from_frame(places))
    counts = counts.reindex(wanted.index, fill_value=0)
    assert counts.sum() == 20_000
    enough = wanted >= 10
    observed, expected = (
        np.append(a[enough], a[~enough].sum())
        for a in (counts, wanted * (20_000 / wanted.sum()))
    )
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
