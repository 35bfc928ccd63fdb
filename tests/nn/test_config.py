"""Flows as JSON: layers of others by registration, and no map but the one that was."""

import json

import distrax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn import config as module
from tests.nn.users import Loud


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(module, "_LAYERS", dict(module._LAYERS))


def build(**change):
    arguments = {"num_components": 2, "hidden": (4,)} | change
    return rn.coupling_flow(2, 1, **arguments, rngs=nnx.Rngs(0))


class Scale(nnx.Module):
    """Somebody's layer."""

    def __init__(self, factor, *, rngs=None):
        self.factor = factor

    def bijector(self, context=None):
        return distrax.Block(distrax.ScalarAffine(0.0, self.factor), 1)

    def config(self):
        return {"factor": self.factor}


class Quiet(rn.MixtureCDFMarginal):
    """A subclass of a layer of this package."""


def test_a_registered_layer_is_described_and_built():
    flow = rn.GaussianizationFlow([Scale(2.0), Quiet(2, param_dtype=jnp.bfloat16)])
    with pytest.raises(
        ValueError, match=r"register its class by rbig_nnx\.register_layer"
    ):
        rn.to_config(flow)
    assert rn.register_layer(Scale) is Scale
    rn.register_layer(Quiet)
    config = rn.to_config(flow)
    assert config["layers"][0] == {"type": "Scale", "factor": 2.0}
    found = rn.from_config(config, rngs=nnx.Rngs(1))
    assert [type(layer) for layer in found.layers] == [Scale, Quiet]
    assert found.layers[0].factor == 2.0
    assert found.layers[1].bias.dtype == jnp.bfloat16


def test_an_unknown_type_is_refused_and_nothing_imported():
    config = rn.to_config(build())
    config["layers"][0]["type"] = "os.system"
    with pytest.raises(
        ValueError, match=r"got 'os\.system'\. Register a layer of your own"
    ):
        rn.from_config(config, rngs=nnx.Rngs(0))


def test_registration_is_checked():
    with pytest.raises(
        ValueError, match=r"must have a method config\(\) .* Loud has none"
    ):
        rn.register_layer(Loud)
    rn.register_layer(Scale)
    again = type("Scale", (Scale,), {"__qualname__": "Scale", "__module__": __name__})
    assert rn.register_layer(again) is again  # a notebook's cell that ran twice
    for name in ("Scale", "Standardize", "ScannedBlocks"):
        other = type(name, (Scale,), {"__module__": "elsewhere"})
        with pytest.raises(
            ValueError, match=f"a name of its own; {name} is also a class"
        ):
            rn.register_layer(other)


@pytest.mark.parametrize("number", [np.uint8, np.int64, np.array, jnp.int32])
def test_sizes_may_be_numbers_of_numpy_and_jax(number):
    def built(number, weight):
        sizes = {"num_components": number(2), "hidden": (number(4),)}
        sizes |= {"context_features": number(1), "anchor_weight": weight}
        return rn.coupling_flow(number(3), number(1), **sizes, rngs=nnx.Rngs(0))

    flow, same = built(number, np.float32(0.5)), built(int, 0.5)
    assert json.dumps(rn.to_config(flow)) == json.dumps(rn.to_config(same))
    assert nnx.graphdef(flow) == nnx.graphdef(same)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden": 8}, r"`hidden` must be widths, as \(64, 64\); got 8"),
        ({"hidden": (2.5,)}, "`hidden` must be a whole number; got 2.5"),
        ({"hidden": np.array([[8, 8]])}, "`hidden` must be a whole number; got array"),
        ({"num_components": True}, "`num_components` must be a whole number; got True"),
        ({"context_features": -1}, "`context_features` must be at least 0; got -1"),
    ],
)
def test_other_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        rn.coupling_flow(3, 1, **sizes, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("entry", [(1, 2), {"type": "x"}, jnp.ones(2)], ids=str)
def test_a_configuration_is_what_json_keeps(entry):
    layer = Scale(2.0)
    layer.config = lambda: entry if isinstance(entry, dict) else {"factor": entry}
    rn.register_layer(Scale)
    flow = rn.GaussianizationFlow([layer], num_features=2)
    with pytest.raises(ValueError, match=r"config\(\) of Scale must give what JSON"):
        rn.to_config(flow)


def exchanged(flow, **places):
    conditioner = flow.layers[2].conditioner
    if "trunk" in places:
        conditioner.trunk = places["trunk"]
    if "first" in places:
        conditioner.trunk.layers[0] = places["first"]
    return flow


@pytest.mark.parametrize(
    "places",
    [
        {"trunk": nnx.Linear(1, 4, rngs=nnx.Rngs(0))},
        {"first": Loud(1, 4, rngs=nnx.Rngs(0))},
        {"first": nnx.Linear(1, 4, precision="highest", rngs=nnx.Rngs(0))},
        {"first": nnx.LoRALinear(1, 4, lora_rank=2, rngs=nnx.Rngs(0))},
    ],
    ids=["trunk", "subclass", "option", "LoRA"],
)
def test_a_network_that_was_exchanged_is_not_described(places):
    with pytest.raises(
        ValueError, match="or layers of your own in it, cannot be described"
    ):
        rn.to_config(exchanged(build(), **places))


def test_parts_of_other_classes_are_not_described():
    class Half(rn.Conditioner):
        def __call__(self, x, context=None):
            return super().__call__(x, context) / 2

    class Thrice(rn.Standardize):
        pass

    flow = build()
    rngs, hidden = nnx.Rngs(0), flow.layers[2].conditioner.hidden
    out = flow.layers[2].conditioner.out.out_features
    flow.layers[2].conditioner = Half(1, out, hidden=hidden, rngs=rngs)
    with pytest.raises(ValueError, match="a Half with a trunk of type MLP, or layers"):
        rn.to_config(flow)
    with pytest.raises(ValueError, match=r"`hidden` can only grow .* got a Half with"):
        rn.widen(flow, hidden=(9,), rngs=rngs)
    flow = build()
    flow.standardize_context = nnx.data(Thrice(1))
    with pytest.raises(ValueError, match=r"only a Standardize itself .* got Thrice"):
        rn.to_config(flow)


def test_an_output_layer_without_a_dtype_is_not_described():
    flow = build()
    out = flow.layers[2].conditioner.out
    flow.layers[2].conditioner.out = nnx.Sequential(out)
    with pytest.raises(ValueError, match="or layers of your own in it"):
        rn.to_config(flow)


def test_a_wider_network_of_the_same_kind_is_described_as_it_is():
    flow = build()
    wide = rn.widen(flow, hidden=(7,), rngs=nnx.Rngs(0))
    assert rn.to_config(wide)["layers"][2]["hidden"] == [7]
    assert rn.to_config(nnx.eval_shape(build)) == rn.to_config(flow)
