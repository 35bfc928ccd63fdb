"""Far outside of the data: densities that fade, and never NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.slow import slow

SCALES = np.array([1, 0.01, 100], np.float32)
FAR = [1e21, 1e25, 1e30, 3e38, 1e300, np.inf]


def lifted(flow):
    """As training leaves it: output kernels that are not 0."""
    for layer in flow.layers:
        if isinstance(layer, rn.MixtureCDFCoupling):
            kernel = layer.conditioner.out.kernel
            noise = jax.random.normal(jax.random.key(1), kernel.shape, kernel.dtype)
            kernel[...] = 0.5 * noise
    return flow


@pytest.fixture(scope="module", params=[0.01, 0.0], ids=["anchor", "no anchor"])
def flow(request):
    x = np.random.default_rng(0).normal(size=(500, 3)) * SCALES
    flow = rn.coupling_flow(
        3,
        2,
        num_components=3,
        hidden=(8,),
        anchor_weight=request.param,
        rngs=nnx.Rngs(0),
    )
    return lifted(rn.warm_start(flow, x, key=jax.random.key(0))[0])


@pytest.mark.parametrize("at", FAR)
def test_beyond_any_range_log_p_is_minus_infinity(flow, at):
    signs = np.array([[1, 0, 0], [0, 0, -1], [1, -1, 1]])
    rows = np.where(signs == 0, 0, np.copysign(at, signs))
    np.testing.assert_array_equal(flow.log_prob(rows), [-np.inf] * 3)
    assert not np.isnan(flow.forward_and_log_det(rows)[0]).any()


def test_far_out_log_p_falls_like_the_square(flow):
    rows = np.float32(10.0) ** np.arange(3, 17, dtype=np.float32)[:, None] * SCALES
    found = np.asarray(flow.log_prob(rows), np.float64)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.diff(np.log(-found)), 2 * np.log(10), rtol=0.05)


def test_a_missing_value_stays_one(flow):
    assert np.isnan(flow.log_prob(np.array([np.nan, 0, 0]))).all()


@pytest.fixture(scope="module")
def conditional():
    y, context = (np.random.default_rng(s).normal(size=(300, 2)) for s in (0, 1))
    flow = rn.coupling_flow(
        2, 2, num_components=3, hidden=(8,), context_features=2, rngs=nnx.Rngs(0)
    )
    flow, _ = rn.warm_start(flow, y, key=jax.random.key(0), context=context)
    return lifted(flow), y, context


@pytest.mark.parametrize("factor", [1e2, slow(1e4), slow(1e6), slow(1e30), 1e300])
def test_a_far_context_is_not_extrapolated(conditional, factor):
    flow, y, context = conditional
    far = factor * context
    assert np.isfinite(flow.log_prob(y, far)).all()
    assert np.isfinite(flow.sample(jax.random.key(0), (), far)).all()


def test_beyond_the_fade_the_context_has_no_say(conditional):
    flow, y, context = conditional
    far = np.copysign(1e3, context)
    np.testing.assert_allclose(
        flow.log_prob(y, far), flow.log_prob(y, -1e5 * far), atol=1e-5
    )


def test_a_context_within_reach_is_read(conditional):
    flow, y, _ = conditional
    rare = np.where(np.arange(300) == 0, 30.0, -0.03)[:, None] * [1, 1]
    moved = flow.log_prob(y, rare) - flow.log_prob(y, np.full_like(rare, -0.03))
    assert np.abs(moved[0]) > 0.1
    assert np.abs(moved[1:]).max() == 0


def test_gradients_of_far_rows_are_finite(flow):
    rows = jnp.asarray(1e8 * SCALES)

    def log_prob(rows):
        return flow.log_prob(rows)

    assert np.isfinite(jax.grad(log_prob)(rows)).all()


@pytest.mark.parametrize(
    "first",
    [
        lambda: rn.HouseholderRotation(3, rngs=nnx.Rngs(0)),
        lambda: rn.MixtureCDFMarginal(3, num_components=1),
    ],
    ids=["rotation", "marginal"],
)
def test_beyond_any_range_also_where_nothing_standardizes(first):
    flow = rn.GaussianizationFlow([first()])
    rows = np.float32([[1e30, 0, -1e30], [0, 0, 3e38], [np.inf, 0, 0]])
    np.testing.assert_array_equal(flow.log_prob(rows), [-np.inf] * 3)


def test_no_rows_are_no_error():
    flow = rn.coupling_flow(2, 1, num_components=1, hidden=(2,), rngs=nnx.Rngs(0))
    assert flow.log_prob(np.zeros((0, 2))).shape == (0,)
    x, log_prob = jax.eval_shape(lambda: flow.sample_and_log_prob(jax.random.key(0), 0))
    assert (x.shape, log_prob.shape) == ((0, 2), (0,))


def test_sizes_and_contexts_that_cannot_be_are_named():
    options = {"num_components": 1, "hidden": (2,), "context_features": 1}
    flow = rn.coupling_flow(2, 1, **options, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"`shape` must have sizes .* got \(2, -1\)"):
        flow.sample(jax.random.key(0), (2, -1), np.zeros(1))
    with pytest.raises(
        ValueError, match=r"`context` must have 1 features .* shape \(\)"
    ):
        flow.log_prob(np.zeros(2), 1.0)
