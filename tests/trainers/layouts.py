"""One small run, for every layout that trains it."""

import dataclasses

import jax
import numpy as np
from flax import nnx

import rbig_nnx as rn
from tests.trainers.tiny import Tiny
from trainers import TrainConfig
from trainers.placement.strategy import make_strategy
from trainers.rows.feed import ResidentFeed
from trainers.rows.resident import ResidentRows
from trainers.run.program import Program
from trainers.run.step import negative_log_prob

_RNG = np.random.default_rng(0)
# 101 rows: they do not divide over the devices, the batches do.
X = (_RNG.normal(size=(101, 2)) ** 3).astype(np.float32)
VALID = (_RNG.normal(size=(50, 2)) ** 3).astype(np.float32)
WEIGHTS = np.arange(101) % 4  # of rows; some are not there
QUICK = TrainConfig(
    num_steps=8,
    batch_size=16,
    eval_every=4,
    eval_rows=80,
    steps_per_dispatch=3,
    learning_rate=0.03,
)
STRATA = dataclasses.replace(QUICK, strata=8)
SPLIT = (("*.kernel", (None, "model")),)
HISTORY = ("train", "valid", "loss", "grad_norm")


def mesh_of(*shape: int) -> jax.sharding.Mesh:
    """Devices along "data", and "model" if there is a second number."""
    return jax.make_mesh(shape, ("data", "model")[: len(shape)])


def flow(num_blocks: int = 1, **options) -> rn.GaussianizationFlow:
    """A small flow in two dimensions."""
    options = {"num_components": 2, "hidden": (8,), **options}
    return rn.coupling_flow(2, num_blocks, rngs=nnx.Rngs(0), **options)


MODELS = {"tiny": Tiny, "flow": flow}
LAYOUTS = {
    "8 data": lambda: {"mesh": mesh_of(8)},
    "4 data x 2 model": lambda: {"mesh": mesh_of(4, 2), "partition": SPLIT},
    "pmap on 8": lambda: {"mesh": mesh_of(8), "strategy": "pmap"},
}


def program_of(mesh, *, model=None, partition=(), rows=X, config=QUICK) -> Program:
    """A program, of which the arrays and what was compiled can be looked at."""
    strategy = make_strategy("jit", mesh)
    resident = ResidentRows(rows, strategy.mesh)
    return Program(
        model or Tiny(),
        ResidentFeed(
            resident,
            strategy,
            batch_size=config.batch_size,
            seed=config.seed,
            strata=config.strata,
        ),
        {"train": rows},
        config=config,
        strategy=strategy,
        partition=partition,
        loss_fn=negative_log_prob,
        trainable=nnx.Param,
    )


def assert_same_run(one, other, **tolerance):
    """Asserts equal histories, given as dictionaries."""
    for name in HISTORY:
        np.testing.assert_allclose(one[name], other[name], err_msg=name, **tolerance)
