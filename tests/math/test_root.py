import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rbig_nnx.math import mixture, root
from rbig_nnx.math.params import FAMILIES, MixtureParams
from tests.math.test_mixture import random_params


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_round_trip_to_z_12(seed, family):
    params = random_params(seed)
    z = jnp.linspace(-12, 12, 2001)
    x = root.quantile(z, params, family=family)
    back, log_det = mixture.gaussianize(x, params, family=family)
    # One ulp of x moves z by the slope: nothing can do better.
    ulp = np.exp(log_det) * np.maximum(np.abs(x), 1e-3) * 2.0**-23
    assert np.max(np.abs(back - z) / (1e-5 + 2 * ulp)) < 1


NEEDLES = MixtureParams(jnp.zeros(2), jnp.array([-1e4, 1e4]), jnp.full(2, np.log(1e-3)))


def test_worst_mixtures_converge():
    # Needles of width 1e-3 up to 1e4 apart: Newton alone leaves for infinity.
    for means in ([-1.0, 1.0], [0.0, 100.0], [-1e4, 1e4]):
        params = MixtureParams(
            jnp.zeros(2), jnp.array(means), jnp.full(2, np.log(1e-3))
        )
        z = jnp.linspace(-6, 6, 401)
        x = root.quantile(z, params)
        step = np.spacing(np.abs(np.asarray(x))) * 4
        below, _ = mixture.gaussianize(x - step, params)
        above, _ = mixture.gaussianize(x + step, params)
        assert np.all(below <= z + 1e-5)
        assert np.all(above >= z - 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_implicit_gradient_is_that_of_finite_differences(family):
    with jax.enable_x64(True):
        params = MixtureParams(*(p.astype(float) for p in random_params(8)))

        @jax.jit
        def quantile(z, params):
            return root.quantile(z, params, family=family)

        for z in (-7.0, -0.4, 0.0, 3.0):
            check_grads(quantile, (jnp.float64(z), params), order=1, rtol=1e-5)


def test_a_point_does_not_depend_on_its_neighbours_or_on_the_layout():
    params = random_params(3)
    z = jnp.linspace(-6, 6, 64)
    together = root.quantile(z, params)
    mapped = jax.vmap(lambda point: root.quantile(point, params))(z)
    np.testing.assert_allclose(mapped, together, rtol=1e-6, atol=1e-6)
    # A neighbour that takes four times the steps.
    needles = MixtureParams(
        *(
            jnp.stack([jnp.resize(p, 2), q])
            for p, q in zip(params, NEEDLES, strict=True)
        )
    )
    alone = root.quantile(z, MixtureParams(*(p[0] for p in needles)))
    beside = root.quantile(jnp.stack([z, z], -1), needles)[:, 0]
    np.testing.assert_array_equal(beside, alone)
    axis = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=axis)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    spread = root.quantile(jax.device_put(z, rows), params)
    np.testing.assert_allclose(spread, together, rtol=1e-6, atol=1e-6)


def test_points_on_many_devices_stop_without_a_message():
    if jax.device_count() < 8:
        pytest.skip("needs 8 devices")
    axis = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((8,), ("data",), axis_types=axis)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    z = jax.ShapeDtypeStruct((16_384,), jnp.float32, sharding=rows)
    of_rows = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct((16_384, p.size), p.dtype, sharding=rows),
        random_params(3),
    )
    text = root.quantile.lower(z, of_rows).compile().as_text()
    assert " while(" in text
    for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert name not in text


def test_points_and_mixtures_are_mapped_alike():
    params = jax.tree.map(lambda *p: jnp.stack(p), *map(random_params, (0, 1)))
    z = jnp.linspace(-3, 3, 6).reshape(2, 3)
    want = [root.quantile(z[i], MixtureParams(*(p[i] for p in params))) for i in (0, 1)]
    np.testing.assert_allclose(
        jax.vmap(root.quantile)(z, params), jnp.stack(want), rtol=1e-6
    )
    same_points = jax.vmap(root.quantile, in_axes=(None, 0))(z[0], params)
    np.testing.assert_allclose(same_points[0], want[0], rtol=1e-6)


@pytest.mark.parametrize("z", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_come_back(z):
    found = root.quantile(jnp.array([z, 0.5]), random_params(0))
    np.testing.assert_array_equal(found[0], np.float32(z))
    assert np.isfinite(found[1])
