import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.fit import rotation

KEY = jax.random.key(0)

SLOW = pytest.mark.slow


def _orthogonal(d: int, rng) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def _mixed_sources(d: int, n: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Independent sources of unit variance, rotated: x [n, d] and the rotation."""
    rng = np.random.default_rng(d)
    sources = [
        lambda: rng.uniform(-1, 1, n) * 3**0.5,
        lambda: (rng.normal(size=n) * 0.3 + rng.choice([-1, 1], n)) / 1.09**0.5,
        lambda: rng.laplace(size=n) / 2**0.5,
    ]
    q = _orthogonal(d, rng)
    x = np.stack([sources[i % 3]() for i in range(d)], axis=1) @ q
    return x.astype(np.float32), q


def _entropies(y) -> np.ndarray:
    """Spacing estimate of the entropy of each column (Vasicek, 1976)."""
    y = np.sort(np.asarray(y, np.float64), axis=0)
    n, m = len(y), int(len(y) ** 0.5)
    return np.log((y[m:] - y[:-m]) * (n + 1) / m).mean(axis=0)


@pytest.mark.parametrize("method", rotation.METHODS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_rotations_are_orthogonal_in_float32(method, d):
    x = np.random.default_rng(0).gamma(1.0, 5.0, size=(400, d)).astype(np.float32)
    q = rotation.fit_rotation(x, method=method, key=KEY)
    assert q.dtype == jnp.float32
    q = np.asarray(q, np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(d), atol=1e-5)
    if d == 1:
        assert q.item() == 1.0


@pytest.mark.parametrize("method", rotation.METHODS)
def test_degenerate_data_still_give_a_rotation(method):
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    x = np.stack([a, a, np.zeros(500), 1e4 * rng.normal(size=500)], axis=1)
    q = np.asarray(rotation.fit_rotation(x, method=method, key=KEY), np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(4), atol=1e-5)


def test_pca_equals_numpy_with_weights():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 5)) * [1, 2, 3, 4, 5] @ _orthogonal(5, rng) + 100
    weights = rng.uniform(size=2000)
    q = rotation.fit_rotation(x, method="pca", key=KEY, weights=weights)
    vectors = np.linalg.eigh(np.cov(x.T, aweights=weights))[1]
    overlap = np.abs(vectors[:, ::-1].T @ np.asarray(q))
    np.testing.assert_allclose(overlap, np.eye(5), atol=2e-3)
    variances = np.var(x @ np.asarray(q), axis=0)
    assert (np.diff(variances) < 0).all()


def test_random_rotations_depend_on_the_key_and_are_uniform():
    x = np.ones((10, 3))
    keys = jax.random.split(KEY, 2000)
    q = jax.vmap(lambda k: rotation.fit_rotation(x, method="random", key=k))(keys)
    # Haar: every entry has mean 0 and variance 1/3.
    np.testing.assert_allclose(np.mean(q, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.mean(q**2, axis=0), 1 / 3, atol=0.03)


@pytest.mark.parametrize("method", ["ica", "nongaussian"])
@pytest.mark.parametrize(
    "d", [2, pytest.param(4, marks=SLOW), pytest.param(8, marks=SLOW)]
)
def test_mixed_sources_are_recovered(method, d):
    x, mixing = _mixed_sources(d)
    q = rotation.fit_rotation(x, method=method, key=KEY)
    overlap = np.abs(mixing @ np.asarray(q))  # a permutation, up to signs
    assert overlap.max(axis=0).min() > 0.995
    assert sorted(overlap.argmax(axis=0)) == list(range(d))


def test_nongaussian_rotation_lowers_the_marginal_entropies_of_the_moons():
    moons = pytest.importorskip("sklearn.datasets").make_moons
    x = moons(3000, noise=0.06, random_state=0)[0]
    x = (x - x.mean(0)) / x.std(0)
    sums = {
        method: _entropies(
            x @ np.asarray(rotation.fit_rotation(x, method=method, key=KEY))
        ).sum()
        for method in ("pca", "nongaussian")
    }
    assert sums["nongaussian"] < sums["pca"] - 0.05
    assert sums["nongaussian"] < _entropies(x).sum() - 0.1


@pytest.mark.parametrize("d", [2, 5, 8])
def test_every_pair_meets_once_in_a_tournament(d):
    rounds = rotation._rounds(d)
    assert all(len(np.unique(r)) == r.size for r in rounds)
    pairs = {tuple(p) for r in rounds for p in r}
    assert len(pairs) == d * (d - 1) // 2 == rounds.shape[0] * rounds.shape[1]


@pytest.mark.parametrize("method", ["pca", "ica", "nongaussian"])
def test_rows_of_weight_zero_have_no_influence(method):
    x, _ = _mixed_sources(3, 3000)
    keep = np.random.default_rng(1).random(3000) < 0.7
    poisoned = np.where(keep[:, None], x, np.nan)
    weights = keep.astype(np.float32)
    got = rotation.fit_rotation(poisoned, method=method, key=KEY, weights=weights)
    want = rotation.fit_rotation(
        x[keep], method=method, key=KEY, weights=np.ones(keep.sum(), np.float32)
    )
    np.testing.assert_allclose(got, want, atol=2e-3)


@pytest.mark.parametrize("method", rotation.METHODS)
def test_same_key_gives_the_same_bits(method):
    x, _ = _mixed_sources(3, 1000)
    first, second = (rotation.fit_rotation(x, method=method, key=KEY) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("method", rotation.METHODS)
def test_sharded_rows_give_the_rotation_of_one_device(method):
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices")
    axis = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=axis)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, _ = _mixed_sources(3, 1600)
    x = x * np.array([1.0, 2.0, 3.0], np.float32)
    got = rotation.fit_rotation(jax.device_put(x, rows), method=method, key=KEY)
    want = rotation.fit_rotation(x, method=method, key=KEY)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_unknown_method_lists_the_choices():
    message = "`method` must be one of pca, random, ica, nongaussian, got 'pcs'"
    with pytest.raises(ValueError, match=message):
        rotation.fit_rotation(np.ones((3, 2)), method="pcs", key=KEY)
