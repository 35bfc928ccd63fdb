"""Models with state in training: statistics, random streams, sown values, adapters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
from tests.nn.users import Loud, network, one_layer
from trainers import TrainConfig, fit, restore
from trainers.placement.strategy import Pmap

X = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
CONFIG = TrainConfig(
    num_steps=4, batch_size=32, eval_every=2, steps_per_dispatch=2, checkpoint_every=2
)


class Scored(nnx.Module):
    """A network whose mean square is the loss."""

    def __init__(self, trunk):
        self.trunk = trunk

    def log_prob(self, x):
        return -jnp.sum(self.trunk(x) ** 2, axis=-1)


def train(model, **options):
    own = {field.name for field in dataclasses.fields(CONFIG)} & options.keys()
    config = dataclasses.replace(CONFIG, **{name: options.pop(name) for name in own})
    return fit(model, X, config=config, progress=False, **options)


def test_a_flow_trains_with_statistics_in_its_conditioner():
    flow = rn.GaussianizationFlow([one_layer(trunk=network("batch norm"))])
    result = train(flow, context=X)
    norms = [f.layers[0].conditioner.trunk.layers[1] for f in (flow, result.model)]
    np.testing.assert_array_equal(norms[0].mean[...], 0)
    assert abs(norms[1].mean[...]).min() > 1e-5


def test_statistics_stand_still_in_evaluation():
    model = Scored(network("batch norm"))
    few, many = ({"rows": X[:8]}, {"rows": X, "more": X})
    means = [
        train(model, monitor=m).model.trunk.layers[1].mean[...] for m in (few, many)
    ]
    np.testing.assert_array_equal(*means)
    # Four steps of batches whose means are small: not as many as evaluations also.
    assert 0 < abs(means[0]).max() < 0.1


def counted(model):
    return int(model.trunk.layers[1].rngs.count[...])


def test_dropout_draws_anew_and_the_same_after_a_restart(tmp_path):
    model = Scored(network("dropout"))
    whole = train(model, workdir=tmp_path / "whole")
    assert counted(model) == 0
    assert counted(whole.model) == 4

    def stop(step, _):
        if step == 2:
            raise KeyError

    with pytest.raises(KeyError):
        train(model, workdir=tmp_path / "parts", callback=stop)
    parts = train(model, workdir=tmp_path / "parts")
    for name in ("loss", "train"):
        np.testing.assert_array_equal(parts.history[name], whole.history[name])
    models = [restore(tmp_path / n, model, step="last") for n in ("whole", "parts")]
    assert list(map(counted, models)) == [4, 4]
    kernels = [m.trunk.layers[0].kernel[...] for m in models]
    np.testing.assert_array_equal(*kernels)


def test_sown_values_do_not_add_up():
    with pytest.warns(DeprecationWarning, match="sow"):
        result = train(Scored(Loud(1, 4, rngs=nnx.Rngs(0))))
    assert not jax.tree.leaves(nnx.state(result.model, nnx.Intermediate))


def adapted():
    linear = nnx.LoRALinear(1, 4, lora_rank=2, rngs=nnx.Rngs(0))
    return one_layer(hidden=(4,)), linear


def test_an_adapter_trains_alone():
    layer, adapter = adapted()
    layer.conditioner.trunk.layers[0] = adapter
    flow = rn.GaussianizationFlow([layer])
    result = train(flow, context=X, trainable=nnx.LoRAParam)
    trained = result.model.layers[0].conditioner.trunk.layers[0]
    assert abs(trained.lora.lora_b[...]).max() > 1e-4
    np.testing.assert_array_equal(trained.kernel[...], adapter.kernel[...])


def test_variables_that_the_loss_does_not_read_are_refused():
    layer, adapter = adapted()
    layer.unused = adapter
    flow = rn.GaussianizationFlow([layer])
    told = (
        r"`trainable` must match .*LoRAParam.* matches layers\.0\.unused\.lora\.lora_a"
    )
    with pytest.raises(ValueError, match=told):
        train(flow, context=X, trainable=nnx.LoRAParam)


class Grows(nnx.Module):
    def __init__(self, name):
        self.name, self.scale = name, nnx.Param(jnp.ones(()))
        self.last = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        x = x * self.scale[...]
        if self.name == "last":
            self.last = nnx.BatchStat(jnp.zeros(2))
        else:
            self.first = nnx.BatchStat(jnp.zeros(()))
        return x


@pytest.mark.parametrize("name", ["last", "first"])
def test_what_a_step_cannot_carry_is_named(name):
    told = rf"`loss_fn` may write .* changes of trunk\.{name}\. Call the model once"
    with pytest.raises(ValueError, match=told):
        train(Scored(Grows(name)))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("transform", [nnx.remat, nnx.jit])
def test_transforms_that_write_all_variables_back_change_nothing(transform, parts):
    class Within(Scored):
        def log_prob(self, x):
            return transform(Scored.log_prob)(self, x)

    plain, within = (
        train(kind(network("batch norm")), accumulate=parts)
        for kind in (Scored, Within)
    )
    losses = [result.history["loss"][1:] for result in (plain, within)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert abs(within.model.trunk.layers[1].mean[...]).max() > 1e-4


@pytest.mark.parametrize("norm", [nnx.WeightNorm, nnx.SpectralNorm])
def test_kernels_that_a_layer_normalises_where_they_lie_train(norm):
    rngs = nnx.Rngs(0)
    model = Scored(norm(nnx.Linear(1, 4, rngs=rngs), rngs=rngs))
    found = train(model, ema_decay=0.0).model.trunk.layer_instance
    kernel = found.kernel[...]
    size = abs(kernel) if norm is nnx.WeightNorm else np.linalg.norm(kernel)
    np.testing.assert_allclose(size, 1, atol=0.05)  # and one step
    assert abs(found.bias[...]).max() > 1e-4


class Quantised(nnx.Module):
    """Integers and their scale: in a variable each, or both in one."""

    def __init__(self, apart):
        steps, scale = jnp.ones((1, 4), jnp.int8), jnp.ones(())
        if apart:
            self.steps, self.scale = nnx.Param(steps), nnx.Param(scale)
        else:
            self.both = nnx.Param({"steps": steps, "scale": scale})

    def __call__(self, x):
        return x @ (self.steps[...] * self.scale[...])


def test_variables_that_cannot_train_are_named():
    with pytest.raises(ValueError, match=r"floats; .* matches trunk\.steps of int8"):
        train(Scored(Quantised(apart=True)))
    with pytest.raises(ValueError, match=r"got a dict in trunk\.both\. Build or"):
        train(Scored(Quantised(apart=False)))
    abstract = nnx.eval_shape(lambda: Scored(Quantised(apart=True)))
    with pytest.raises(
        ValueError, match=r"ShapeDtypeStruct in trunk\.scale\. Build or"
    ):
        train(abstract)
    filter_ = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("steps")))
    found = train(Scored(Quantised(apart=True)), trainable=filter_).model.trunk
    assert found.scale[...] != 1


def test_copies_of_what_is_not_written_keep_their_bits():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:7]), ("data",))
    strategy = Pmap(mesh, ("data",))
    kept = np.float32([0.1, 1 / 3, 1e30, -np.inf, np.nan])

    def settled(kept, own):
        both = {"kept": kept, "own": own}
        after = {"kept": kept + 0, "own": own + jax.lax.axis_index("data")}
        return strategy.settled(both, after)

    over = jax.pmap(settled, axis_name="data", devices=mesh.devices.tolist())
    found = over(*(np.tile(a, (7, 1)) for a in (kept, np.ones(1, np.float32))))
    np.testing.assert_array_equal(found["kept"], np.tile(kept, (7, 1)))
    np.testing.assert_allclose(found["own"], 4.0)
