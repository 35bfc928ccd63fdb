"""Arguments of `fit` that are of another kind, told before any work."""

import pytest
from flax import nnx

from tests.trainers.tiny import Tiny
from trainers import FlowDensity, TrainConfig, Trainer, fit

X = [[0.0, 1.0], [1.0, 2.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"config": {"num_steps": 1}}, r"a TrainConfig, as .*; got {'num_steps': 1}\."),
        ({"config": {}}, r"a TrainConfig, as .*; got {}\."),
        ({"monitor": [X]}, r"rows by name, as {\"test\": x_test}; got \[\[\[0"),
        ({"mesh": 1}, r"a jax\.sharding\.Mesh, as of jax\.make_mesh; got 1\."),
        ({"callback": 3}, r"a function \(step, model\); got 3\."),
        (
            {"writer": 3},
            "an object with the methods `write_scalars` and `flush`; got 3",
        ),
        ({"loss_fn": "mse"}, r"a function \(model, batch, key\) -> loss; got 'mse'\."),
        ({"identity": [1]}, r"a dictionary for JSON, as .*; got \[1\]\."),
    ],
)
def test_another_kind_is_told_before_any_work(tmp_path, wrong, message):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^`{name}` must be {message}"):
        fit(Tiny(), X, workdir=tmp_path / "run", progress=False, **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "came"),
    [
        (FlowDensity(), r"a FlowDensity\. Call its own `fit`\."),
        (Tiny, r"the class Tiny\. Build one first\."),
        ("flow", "a str"),
    ],
)
def test_what_is_no_module_is_told(model, came):
    for call in (fit, Trainer(config=TrainConfig(num_steps=1)).fit):
        with pytest.raises(
            ValueError, match=f"`model` must be an nnx.Module; got {came}"
        ):
            call(model, X)


def test_a_module_that_is_no_pytree_is_one():
    class Plain(nnx.Module, pytree=False):
        pass

    with pytest.raises(ValueError, match="`model` must have parameters to train"):
        fit(Plain(), X, loss_fn=lambda *_: 0.0, progress=False)
