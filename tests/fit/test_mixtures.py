import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.fit.mixtures import _choose


@pytest.mark.parametrize(
    ("width", "lead", "chosen"),
    [(0.0, 0.9, 1), (0.0, 1.5, 0), (0.6, 0.9, 1), (0.6, 1.5, 1), (0.6, 2.1, 0)],
)
def test_a_wider_fit_must_lead_by_more(width, lead, chosen):
    """Of a fit and a Gaussian; `lead` is in standard errors, which are a nat of all rows."""
    n = 400
    gains = np.random.default_rng(0).normal(size=n)
    gains = ((gains - gains.mean()) / gains.std() + lead / np.sqrt(n)) / np.sqrt(n)
    found = jnp.stack([gains, np.zeros(n)])[..., None]
    widths = jnp.array([[width], [0.0]])
    candidates, densities = _choose(found, widths, jnp.ones(n), may_stay=False)
    assert candidates.tolist() == [chosen]
    np.testing.assert_array_equal(densities, found[chosen, :, 0])
