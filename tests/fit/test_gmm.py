import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.fit import em, gmm, sketch
from rbig_nnx.fit.starts import starts
from rbig_nnx.math.mixture import log_pdf
from rbig_nnx.math.params import MixtureParams
from tests.slow import slow

KEY = jax.random.key(0)


def _ten_shapes(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Ten standardised columns, [n, 10]: what real tables hold."""
    rng = np.random.default_rng(seed)

    def normals(weights, means, scales):
        k = rng.choice(len(weights), n, p=weights)
        return rng.normal(np.array(means)[k], np.array(scales)[k])

    columns = {
        "bimodal": normals([0.5, 0.5], [-2, 2], [0.5, 0.5]),
        "skewed": rng.gamma(2.0, 1.0, n),
        "t3": rng.standard_t(3, n),
        "spikes": normals([0.2, 0.3, 0.5], [-1, 1, 0], [0.01, 0.02, 1.0]),
        "uniform": rng.uniform(-1, 1, n),
        "duplicates": np.where(rng.random(n) < 0.3, 0.5, rng.normal(size=n)),
        "laplace": rng.laplace(size=n),
        "exponential": rng.exponential(size=n),
        "four": normals([0.1, 0.2, 0.3, 0.4], [-4, -1, 1, 5], [0.3, 0.5, 0.2, 1.0]),
        "integer": rng.poisson(4, n).astype(float),
    }
    x = np.stack(list(columns.values()), axis=1)
    return list(columns), ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def _mean_log_pdf(x, params, **options) -> np.ndarray:
    return np.asarray(log_pdf(jnp.asarray(x), params, **options), np.float64).mean(
        axis=0
    )


def _sklearn_best(x: np.ndarray, num_components: int, seeds: int) -> np.ndarray:
    mixture = pytest.importorskip("sklearn.mixture")
    columns = [x[:, [j]].astype(np.float64) for j in range(x.shape[1])]
    return np.array(
        [
            max(
                mixture.GaussianMixture(
                    num_components, tol=1e-5, max_iter=1000, random_state=seed
                )
                .fit(column)
                .score(column)
                for seed in range(seeds)
            )
            for column in columns
        ]
    )


@pytest.mark.parametrize("n", [slow(3_000), slow(50_000)], ids=str)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_likelihood_reaches_the_best_of_three_of_scikit_learn(n):
    names, x = _ten_shapes(n)
    params = gmm.fit_mixtures(x, num_components=8, key=KEY, anchor_weight=0.0)
    got = _mean_log_pdf(x, params, anchor_weight=0.0)
    want = _sklearn_best(x, 8, seeds=3)
    short = {a: f"{b:.4f}" for a, b in zip(names, got - want, strict=True) if b < -1e-3}
    assert not short


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_ten_times_faster_than_the_scikit_learn_loop():
    pytest.importorskip("sklearn")
    x = _ten_shapes(50_000)[1][:, :8]

    def seconds(fit, **options):
        start = time.perf_counter()
        jax.block_until_ready(fit(x, num_components=8, key=KEY, **options))
        return time.perf_counter() - start

    gmm.fit_mixtures(x, num_components=8, key=KEY)  # compiles
    ours = min(seconds(gmm.fit_mixtures) for _ in range(3))
    assert seconds(gmm.fit_mixtures_sklearn) > 10 * ours


@pytest.mark.parametrize("family", ["gaussian", "logistic"])
@pytest.mark.parametrize("anchor_weight", [0.0, 0.1])
def test_em_steps_never_lower_the_likelihood(family, anchor_weight):
    x = _ten_shapes(1000)[1]
    data = sketch.sketch(x, None, KEY)
    data = data._replace(masses=data.masses / 1000)
    data = em.Points(*data, min_scale=np.full(10, 1e-3))
    mixture = jax.tree.map(lambda p: p[0], starts(data, KEY, 4, family))
    step = jax.jit(lambda m: em.em_step(m, data, family, anchor_weight))
    values = []
    for _ in range(30):
        mixture, value = step(mixture)
        values.append(value)
    assert np.diff(values, axis=0).min() > -1e-5
    assert values[-1].mean() > values[0].mean() + 0.05


@pytest.mark.parametrize("family", ["gaussian", "logistic"])
def test_anchor_is_part_of_the_fitted_density(family):
    rng = np.random.default_rng(0)
    n = 20_000
    x = np.where(rng.random(n) < 0.3, rng.normal(size=n), rng.normal(4, 0.2, n))[
        :, None
    ]
    x = x.astype(np.float32)
    params = gmm.fit_mixtures(
        x, num_components=1, key=KEY, family=family, anchor_weight=0.3
    )
    assert abs(float(params.means[0, 0]) - 4) < 0.02  # the anchor explains the rest
    scale = 0.2 if family == "gaussian" else 0.2 * 0.57
    assert abs(float(jnp.exp(params.log_scales[0, 0])) / scale - 1) < 0.05


def test_logistic_fit_recovers_a_logistic_mixture():
    rng = np.random.default_rng(0)
    x = rng.logistic(np.where(rng.random(20_000) < 0.3, -3, 2), 0.4).astype(np.float32)
    params = gmm.fit_mixtures(
        x[:, None], num_components=2, key=KEY, family="logistic", anchor_weight=0.0
    )
    order = np.argsort(params.means[0])
    np.testing.assert_allclose(params.means[0][order], [-3, 2], atol=0.05)
    np.testing.assert_allclose(np.exp(params.log_scales[0]), 0.4, rtol=0.05)
    weights = jax.nn.softmax(params.logits[0])[order]
    np.testing.assert_allclose(weights, [0.3, 0.7], atol=0.02)


@pytest.mark.parametrize("n", [1500, 20_000])
def test_sketch_keeps_mass_mean_and_variance(n):
    x = _ten_shapes(n)[1]
    data = sketch.sketch(x, None, KEY)
    points, masses, variances = (np.asarray(a, np.float64) for a in data)
    np.testing.assert_allclose(masses.sum(1), n, rtol=1e-6)
    mean = (masses * points).sum(1) / n
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    second = (masses * (points**2 + variances)).sum(1) / n
    np.testing.assert_allclose(second, 1, rtol=1e-5)
    assert (np.diff(points, axis=1) >= 0).all()


def test_repeated_value_has_a_bin_of_its_own():
    rng = np.random.default_rng(0)
    x = np.where(rng.random(20_000) < 0.3, 0.5, rng.normal(size=20_000))
    data = sketch.sketch(jnp.asarray(x[:, None], jnp.float32), None, KEY)
    heaviest = np.argmax(data.masses[0])
    assert data.points[0, heaviest] == 0.5
    assert data.variances[0, heaviest] == 0
    assert data.masses[0, heaviest] == (x == 0.5).sum()


@pytest.mark.parametrize("n", [1000, 6000])
def test_rows_of_weight_zero_have_no_influence(n):
    x = _ten_shapes(n)[1]
    keep = np.random.default_rng(1).random(n) < 0.8
    weights = np.where(keep, 2.0, 0.0).astype(np.float32)
    poisoned = np.where(keep[:, None], x, np.nan)
    options = dict(num_components=4, key=KEY)
    got = gmm.fit_mixtures(poisoned, weights=weights, **options)
    want = gmm.fit_mixtures(x[keep], weights=weights[keep], **options)
    kept = x[keep]
    np.testing.assert_allclose(
        _mean_log_pdf(kept, got), _mean_log_pdf(kept, want), atol=2e-3
    )


def test_integer_weights_equal_repeated_rows():
    x = _ten_shapes(800)[1][:, :3]
    repeats = np.random.default_rng(1).integers(1, 3, 800)
    options = dict(num_components=3, key=KEY)
    got = gmm.fit_mixtures(x, weights=repeats, **options)
    want = gmm.fit_mixtures(np.repeat(x, repeats, axis=0), **options)
    np.testing.assert_allclose(np.sort(got.means), np.sort(want.means), atol=1e-2)


@pytest.mark.parametrize("n", [500, 5000])
def test_outliers_duplicates_and_constants_give_finite_fits(n):
    rng = np.random.default_rng(0)
    outliers = rng.normal(size=n)
    outliers[:3] = [1e4, -1e4, 1e4]
    columns = [outliers, np.full(n, 3.0), rng.integers(0, 2, n), np.full(n, 1e6)]
    x = np.stack(columns, axis=1).astype(np.float32)
    params = gmm.fit_mixtures(x, num_components=4, key=KEY)
    assert all(np.isfinite(p).all() for p in params)
    assert np.isfinite(log_pdf(jnp.asarray(x), params)).all()
    # Three outliers do not flatten the fit of the other rows.
    rest = _mean_log_pdf(x[3:, :1], MixtureParams(*(p[:1] for p in params)))
    assert rest[0] > -1.47


def test_fewer_rows_than_components_give_a_finite_fit():
    x = jnp.array([[0.1], [2.0]])
    params = gmm.fit_mixtures(x, num_components=8, key=KEY)
    assert all(np.isfinite(p).all() for p in params)


def test_same_key_gives_the_same_bits():
    x = _ten_shapes(3000)[1]
    first, second = (gmm.fit_mixtures(x, num_components=3, key=KEY) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_equal_shapes_reuse_the_compiled_program():
    x = _ten_shapes(3000)[1]
    gmm.fit_mixtures(x, num_components=3, key=KEY)
    sizes = gmm._fit._cache_size(), sketch._binner(None)._cache_size()
    gmm.fit_mixtures(2 * x, num_components=3, key=jax.random.key(5), prior_weight=0.5)
    assert sizes == (gmm._fit._cache_size(), sketch._binner(None)._cache_size())


@pytest.mark.parametrize("n", [1024, slow(24_000)])
def test_sharded_rows_give_the_fit_of_one_device(n):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices")
    axis = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=axis)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = _ten_shapes(n)[1][:, :4]
    sharded = jax.device_put(x, rows)
    got = gmm.fit_mixtures(sharded, num_components=3, key=KEY)
    want = gmm.fit_mixtures(x, num_components=3, key=KEY)
    np.testing.assert_allclose(_mean_log_pdf(x, got), _mean_log_pdf(x, want), atol=1e-4)


def test_bins_of_sharded_rows_gather_no_row():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices")
    n = 80_000
    axis = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=axis)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((n, 4), jnp.float32, sharding=rows)
    weights = jax.ShapeDtypeStruct((n,), jnp.float32, sharding=rows)
    edges = np.zeros((4, sketch._NUM_BINS - 1), np.float32)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    binner = sketch._binner(everywhere)
    text = binner.lower(x, weights, edges).compile().as_text()
    assert "all-reduce" in text
    assert f"[{n}" not in text.replace(f"[{n}]{{0}} parameter", "")
    assert f",{n}]" not in text


@pytest.mark.parametrize("family", ["gaussian", "logistic"])
def test_prior_weight_shrinks_to_the_identity(family):
    x = _ten_shapes(2000)[1][:, :1]
    data = sketch.sketch(x, None, KEY)
    grid = jnp.linspace(-4, 4, 801)[:, None]
    normal = jax.scipy.stats.norm.logpdf(grid)

    def divergence(prior_weight):
        params = gmm.fit_sketch(
            data,
            num_components=4,
            key=KEY,
            family=family,
            anchor_weight=0.0,
            prior_weight=prior_weight,
        )
        log_ratio = normal - log_pdf(grid, params, family=family, anchor_weight=0.0)
        return jnp.sum(jnp.exp(normal) * log_ratio) * 0.01

    values = [float(divergence(weight)) for weight in (0.0, 0.3, 3.0, np.inf)]
    assert (np.diff(values) < 0).all()
    assert values[-1] < 1e-3


@pytest.mark.slow
def test_fits_under_several_priors_are_as_good_as_one_by_one():
    names, x = _ten_shapes(3000)
    data = sketch.sketch(x, None, KEY)
    fit = functools.partial(gmm.fit_sketch, data, num_components=8, key=KEY)
    weights = (0.0, 0.1, 0.5)
    together = fit(prior_weight=weights)
    levels = (jnp.arange(4_000) + 0.5) / 4_000
    normal = jnp.broadcast_to(
        jax.scipy.stats.norm.ppf(levels)[:, None], (4_000, len(names))
    )
    for i, weight in enumerate(weights):

        def goal(params, weight=weight):
            return _mean_log_pdf(x, params) + weight * _mean_log_pdf(normal, params)

        one, alone = MixtureParams(*(p[i] for p in together)), fit(prior_weight=weight)
        short = goal(one) - goal(alone)
        assert np.min(short) > -0.01, dict(zip(names, short, strict=True))
        assert np.mean(short) > -0.002


def test_scikit_learn_reference_has_the_same_likelihood_and_layout():
    pytest.importorskip("sklearn")
    x = _ten_shapes(1000)[1][:, [0, 8]]
    got = gmm.fit_mixtures(x, num_components=4, key=KEY, anchor_weight=0.0)
    want = gmm.fit_mixtures_sklearn(x, num_components=4, key=KEY)
    assert want.means.shape == (2, 4)
    np.testing.assert_allclose(
        _mean_log_pdf(x, got, anchor_weight=0.0),
        _mean_log_pdf(x, want, anchor_weight=0.0),
        atol=0.01,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_components=0), "`num_components` must be at least 1; got 0"),
        (dict(family="cauchy"), "`family` must be one of .*; got 'cauchy'"),
        (dict(anchor_weight=1.0), r"`anchor_weight` must be in \[0, 1\).*; got 1.0"),
        (
            dict(weights=np.ones(3)),
            r"`weights` must have one value a row, shape \(9,\)",
        ),
        (dict(x=np.ones(9)), r"`x` must be \[rows, features\].*got shape \(9,\)"),
    ],
)
def test_bad_arguments_say_what_is_wrong(options, message):
    options = dict(dict(x=np.ones((9, 2)), num_components=2, key=KEY), **options)
    with pytest.raises(ValueError, match=message):
        gmm.fit_mixtures(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weights=np.ones(9)), "`weights` must be None with scikit-learn"),
        (dict(family="logistic"), '`family` must be "gaussian" with scikit-learn'),
    ],
)
def test_scikit_learn_reference_says_what_it_cannot_do(options, message):
    with pytest.raises(ValueError, match=message):
        gmm.fit_mixtures_sklearn(np.ones((9, 2)), num_components=2, key=KEY, **options)
