from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from rbig_nnx.math import probit


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 3e-7), ("float64", 3e-14)])
def test_the_tail_matches_scipy(dtype, rtol):
    with jax.enable_x64(True):
        t = np.concatenate([np.linspace(0, 40, 2001), np.geomspace(40, 1e7, 200)])
        t = t.astype(dtype)
        expected = 0.5 * scipy.special.erfcx(t.astype(float) / np.sqrt(2))
        np.testing.assert_allclose(
            probit.times_tail(1.0, jnp.asarray(t)), expected, rtol
        )


@pytest.mark.parametrize(
    ("dtype", "rtol", "farthest"), [("float32", 4e-7, 1e9), ("float64", 1e-13, 1e4)]
)
def test_probit_matches_scipy_far_into_the_tail(dtype, rtol, farthest):
    # SciPy itself is off by 6e-13 at z = 1000; the test below has the digits.
    with jax.enable_x64(True):
        log_tail = -np.geomspace(0.6932, farthest, 3001).astype(dtype)
        expected = -scipy.special.ndtri_exp(log_tail.astype(float))
        z = probit.log_tail_to_z(jnp.asarray(log_tail))
        # At the median z is a difference of rounded numbers: absolute error there.
        np.testing.assert_allclose(z, expected, rtol, atol=2 * rtol)


def exact_log_tail(z):
    """log Φ(−z) to 40 digits for z ≥ 20, by the asymptotic series."""
    z, term, total = Decimal(z), Decimal(1), Decimal(1)
    for k in range(1, 25):
        term *= -(2 * k - 1) / (z * z)
        total += term
    root_two_pi = Decimal("2.50662827463100050241576528481104525300699")
    return -z * z / 2 - (z * root_two_pi).ln() + total.ln()


@pytest.mark.parametrize("z", [20.0, 50.0, 150.0, 400.0, 1e3, 1e4, 1e7])
def test_probit_in_double_precision_is_right_to_the_last_bits(z):
    with localcontext(prec=50):
        log_tail = float(exact_log_tail(z))
        # Newton: the z of the rounded log_tail, not of the one before rounding.
        expected = Decimal(z)
        for _ in range(4):
            slope = expected + 1 / expected
            expected += (exact_log_tail(expected) - Decimal(log_tail)) / slope
    with jax.enable_x64(True):
        found = float(probit.log_tail_to_z(jnp.float64(log_tail)))
    assert found == pytest.approx(float(expected), rel=5e-16, abs=0)


def test_probit_gradients_to_second_order():
    with jax.enable_x64(True):
        for log_tail in (-0.8, -5.0, -400.0):
            check_grads(
                jax.jit(probit.log_tail_to_z), (jnp.float64(log_tail),), order=2
            )
