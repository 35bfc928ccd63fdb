"""What makes a loss the same loss: its code, and what is bound to it."""

import functools
import logging

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trainers import TrainConfig
from trainers.checkpoints import held
from trainers.checkpoints.identity import differences, fingerprint

ROWS = np.arange(20_000.0).reshape(-1, 2)


class Model(nnx.Module):
    def __init__(self, value=0.0):
        self.mean = nnx.Param(jnp.full(2, value))


class Scaled:
    """A loss that is an object, and counts its calls."""

    def __init__(self, scale):
        self.scale, self.log = scale, logging.getLogger(__name__)

    def __call__(self, model, batch, key):
        return self.scale * batch.sum()

    def loss(self, model, batch, key):
        return batch.sum()


def closure(scale):
    return lambda model, batch, key: scale * batch.sum()


def halved(model, batch, key):
    """A loss."""
    return part(batch) / 2


def part(batch):
    return batch.sum()


def identity(loss_fn, rows=ROWS, model=None):
    return fingerprint(
        model or Model(),
        config=TrainConfig(),
        loss_fn=loss_fn,
        trainable=nnx.Param,
        data={"x_train": rows},
    )


def compiled(source, **names):
    """A function of a module of its own."""
    exec(source, space := {"__name__": "somebodys", **names})
    return space["loss"]


ONE = "def loss(model, batch, key):\n    '''About it.'''\n    return batch.sum() + 1"
CALLS = "def one(b):\n    return b.{}()\ndef loss(model, batch, key):\n    return one(batch)"


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (closure(1), closure(2), "the values that `loss_fn` has bound"),
        (closure(np.ones(3)), closure(np.zeros(3)), "the values that"),
        (closure(Model(0.0)), closure(Model(1.0)), "the values that"),
        (Scaled(1), Scaled(2), "the values that"),
        (
            functools.partial(halved, key=1),
            functools.partial(halved, key=2),
            "the values that",
        ),
        (compiled(ONE), compiled(ONE.replace("1", "2")), "the code of `loss_fn`"),
        (compiled(ONE), compiled(ONE.replace("sum", "max")), "the code of `loss_fn`"),
        (
            compiled(CALLS.format("sum")),
            compiled(CALLS.format("max")),
            "the code of `loss_fn`",
        ),
        (closure(1), closure(1), None),
        (Scaled(1), Scaled(1), None),
        (Scaled(1).loss, Scaled(1).loss, None),
        (nnx.jit(halved), nnx.jit(halved), None),
        (compiled(ONE), compiled(ONE.replace("About it", "\n\nOf another")), None),
        (
            compiled("\n\n# moved\n" + ONE),
            compiled(ONE.replace(" + 1", "  + 1  # x")),
            None,
        ),
    ],
)
def test_another_loss_is_told_and_the_same_is_not(before, now, told):
    found = differences(identity(before), identity(now))
    assert (told in found[0]) if told else not found


def test_byte_code_of_another_python_tells_nothing(monkeypatch):
    before = identity(compiled(ONE))
    monkeypatch.setattr("sys.implementation.cache_tag", "cpython-399")
    assert not differences(before, identity(compiled(ONE.replace("sum", "max"))))
    assert differences(identity(closure(1)), identity(closure(2)))


def test_a_run_of_an_earlier_release_knows_nothing_of_it():
    before = identity(compiled(ONE))
    del before["loss"]
    assert not differences(before, identity(compiled(ONE.replace("1", "2"))))


def test_an_object_that_changes_by_itself_does_not_count():
    loss = Scaled(1)
    before = held.held(loss, [])
    loss.log = object()
    assert held.held(loss, []) == before


@pytest.mark.parametrize("row", [0, 4_999, 9_999])
def test_every_row_counts(row):
    changed = ROWS.copy()
    changed[row, 1] = np.nextafter(changed[row, 1], np.inf)
    found = differences(identity(halved), identity(halved, changed))
    assert found == ["the values of `x_train`"]


def test_other_first_parameters_are_named():
    (told,) = differences(identity(halved), identity(halved, model=Model(1.0)))
    assert "the first parameters (mean;" in told
