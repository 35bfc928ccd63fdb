import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.contracts import check_bijector
from tests.slow import slow


def rngs():
    return nnx.Rngs(0)


class Trunk(nnx.Module):
    """Somebody's trunk: one layer with a skip connection."""

    def __init__(self, width, *, rngs):
        self.dense = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        return x + jnp.tanh(self.dense(x))


LAYERS = {
    "standardize": lambda: rn.Standardize(3),
    "tails": lambda: rn.TailTransform(3),
    "whiten": lambda: rn.Whiten(3),
    "radial": lambda: rn.RadialTransform(3),
    "clusters": lambda: rn.ClusterTransform(3, num_components=2),
    "rotation": lambda: rn.HouseholderRotation(3, rngs=rngs()),
    "rotation, one reflection": lambda: rn.HouseholderRotation(
        3, num_reflections=1, rngs=rngs()
    ),
    "frozen rotation": lambda: rn.HouseholderRotation(3, trainable="none", rngs=rngs()),
    "marginal": lambda: rn.MixtureCDFMarginal(3),
    "marginal, logistic": lambda: rn.MixtureCDFMarginal(3, family="logistic"),
    "coupling": lambda: rn.MixtureCDFCoupling(3, rngs=rngs()),
    "coupling, mask": lambda: rn.MixtureCDFCoupling(
        3, mask=(False, True, False), num_components=2, rngs=rngs()
    ),
    "coupling, logistic": lambda: rn.MixtureCDFCoupling(
        3, family="logistic", rngs=rngs()
    ),
    "coupling, own trunk": lambda: rn.MixtureCDFCoupling(
        3, trunk=Trunk(1, rngs=rngs()), rngs=rngs()
    ),
}


# Families and masks are told apart by the contract of the bijectors.
@pytest.mark.parametrize(
    "name",
    [slow(n) if n.endswith(("logistic", " mask")) else n for n in LAYERS],
)
def test_contract(name):
    x = jax.random.normal(jax.random.key(1), (6, 3))
    check_bijector(LAYERS[name]().bijector(), x)


@pytest.mark.parametrize("name", LAYERS)
def test_split_merge_clone_and_eval_shape(name):
    layer = LAYERS[name]()
    x = jax.random.normal(jax.random.key(1), (6, 3))
    y = layer.bijector().forward(x)
    np.testing.assert_array_equal(nnx.merge(*nnx.split(layer)).bijector().forward(x), y)
    np.testing.assert_array_equal(nnx.clone(layer).bijector().forward(x), y)
    abstract = nnx.eval_shape(LAYERS[name])
    shapes = jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(layer)))
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(abstract))) == shapes


def test_no_layer_stores_a_distrax_object():
    for name in LAYERS:
        layer = LAYERS[name]()
        stored = [v for v in vars(layer).values() if isinstance(v, distrax.Bijector)]
        assert not stored, name


def test_constant_conditioner_ignores_its_input_for_any_trunk():
    for trunk in (None, Trunk(2, rngs=rngs())):
        conditioner = rn.Conditioner(2, 5, trunk=trunk, rngs=rngs())
        x = jax.random.normal(jax.random.key(0), (4, 2))
        assert np.ptp(conditioner(x), axis=0).max() > 0
        bias = jnp.arange(5.0)
        conditioner.make_constant(bias)
        np.testing.assert_array_equal(conditioner(x), jnp.broadcast_to(bias, (4, 5)))


def test_wrong_bias_shape_is_refused():
    conditioner = rn.Conditioner(2, 5, rngs=rngs())
    with pytest.raises(ValueError, match=r"`bias` must have shape \(5,\); got \(4,\)"):
        conditioner.make_constant(jnp.zeros(4))


def test_coupling_with_constant_conditioner_is_the_marginal_map():
    coupling = rn.MixtureCDFCoupling(3, mask=(False, True, False), rngs=rngs())
    marginal = rn.MixtureCDFMarginal(2)
    coupling.set_mixtures(marginal.mixture_params())
    x = jax.random.normal(jax.random.key(1), (6, 3))
    y, log_det = coupling.bijector().forward_and_log_det(x)
    expected, expected_log_det = marginal.bijector().forward_and_log_det(x[:, ::2])
    np.testing.assert_allclose(y[:, ::2], expected, atol=1e-6)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-5)


def test_conditioner_in_bfloat16_keeps_float32_maps():
    layer = rn.MixtureCDFCoupling(2, dtype=jnp.bfloat16, rngs=rngs())
    exact = rn.MixtureCDFCoupling(2, rngs=rngs())
    x = jax.random.normal(jax.random.key(1), (64, 2))
    y, log_det = layer.bijector().forward_and_log_det(x)
    assert y.dtype == log_det.dtype == jnp.float32
    assert layer.conditioner.out.kernel.dtype == jnp.float32
    error = np.abs(y - exact.bijector().forward(x)).max()
    assert 0 < error < 0.05


def test_metadata_reaches_the_variables():
    metadata = {"group": "kernels"}
    layer = rn.MixtureCDFCoupling(2, kernel_metadata=metadata, rngs=rngs())
    assert layer.conditioner.out.kernel.get_metadata()["group"] == "kernels"
    rotation = rn.HouseholderRotation(2, vectors_metadata={"a": 1}, rngs=rngs())
    assert rotation.vectors.get_metadata()["a"] == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: rn.MixtureCDFCoupling(3, mask=(True, False), rngs=rngs()),
            "one entry",
        ),
        (lambda: rn.MixtureCDFCoupling(1, rngs=rngs()), "MixtureCDFMarginal"),
        (lambda: rn.MixtureCDFMarginal(2, num_components=0), "`num_components`"),
        (lambda: rn.MixtureCDFMarginal(2, family="cauchy"), "`family` must be one of"),
        (lambda: rn.MixtureCDFMarginal(2, anchor_weight=1.0), "`anchor_weight`"),
        (
            lambda: rn.HouseholderRotation(2, num_reflections=0, rngs=rngs()),
            "`num_reflections` must be at least 1",
        ),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("x", [np.ones((5, 2)), np.c_[np.arange(5.0), np.arange(5.0)]])
def test_whitening_of_rows_without_spread_is_finite(x):
    layer = rn.Whiten(2)
    layer.set_covariance(np.cov(x.T))
    assert np.isfinite(layer.bijector().forward(jnp.asarray(x, jnp.float32))).all()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_is_called_says_its_width(name):
    with pytest.raises(ValueError, match=r"`x` must have 3 features .* \(2, 1\)"):
        LAYERS[name]()(jnp.ones((2, 1)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_of_16_bits_leave_log_dets_true(dtype):
    whiten = rn.Whiten(3, param_dtype=dtype)
    whiten.set_covariance(jnp.array([[4.0, 1, 0], [1, 0.5, 0], [0, 0, 2]]))
    for layer in (rn.HouseholderRotation(3, param_dtype=dtype, rngs=rngs()), whiten):
        check_bijector(layer.bijector(), jax.random.normal(jax.random.key(1), (6, 3)))
    standardize = rn.Standardize(3, param_dtype=dtype)
    assert standardize.mean.dtype == standardize.log_scale.dtype == jnp.float32


@pytest.mark.parametrize(
    ("covariance", "said"),
    [
        (-np.eye(2), "no negative variance; got -1"),
        (np.full((2, 2), np.nan), "finite and symmetric"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "finite and symmetric"),
        (np.eye(3), r"shape \(2, 2\); got \(3, 3\)"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance, said):
    with pytest.raises(ValueError, match=f"`covariance` must .*{said}"):
        rn.Whiten(2).set_covariance(covariance)


def test_parameters_of_another_layer_are_refused_whole():
    layer = rn.TailTransform(2)
    with pytest.raises(ValueError, match=r"`params` .* \[\(2,\)"):
        layer.set_tails(rn.TailTransform(3).tail_params())
    assert not layer.location[...].any()
