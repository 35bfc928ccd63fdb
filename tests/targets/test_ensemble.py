"""Ensembles as `nnx.vmap` makes them."""

import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn
import trainers
from rbig_nnx.nn.surgery.members import leading_axes
from rbig_nnx.targets import rows as target_rows
from tests.targets.models import (
    X,
    assert_same,
    coupling,
    ensemble,
    leaves,
    warm,
)


@pytest.mark.slow
def test_members_of_an_ensemble_start_from_samples_of_their_own():
    model = ensemble(coupling, 3)
    before = [np.array(a) for a in leaves(model)]
    started, report = warm(model)
    assert list(report.flows) == ["[0]", "[1]", "[2]"]
    assert rn.output_kernel_magnitudes(started) == (0.0, 0.0)
    means = nnx.vmap(lambda flow: flow.log_prob(X).mean())(started)
    single = warm(coupling())[0].log_prob(X).mean()
    np.testing.assert_allclose(means, single, atol=0.15)
    assert len(np.unique(means)) == 3
    for a, b in zip(before, leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same(started, warm(model)[0])
    trunk = model.layers[2].conditioner.trunk
    assert_same(started.layers[2].conditioner.trunk, trunk)


@pytest.mark.slow
def test_an_ensemble_trains_by_the_mean_loss_of_its_members():
    started, _ = warm(ensemble(coupling, 3))

    def loss_fn(model, batch, key):
        del key
        return -nnx.vmap(lambda flow: flow.log_prob(batch))(model).mean(axis=0)

    config = trainers.TrainConfig(num_steps=8, batch_size=64, eval_every=4)
    result = trainers.fit(started, X, loss_fn=loss_fn, config=config, progress=False)
    assert result.history["train"][-1] > result.history["train"][0]
    scores = nnx.vmap(lambda flow: flow.log_prob(X).mean())(result.model)
    assert scores.shape == (3,)
    assert len(np.unique(scores)) == 3


class Head(nnx.Module):
    """A whole model that becomes an ensemble: every member has its own encoder."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(2, 2, rngs=rngs)
        self.flow = rn.diagonal_flow(2, 1, num_components=2, rngs=rngs)


def test_members_may_have_their_own_rows_as_those_of_their_own_encoders(monkeypatch):
    monkeypatch.setattr(target_rows, "_ROWS", 128)
    x = np.tanh(X)

    def encode(model, x):
        return nnx.vmap(lambda model: model.encoder(x))(model)

    started, report = warm(ensemble(Head, 2), x, flows={"flow": encode})
    assert list(report.flows) == ["flow[0]", "flow[1]"]
    rows = nnx.vmap(lambda model: model.encoder(x))(started)
    means = started.flow.layers[0].mean[...]
    np.testing.assert_allclose(means, rows.mean(axis=1), atol=0.3)
    assert np.abs(means[0] - means[1]).max() > 0.01
    again, _ = warm(ensemble(Head, 2).flow, np.asarray(rows))
    np.testing.assert_allclose(again.layers[0].mean[...], means, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"or \[2\] and then those for each; got shape"
    ):
        warm(again, np.stack([x, x, x]))
    # One encoder before an ensemble of flows gives all members the same rows.
    model = nnx.Dict(
        encoder=nnx.Linear(2, 2, rngs=nnx.Rngs(0)), flow=ensemble(coupling, 2)
    )
    reads = {"flow": lambda model, x: model["encoder"](x)}
    started, _ = warm(model, x, flows=reads)
    other, _ = warm(model["flow"], np.asarray(model["encoder"](x)))
    for a, b in zip(leaves(started["flow"]), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_members_of_members_start_too():
    started, report = warm(ensemble(coupling, 2, 3))
    assert list(report.flows)[:4] == ["[0, 0]", "[0, 1]", "[0, 2]", "[1, 0]"]
    means = nnx.vmap(nnx.vmap(lambda flow: flow.log_prob(X).mean()))(started)
    single = warm(coupling())[0].log_prob(X).mean()
    np.testing.assert_allclose(means, single, atol=0.15)


def everything(rngs):
    """A flow with every kind of layer, and a network that keeps statistics and draws."""
    options = {"num_components": 2, "context_features": 1, "rngs": rngs}
    trunk = nnx.Sequential(
        nnx.Linear(2, 4, rngs=rngs),
        nnx.BatchNorm(4, rngs=rngs),
        nnx.Dropout(0.5, rngs=rngs),
    )
    other = [
        rn.MixtureCDFCoupling(2, trunk=trunk, **options),
        rn.MixtureCDFCoupling(2, mask=(False, True), hidden=(4,), **options),
    ]
    scanned = rn.coupling_flow(
        2, 2, whiten=True, tails=True, scan_blocks=True, hidden=(4,), **options
    )
    few = rn.HouseholderRotation(2, num_reflections=1, rngs=rngs)
    return rn.GaussianizationFlow([*scanned.layers, few, *other])


@pytest.mark.slow
@pytest.mark.parametrize("rotation", ["pca", "auto"])
def test_members_can_all_that_one_flow_can(rotation):
    rows, context = np.tile(X, (2, 1)), np.arange(600.0)[:, None]
    options = {
        "context": context,
        "weights": 1.0 + np.arange(600) % 2,
        "rotation": rotation,
        "holdout": 0.1,
        "max_rows": 400,
    }
    single, one = warm(everything(nnx.Rngs(0)), rows, **options)
    started, report = warm(ensemble(everything, 2), rows, **options)
    for part in report.flows.values():
        assert [la.name for la in part.layers] == [la.name for la in one.layers]
    assert rn.output_kernel_magnitudes(started) == (0.0,) * 6
    single.eval()
    started.eval()
    score = nnx.vmap(lambda flow: flow.log_prob(rows, context).mean())
    want = single.log_prob(rows, context).mean()
    np.testing.assert_allclose(score(started), want, atol=0.2)
    means = started.layers[-2].conditioner.trunk.layers[1].mean[...]
    assert np.abs(means[0] - means[1]).max() > 0  # their own statistics


def test_kernels_of_an_ensemble_count_by_coupling():
    model = ensemble(lambda rngs: coupling(rngs, scan_blocks=True), 5)
    kernel = model.layers[1].layers[1].conditioner.out.kernel
    kernel[...] = kernel[...].at[3].set(-7.0)
    found = rn.output_kernel_magnitudes(model)
    assert len(found) == 2
    assert found[0] == 7.0
    assert found[1] < 7.0


@pytest.mark.parametrize(
    ("out_axes", "message"),
    [
        (1, "on the first axis of every variable; got variables stacked by"),
        (nnx.StateAxes({rn.Frozen: None, ...: 0}), r"beside one of shape \(2,\)"),
    ],
)
def test_members_that_are_not_on_the_first_axis_are_refused(out_axes, message):
    model = nnx.vmap(coupling, out_axes=out_axes)(nnx.Rngs(0).split(3))
    with pytest.raises(ValueError, match=message):
        warm(model)


def test_members_need_a_backend_that_takes_weights():
    with pytest.raises(ValueError, match="`backend` must be 'jax' for the members"):
        warm(ensemble(coupling, 2), backend="sklearn")


@pytest.mark.parametrize("layer", [rn.RadialTransform, rn.ClusterTransform])
def test_an_ensemble_of_one_layer_is_known_by_its_numbers(layer):
    def build(rngs):
        del rngs
        return rn.GaussianizationFlow([layer(2)])

    assert leading_axes(ensemble(build, 3)) == (3,)
    assert leading_axes(build(None)) == ()
