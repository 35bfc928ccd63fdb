"""One check for every bijector; a new one is a line in the dictionary of its test."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np


def check_bijector(bijector, x, *, rtol=1e-4, atol=2e-5):
    """Shapes, round trip, log det against autodiff, jit, vmap, gradients, Distrax wrappers.

    Args:
      bijector: a `distrax.Bijector`.
      x: inputs, [6, *event].
    """
    n = bijector.event_ndims_in
    event = x.shape[1:]
    assert len(event) == max(n, 1)
    for batch in ((), (6,), (2, 3)):
        points = x[0] if batch == () else x.reshape(*batch, *event)
        y, log_det = bijector.forward_and_log_det(points)
        assert y.shape == points.shape
        assert y.dtype == points.dtype
        assert log_det.shape == points.shape[: points.ndim - n]
        back, inverse_log_det = bijector.inverse_and_log_det(y)
        np.testing.assert_allclose(back, points, rtol, atol)
        np.testing.assert_allclose(inverse_log_det, -log_det, rtol, atol * 10)

    y, log_det = bijector.forward_and_log_det(x)
    summed = jnp.sum(log_det, axis=tuple(range(1, log_det.ndim)))

    def slogdet(point):
        jacobian = jax.jacfwd(lambda p: bijector.forward_and_log_det(p)[0])(point)
        return jnp.linalg.slogdet(jacobian.reshape(point.size, -1))[1]

    np.testing.assert_allclose(summed, jax.vmap(slogdet)(x), rtol, atol * 10)
    for mapped in (
        jax.jit(bijector.forward_and_log_det),
        jax.vmap(bijector.forward_and_log_det),
    ):
        for a, b in zip(mapped(x), (y, log_det), strict=True):
            np.testing.assert_allclose(a, b, rtol, atol)

    def total(points):
        return sum(map(jnp.sum, bijector.forward_and_log_det(points)))

    assert np.all(np.isfinite(jax.grad(total)(x)))
    as_vector = bijector if n == 1 else distrax.Block(bijector, 1)
    base = distrax.MultivariateNormalDiag(jnp.zeros(event), jnp.ones(event))
    density = distrax.Transformed(base, distrax.Inverse(as_vector))
    np.testing.assert_allclose(
        density.log_prob(x), base.log_prob(y) + summed, rtol, atol * 10
    )
    tfp = distrax.to_tfp(bijector)
    np.testing.assert_allclose(tfp.forward(x), y, rtol, atol)
