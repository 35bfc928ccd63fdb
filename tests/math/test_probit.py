import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from rbig_nnx.math import probit


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 3e-7), ("float64", 3e-14)])
def test_scaled_tail_matches_scipy(dtype, rtol):
    with jax.enable_x64(True):
        t = np.concatenate([np.linspace(0, 40, 2001), np.geomspace(40, 1e7, 200)])
        t = t.astype(dtype)
        expected = 0.5 * scipy.special.erfcx(t.astype(float) / np.sqrt(2))
        np.testing.assert_allclose(probit.scaled_tail(jnp.asarray(t)), expected, rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 4e-7), ("float64", 1e-12)])
def test_probit_matches_scipy_far_into_the_tail(dtype, rtol):
    with jax.enable_x64(True):
        log_tail = -np.geomspace(0.6932, 1e9, 3001).astype(dtype)
        expected = -scipy.special.ndtri_exp(log_tail.astype(float))
        z = probit.log_tail_to_z(jnp.asarray(log_tail))
        # At the median z is a difference of rounded numbers: absolute error there.
        np.testing.assert_allclose(z, expected, rtol, atol=2 * rtol)


def test_probit_gradients_to_second_order():
    with jax.enable_x64(True):
        for log_tail in (-0.8, -5.0, -400.0):
            check_grads(
                jax.jit(probit.log_tail_to_z), (jnp.float64(log_tail),), order=2
            )
