import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.fit import entropy


# The kernel's width adds entropy, more to edges and to narrow columns.
@pytest.mark.parametrize(("scale", "atol"), [(0.5, 0.15), (1.0, 0.08)])
def test_estimates_agree_with_known_entropies(scale, atol):
    rng = np.random.default_rng(0)
    y = jnp.asarray(np.stack([rng.normal(size=4000), rng.uniform(-2, 2, 4000)])) * scale
    want = np.array([0.5 * np.log(2 * np.pi * np.e), np.log(4)]) + np.log(scale)
    np.testing.assert_allclose(entropy.of_rows(y), want, atol=atol)


def test_projections_have_the_entropies_of_the_projected_rows():
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, 4000)
    v = 0.3 * rng.normal(size=4000) + rng.choice([-1, 1], 4000)
    white = np.linalg.cholesky(np.linalg.inv(np.cov(u, v))).T @ [
        u - u.mean(),
        v - v.mean(),
    ]
    white = jnp.asarray(white, jnp.float32)
    angles = jnp.linspace(-np.pi, np.pi, 37)
    found = entropy.at_angle(jax.jit(entropy.of_projections)(*white), angles)
    rows = jnp.cos(angles)[:, None] * white[0] + jnp.sin(angles)[:, None] * white[1]
    np.testing.assert_allclose(found, entropy.of_rows(rows), atol=4e-3)
    assert found.max() - found.min() > 0.3
