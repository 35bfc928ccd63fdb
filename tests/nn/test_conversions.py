"""Blocks in a list and stacked ones: the same flow either way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.nn.flows import X, assert_same_density, build, diagonal, widened


def test_stacked_blocks_and_lists_convert():
    listed = build(3)
    stacked = rn.stack_blocks(listed)
    assert isinstance(stacked.layers[1], rn.ScannedBlocks)
    assert stacked.layers[1].num_blocks == 3
    assert_same_density(listed, stacked)
    back = rn.unstack_blocks(stacked)
    assert rn.to_config(back) == rn.to_config(listed)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(back), nnx.state(listed))
    again = rn.stack_blocks(stacked)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(stacked))
    one = rn.stack_blocks(diagonal())
    assert one.layers[1].num_blocks == 1


def test_blocks_that_differ_are_stacked_apart():
    layers = [*diagonal().layers, *diagonal(num_reflections=3).layers[1:]]
    stacked = rn.stack_blocks(rn.GaussianizationFlow(layers))
    assert [getattr(la, "num_blocks", 0) for la in stacked.layers] == [0, 1, 1]
    with pytest.raises(ValueError, match="must have blocks to stack"):
        rn.stack_blocks(rn.GaussianizationFlow([rn.Standardize(2)]))


@pytest.mark.parametrize(
    ("recipe", "whiten"),
    [(rn.coupling_flow, True), (rn.coupling_flow, False), (rn.diagonal_flow, True)],
)
def test_a_map_of_each_column_before_the_blocks_is_none_of_them(recipe, whiten):
    flow = recipe(
        2, 2, num_components=1, marginals=True, whiten=whiten, rngs=nnx.Rngs(0)
    )
    first = ["Standardize", "MixtureCDFMarginal", *["Whiten"] * whiten]
    for each, num_blocks in ((flow, 2), (rn.widen(flow, num_blocks=3), 3)):
        stacked = rn.stack_blocks(each)
        names = [type(layer).__name__ for layer in stacked.layers]
        assert names == [*first, "ScannedBlocks"]
        assert stacked.layers[-1].num_blocks == num_blocks
        assert_same_density(flow, each)


def test_members_of_an_ensemble_are_converted_one_by_one():
    make = nnx.vmap(lambda rngs: rn.diagonal_flow(2, 2, num_components=1, rngs=rngs))
    ensemble = make(nnx.Rngs(0).split(3))
    for convert in (rn.stack_blocks, rn.unstack_blocks, widened):
        with pytest.raises(
            ValueError, match=r"ensemble of shape \(3,\)\. Convert each"
        ):
            convert(ensemble)

    members = [jax.tree.map(lambda a, i=i: a[i], ensemble) for i in range(3)]
    wide = [widened(member, num_components=2, num_blocks=3) for member in members]
    together = jax.tree.map(lambda *a: jnp.stack(a), *wide)
    found = nnx.vmap(lambda flow: flow.log_prob(X))(together)
    np.testing.assert_allclose(found[1], members[1].log_prob(X), rtol=1e-5, atol=1e-5)
