"""What a training step is made of, each piece alone: how far the step is from its floor."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import rbig_nnx as rn
from benchmarks.models import programs
from benchmarks.models.entrants import ENTRANTS, NUM_COMPONENTS
from benchmarks.report import Row
from benchmarks.sections import speed
from rbig_nnx.math import components
from rbig_nnx.math.params import ANCHOR_WEIGHT


def pieces(dims, batches) -> list[Row]:
    """A step beside its networks and its mixtures, with their gradients.

    Measured is one coupling, alone in the cache, times the number of couplings. No step is
    shorter than its networks.
    """
    return [_row(d, batch) for d in dims for batch in batches]


def _row(d: int, batch: int) -> Row:
    entrant = ENTRANTS[programs.OURS](d, programs.NUM_BLOCKS)
    step, opt_state = programs.train_step(entrant)
    couplings = 2 * programs.NUM_BLOCKS
    layer = rn.MixtureCDFCoupling(d, num_components=NUM_COMPONENTS, rngs=nnx.Rngs(0))
    mask = np.asarray(layer.mask)
    graphdef, params, rest = nnx.split(layer.conditioner, nnx.Param, ...)

    def predict(params, passive):
        return nnx.merge(graphdef, params, rest, copy=True)(passive.T).T

    gaussianize = functools.partial(
        components.gaussianize, family="gaussian", anchor_weight=ANCHOR_WEIGHT
    )
    x = jnp.asarray(programs.rows_of(batch, d))
    passive, moved = x.T[mask], x.T[~mask]
    packed = predict(params, passive)
    mixtures = jnp.split(packed.reshape(3 * NUM_COMPONENTS, *moved.shape), 3)
    parts = {
        programs.OURS: (step, (entrant.params, opt_state, x)),
        "networks": (_with_gradients(predict), (packed, params, passive)),
        "mixtures": (
            _with_gradients(gaussianize),
            ((moved, moved), moved, *mixtures),
        ),
    }
    _, seconds = speed.compared(list(parts), parts.__getitem__)
    seconds["networks"] *= couplings
    seconds["mixtures"] *= couplings
    row = speed.row_of("pieces of the training step", seconds, batch, d=d, batch=batch)
    weights = couplings * sum(p.size for p in jax.tree.leaves(params) if p.ndim == 2)
    # A product and its two gradients, each a multiplication and an addition.
    row["gflops"] = 6e-9 * weights * batch / seconds["networks"]
    row["ns_a_component"] = 1e9 * seconds["mixtures"] / (couplings * mixtures[0].size)
    return row


def _with_gradients(function: Callable) -> Callable:
    def outputs_and_gradients(cotangents, *args):
        outputs, pull = jax.vjp(function, *args)
        return outputs, pull(cotangents)

    return outputs_and_gradients
