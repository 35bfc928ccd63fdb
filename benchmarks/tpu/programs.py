"""The programs for a mesh that is not there: arguments are shapes with shardings."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import rbig_nnx as rn
from benchmarks.models import entrants, programs
from rbig_nnx.fit import em
from trainers.config import TrainConfig
from trainers.placement.strategy import Jit
from trainers.rows.noise import noise_factors
from trainers.run import program
from trainers.run.optimizer import Numbers, make_optimizer
from trainers.run.step import init_state, make_train_steps, negative_log_prob

KERNELS = (("*.kernel", (None, "model")),)
_STEPS = 8  # that a dispatch takes at most: shapes, not work
_BINS, _STARTS = 1_280, 4


class Size(NamedTuple):
    """Of a flow and its batches."""

    num_features: int = 8
    num_blocks: int = 4
    rows_a_chip: int = 4_096


def _on(tree: Any, where: Any) -> Any:
    """The arrays' shapes, lying so: one sharding or a tree of them."""
    if isinstance(where, NamedSharding):
        where = jax.tree.map(lambda _: where, tree)

    def one(leaf, place):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(one, jax.tree.map(jax.typeof, tree), where)


def _places(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(
        mesh, PartitionSpec("data")
    )


def _flow(size: Size) -> rn.GaussianizationFlow:
    return rn.coupling_flow(
        size.num_features,
        size.num_blocks,
        num_components=entrants.NUM_COMPONENTS,
        hidden=(entrants.WIDTH, entrants.WIDTH),
        rngs=nnx.Rngs(0),
    )


def lower(function: Callable, args: tuple, **options: Any) -> jax.stages.Lowered:
    """For TPUs, whatever this machine has; what asks for the platform is told so too."""
    with mock.patch("jax.default_backend", return_value="tpu"):
        traced = jax.jit(function, **options).trace(*args)
    return traced.lower(lowering_platforms=("tpu",))


def training_step(
    mesh: Mesh, size: Size, *, partition: Any = (), strata: bool = False
) -> jax.stages.Lowered:
    """The trainer's loop over steps, of which one is counted."""
    model = _flow(size)
    model.train()
    batch = size.rows_a_chip * mesh.size
    config = TrainConfig(batch_size=batch)
    strategy = Jit(mesh, ("data",))
    everywhere, by_row = _places(mesh)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    optimizer = make_optimizer(config)
    layout = program._layout(model, params, rest, optimizer, mesh, partition)
    state = jax.eval_shape(
        functools.partial(init_state, optimizer=optimizer, seed=0), params, rest
    )
    sample = programs.rows_of(1_024, size.num_features)
    rows = jax.ShapeDtypeStruct((4 * batch, size.num_features), jnp.float32)
    index = jax.ShapeDtypeStruct((_STEPS, batch), jnp.int32)
    args = (
        _on(state, layout),
        _on(rows, by_row),
        _on(noise_factors(sample, config.jitter), everywhere),
        _on(Numbers.of(config), everywhere),
        _on(index, strategy.by_device if strata else everywhere),
        _on(np.int32(0), everywhere),
    )
    function = make_train_steps(
        graphdef,
        loss_fn=negative_log_prob,
        values=(),
        optimizer=functools.partial(make_optimizer, config),
        trainable=nnx.Param,
        config=config,
        strategy=strategy,
        rows_move=not strata,
        rows_apart=True,
        layout=layout,
    )
    places = layout, everywhere, everywhere
    return lower(function, args, donate_argnums=0, out_shardings=places)


def sampling(mesh: Mesh, size: Size) -> jax.stages.Lowered:
    """Draws that lie over the data axis."""
    graphdef, state = nnx.split(_flow(size))
    everywhere, by_row = _places(mesh)
    count = size.rows_a_chip * mesh.shape["data"]

    def draw(state, key):
        return nnx.merge(graphdef, state, copy=True).sample(key, count)

    args = _on((state, jax.random.key(0)), everywhere)
    return lower(draw, args, out_shardings=by_row)


def sampling_apart(mesh: Mesh, size: Size) -> jax.stages.Lowered:
    """The same, each chip with a key of its own and for itself."""
    graphdef, state = nnx.split(_flow(size))
    everywhere, by_row = _places(mesh)

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(everywhere.spec, by_row.spec),
        out_specs=by_row.spec,
    )
    def draw(state, keys):
        flow = nnx.merge(graphdef, state, copy=True)
        return flow.sample(keys[0], size.rows_a_chip)

    keys = jax.random.split(jax.random.key(0), mesh.shape["data"])
    return lower(draw, (_on(state, everywhere), _on(keys, by_row)))


def expectation_maximisation(mesh: Mesh, size: Size) -> jax.stages.Lowered:
    """The warm start's EM of one block, which every chip does for itself."""
    everywhere, _ = _places(mesh)
    d, k = size.num_features, entrants.NUM_COMPONENTS
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    points = em.Points(*[shape((2, d, _BINS))] * 3, shape((2, d)))
    starts = em.Mixture(*[shape((_STARTS, k, d))] * 3)
    cycles = jax.ShapeDtypeStruct((3,), jnp.int32)

    def fit(starts, points, cycles):
        return em.best_of(starts, points, cycles, "gaussian", 0.05)

    return lower(fit, _on((starts, points, cycles), everywhere))


def plain_step(mesh: Mesh, size: Size, name: str) -> jax.stages.Lowered:
    """Adam on rows that are given: this library's flow, or the naive one beside it."""
    entrant = entrants.ENTRANTS[name](size.num_features, size.num_blocks)
    everywhere, by_row = _places(mesh)
    rows = jax.ShapeDtypeStruct(
        (size.rows_a_chip * mesh.size, size.num_features), jnp.float32
    )
    function, args = programs.step(entrant, rows)
    params, opt_state, rows = args

    def step(params, opt_state, x):
        with jax.default_matmul_precision("highest"):
            return function(params, opt_state, x)

    return lower(step, (*_on((params, opt_state), everywhere), _on(rows, by_row)))
