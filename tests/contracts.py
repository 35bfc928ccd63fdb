"""One check for every bijector; a new one is a line in the dictionary of its test."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np


def check_bijector(bijector, x, *, rtol=1e-4, atol=2e-5):
    """Shapes, round trip, log det against autodiff, under jit and vmap; Distrax wrappers.

    Args:
      bijector: a `distrax.Bijector`.
      x: inputs, [6, *event].
    """
    n = bijector.event_ndims_in
    event = x.shape[1:]
    assert len(event) == max(n, 1)

    @jax.jit
    def both_ways(points):
        y, log_det = bijector.forward_and_log_det(points)
        return y, log_det, *bijector.inverse_and_log_det(y)

    for points in (x[0], x):
        y, log_det, *_ = jax.eval_shape(both_ways, points)
        assert (y.shape, y.dtype) == (points.shape, points.dtype)
        assert log_det.shape == points.shape[: points.ndim - n]
    points = x.reshape(2, 3, *event)
    y, log_det, back, inverse_log_det = both_ways(points)
    assert (y.shape, y.dtype) == (points.shape, points.dtype)
    assert log_det.shape == points.shape[: points.ndim - n]
    np.testing.assert_allclose(back, points, rtol, atol)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol, atol * 10)
    y, log_det = y.reshape(x.shape), log_det.reshape(len(x), *log_det.shape[2:])
    summed = jnp.sum(log_det, axis=tuple(range(1, log_det.ndim)))

    @jax.jit
    @jax.vmap
    def one_point(point):
        def forward(p):
            return bijector.forward_and_log_det(p)

        jacobian = jax.jacfwd(lambda p: forward(p)[0])(point)
        grad = jax.grad(lambda p: sum(map(jnp.sum, forward(p))))(point)
        slogdet = jnp.linalg.slogdet(jacobian.reshape(point.size, -1))[1]
        return forward(point)[0], slogdet, grad

    y_alone, slogdet, grad = one_point(x)
    np.testing.assert_allclose(y_alone, y, rtol, atol)
    np.testing.assert_allclose(summed, slogdet, rtol, atol * 10)
    assert np.all(np.isfinite(grad))

    as_vector = bijector if n == 1 else distrax.Block(bijector, 1)
    base = distrax.MultivariateNormalDiag(jnp.zeros(event), jnp.ones(event))
    density = distrax.Transformed(base, distrax.Inverse(as_vector))

    @jax.jit
    def through_distrax(points):
        tfp = distrax.to_tfp(bijector)
        return density.log_prob(points), base.log_prob(y), tfp.forward(points)

    log_prob, base_log_prob, tfp_y = through_distrax(x)
    np.testing.assert_allclose(log_prob, base_log_prob + summed, rtol, atol * 10)
    np.testing.assert_allclose(tfp_y, y, rtol, atol)
