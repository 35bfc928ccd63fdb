"""Components split into parts of the same mixture, and mixtures that are normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from rbig_nnx.math.params import MixtureParams, exact_identity, parts_of, split


def test_parts_of_components_by_hand():
    params = MixtureParams(
        *jnp.array([[[0.0, 1.0]], [[2.0, -1.0]], [[0.0, jnp.log(3.0)]]])
    )
    source, place = parts_of(params.logits, 5)
    np.testing.assert_array_equal(source, [[0, 1, 1, 0, 1]])
    np.testing.assert_array_equal(place, [[-1, -1, 0, 1, 1]])
    more = split(params, source, 0.1 * place)
    np.testing.assert_allclose(more.means, [[1.9, -1.3, -1.0, 2.1, -0.7]], rtol=1e-6)
    weights = jax.nn.softmax(more.logits)[0]
    both = jax.nn.softmax(params.logits)[0]
    np.testing.assert_allclose(weights[0] + weights[3], both[0], rtol=1e-6)
    np.testing.assert_allclose(weights[1] + weights[2] + weights[4], both[1], rtol=1e-6)
    variances = jnp.exp(2 * more.log_scales[0])
    np.testing.assert_allclose(variances[0] + 0.01, 1, rtol=1e-6)
    np.testing.assert_allclose(variances[1] + 0.06, 9, rtol=1e-6)  # 2/3 of 0.3 squared


@pytest.mark.parametrize("num_components", [1, 2, 9])
def test_the_exact_identity_is_a_standard_normal(num_components):
    logits, means, log_scales = exact_identity(num_components)
    x = np.linspace(-5, 5, 21)[:, None]
    parts = scipy.stats.norm.logpdf(x, means, np.exp(log_scales))
    found = scipy.special.logsumexp(parts + jax.nn.log_softmax(logits), axis=-1)
    np.testing.assert_allclose(found, scipy.stats.norm.logpdf(x[:, 0]), atol=2e-6)
    assert len(set(means.tolist())) == num_components
