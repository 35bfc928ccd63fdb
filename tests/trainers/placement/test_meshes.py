"""Meshes as people have them: explicit axes, a mesh that is set, axes of any names."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.trainers.layouts import QUICK, SPLIT, VALID, X, assert_same_run, mesh_of
from tests.trainers.tiny import Tiny
from trainers import fit

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")


def run(**options):
    return fit(Tiny(), X, VALID, config=QUICK, progress=False, **options)


@pytest.fixture(scope="module")
def alone():
    return run()


@pytest.mark.parametrize(
    "types", [(AxisType.Explicit,) * 2, (AxisType.Explicit, AxisType.Auto)]
)
def test_a_run_under_a_set_mesh_gives_the_losses_of_one_device(types, alone):
    mesh, seen = jax.make_mesh((4, 2), ("data", "model"), axis_types=types), []
    with jax.set_mesh(mesh):
        rows = jax.device_put(X[:100], NamedSharding(mesh, PartitionSpec("data")))

        def look(step, model):
            seen.append(model.log_prob(rows).mean())

        result = run(mesh=mesh, callback=look)
        again = fit(result.model, X, config=QUICK, mesh=mesh, progress=False)
    assert_same_run(result.history, alone.history, rtol=1e-5)
    assert len(seen) == len(result.history["step"])
    assert {a.sharding.mesh for a in jax.tree.leaves(result.model)} == {mesh}
    assert again.history["train"][0] == pytest.approx(result.history["train"][-1])


def test_a_model_on_explicit_axes_trains_where_it_lies(alone):
    mesh = mesh_of(8)
    model = jax.device_put(Tiny(), NamedSharding(mesh, PartitionSpec()))
    result = fit(model, X, VALID, config=QUICK, progress=False)
    assert_same_run(result.history, alone.history, rtol=1e-5)
    assert {a.sharding.mesh for a in jax.tree.leaves(result.model)} == {mesh}


@pytest.mark.parametrize(
    ("shape", "names", "axes"),
    [
        ((8,), ("batch",), "batch"),
        ((2, 4), ("replica", "fsdp"), ("replica", "fsdp")),
        ((2, 4), ("replica", "fsdp"), ("fsdp", "replica")),
        ((4, 2), ("rows", "model"), "rows"),
    ],
)
def test_rows_are_spread_over_the_axes_that_are_named(shape, names, axes, alone):
    partition = SPLIT if "model" in names else ()
    result = run(mesh=jax.make_mesh(shape, names), data_axis=axes, partition=partition)
    assert_same_run(result.history, alone.history, rtol=1e-5)


def test_copies_take_a_mesh_of_any_name(alone):
    mesh = jax.make_mesh((8,), ("batch",))
    result = run(mesh=mesh, data_axis="batch", strategy="pmap")
    np.testing.assert_allclose(
        result.history["train"], alone.history["train"], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mesh": True}, "Say which .* data_axis='batch'"),
        ({"mesh": True, "data_axis": "data"}, "must name axes of the mesh, .'batch'"),
        ({"mesh": True, "data_axis": ("batch", "batch")}, "each once"),
        ({"data_axis": "data"}, "`data_axis` must name axes of `mesh`.* and no mesh"),
    ],
)
def test_axes_that_cannot_be_are_refused(options, message):
    if "mesh" in options:
        options = options | {"mesh": jax.make_mesh((8,), ("batch",))}
    with pytest.raises(ValueError, match=message):
        run(**options)
