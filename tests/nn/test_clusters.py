import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.mixture
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow


def rows_of(n, seed=0):
    """Three clusters of three columns, each with a shape of its own."""
    rng = np.random.default_rng(seed)
    shapes = np.tril(np.random.default_rng(5).normal(size=(3, 3, 3))) * 0.3
    means = 2 * np.eye(3)
    which = rng.integers(3, size=n)
    noise = (shapes + 0.1 * np.eye(3))[which] @ rng.normal(size=(n, 3, 1))
    return (means[which] + noise[..., 0]).astype(np.float32)


def only_clusters(num_components=4, d=3):
    layer = rn.ClusterTransform(d, num_components=num_components)
    return rn.GaussianizationFlow([rn.Standardize(d), layer])


def started(x, flow=None, **options):
    return rn.warm_start(flow or only_clusters(), x, key=jax.random.key(0), **options)


@pytest.mark.parametrize("build", [rn.coupling_flow, rn.diagonal_flow])
def test_the_recipes_place_it_before_the_blocks(build):
    flow = build(2, 1, tails=True, clusters=3, rngs=nnx.Rngs(0))
    names = [type(layer).__name__ for layer in flow.layers[:4]]
    assert names[1:] == ["TailTransform", "ClusterTransform", "HouseholderRotation"]
    assert flow.layers[2].num_components == 3
    assert inspect.signature(build).parameters["clusters"].default == 0


def test_the_configuration_builds_it_again():
    layer = rn.ClusterTransform(2, num_components=3, anchor_weight=0.02)
    flow = rn.GaussianizationFlow([layer])
    config = rn.to_config(flow)
    again = rn.from_config(config, rngs=nnx.Rngs(1))
    assert again.layers[0].config() == layer.config()
    assert config["layers"][0]["anchor_weight"] == 0.02


def test_untouched_it_is_the_identity_up_to_rounding():
    x = jnp.array([-30.0, -2.5, 0.0, 1e-30, 7.0])
    y, log_det = rn.ClusterTransform(5)(x)
    np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


@pytest.mark.parametrize("holdout", [0.1, 0.0])
def test_alone_it_has_the_density_of_a_gaussian_mixture(holdout):
    x, fresh = rows_of(600), rows_of(4_000, seed=1)
    warm, report = started(x, only_clusters(3), holdout=holdout)
    peer = sklearn.mixture.GaussianMixture(3, random_state=0, n_init=5).fit(x)
    gap = warm.log_prob(fresh).mean() - peer.score(fresh)
    assert report.layers[1].action == "3 clusters" or holdout
    assert -0.08 < gap < 0.08


def test_of_few_rows_it_is_ahead_of_a_plain_mixture():
    x, fresh = rows_of(40), rows_of(4_000, seed=1)
    warm, _ = started(x)
    plain = sklearn.mixture.GaussianMixture(4, random_state=0, n_init=5).fit(x)
    assert warm.log_prob(fresh).mean() > plain.score(fresh) + 0.5


def test_without_clusters_it_stays_the_identity():
    x = np.random.default_rng(0).normal(size=(400, 3))
    warm, report = started(x)
    assert report.layers[1].action == "left as it is"
    np.testing.assert_array_equal(warm.layers[1].slopes[...], 0)


def test_its_samples_have_the_density():
    x = rows_of(600)
    warm, _ = started(x)
    drawn = warm.sample(jax.random.key(1), 4_000)
    fresh = rows_of(4_000, seed=1)
    gap = warm.log_prob(drawn).mean() - warm.log_prob(fresh).mean()
    assert -0.2 < gap < 0.4  # a fit is surer of its own rows
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.12)


def test_rows_that_repeat_are_fitted():
    x = np.arange(400)[:, None] % [4, 2]
    warm, _ = started(x, only_clusters(16, d=2))
    assert np.isfinite(warm.log_prob(x)).all()


def test_rows_of_no_weight_are_not_fitted():
    x = rows_of(300)
    worse = np.concatenate([x, np.full((50, 3), 40.0) + rows_of(50, seed=2)])
    weights = np.repeat([1.0, 0.0], [300, 50])
    warm, _ = started(worse, weights=weights)
    fresh = rows_of(2_000, seed=1)
    alone, _ = started(x)
    gap = warm.log_prob(fresh).mean() - alone.log_prob(fresh).mean()
    assert abs(gap) < 0.1


def test_components_that_are_not_needed_are_parts_of_others():
    x = rows_of(300)
    warm, report = started(x, only_clusters(16))
    layer = warm.layers[1]
    number = int(report.layers[1].action.split()[0])
    assert number < 16
    assert len(np.unique(layer.offsets[...], axis=0)) == number
    np.testing.assert_allclose(np.exp(layer.logits[...]).sum(), 1, rtol=1e-5)


def test_training_does_not_widen_what_reaches_furthest():
    warm, _ = started(rows_of(300))
    layer = warm.layers[1]
    before = layer.cluster_params().log_scales
    layer.log_scales[...] = layer.log_scales[...] + 5
    widest = np.maximum(np.max(before, axis=0), 0)
    np.testing.assert_allclose(layer.cluster_params().log_scales.max(0), widest)


@slow
def test_members_of_an_ensemble_are_fitted_to_their_own_rows():
    @nnx.vmap(in_axes=0, out_axes=0)
    def build(key):
        del key
        return only_clusters()

    flows = build(jax.random.split(jax.random.key(0), 2))
    warm, report = started(rows_of(300), flows)
    offsets = warm.layers[1].offsets[...]
    assert offsets.shape == (2, 4, 3)
    assert len(report.flows) == 2
    assert np.abs(offsets[0] - offsets[1]).max() > 1e-3


@pytest.mark.parametrize("d", [1, 2])
def test_its_density_integrates_to_one(d):
    x = rows_of(300)[:, :d]
    warm, _ = started(x, only_clusters(d=d))
    axis = np.linspace(-9, 11, 40_001 if d == 1 else 1_001)
    points = np.stack(np.meshgrid(*[axis] * d), axis=-1).reshape(-1, d)
    total = np.exp(np.asarray(warm.log_prob(points.astype(np.float32)), float)).sum()
    np.testing.assert_allclose(total * (axis[1] - axis[0]) ** d, 1, atol=2e-3)


@pytest.mark.parametrize(
    ("clusters", "rule"),
    [(-1, "at least 0"), *((c, "a whole number") for c in (2.0, "4", True, None))],
)
def test_what_is_no_number_of_clusters_is_refused(clusters, rule):
    with pytest.raises(
        ValueError, match=f"`clusters` must be {rule}; got {clusters!r}"
    ):
        rn.coupling_flow(2, 1, clusters=clusters, rngs=nnx.Rngs(0))


def test_there_are_no_more_clusters_than_rows():
    _, report = started(rows_of(15), only_clusters(20), holdout=0.0)
    assert report.layers[1].action == "15 clusters"
