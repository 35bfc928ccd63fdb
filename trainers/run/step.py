"""The state of a run, and the functions of it that run on the device."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import rbig_nnx as rn
from trainers.config import TrainConfig
from trainers.placement.names import by_pattern, dotted, names_of
from trainers.placement.strategy import Jit, Pmap
from trainers.run.metrics import EvalMetrics, TrainMetrics
from trainers.run.variables import watch, written

# (model, batch, key) -> loss, scalar or one for each row
LossFn = Callable[[Any, Any, jax.Array], jax.Array]


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, as plain nested dictionaries of arrays."""

    params: Any  # what the optimiser moves
    rest: Any  # everything else in the model: counters, statistics, frozen arrays
    opt_state: Any
    ema: Any  # running average of params; starts at them
    step: jax.Array  # int32, batches consumed, skipped ones included
    bad_streak: jax.Array  # int32, non-finite steps since the last good one
    bad_steps: jax.Array  # int32, non-finite steps in all
    key: jax.Array


def negative_log_prob(model: Any, batch: Any, key: jax.Array) -> jax.Array:
    """The default loss, -log p in nats for each row of x or of (x, context)."""
    del key
    x, context = batch if isinstance(batch, tuple) else (batch, None)
    return -(model.log_prob(x) if context is None else model.log_prob(x, context))


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """The loss of each row times its weight, of a batch of `Weighted` rows.

    Args:
      loss_fn: of the rows alone, with one loss for each of them.

    Raises:
      ValueError: (on use) a mean, of which the rows have no part of their own.
    """

    loss_fn: LossFn

    def __call__(self, model: Any, batch: Any, key: jax.Array) -> jax.Array:
        """As any `LossFn`."""
        loss = self.loss_fn(model, batch.rows, key)
        if jnp.shape(loss) != batch.weights.shape:
            raise ValueError(
                "`loss_fn` must return one loss for each row of the batch where"
                f" `weights` are given, shape {batch.weights.shape}; got shape"
                f" {jnp.shape(loss)}."
            )
        # A row of weight 0 may have any loss; training meets none of them.
        return jnp.where(batch.weights > 0, batch.weights * loss, 0)


def init_state(
    params: Any, rest: Any, *, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step; its arrays are copies."""
    zero = functools.partial(jnp.zeros, (), jnp.int32)
    copy = functools.partial(jax.tree.map, jnp.copy)  # the step donates its arguments
    return TrainState(
        params=copy(params),
        rest=copy(rest),
        opt_state=optimizer.init(params),
        ema=copy(params),
        step=zero(),
        bad_streak=zero(),
        bad_steps=zero(),
        key=jax.random.key(seed),
    )


class Numbers(NamedTuple):
    """Settings that a compiled step takes as arguments: runs that differ in them share it."""

    num_steps: Any
    learning_rate: Any
    weight_decay: Any
    ema_decay: Any

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """As float32, whatever the parameters are."""
        values = (getattr(config, name) for name in cls._fields)
        return cls(*(np.float32(value) for value in values))


def learning_rate(
    config: TrainConfig, numbers: Numbers | None = None
) -> optax.Schedule:
    """The peak, or up to it and down again along two half cosines.

    Args:
      config: settings.
      numbers: those of the settings that are traced; None for the ones of `config`.
    """
    n, peak, *_ = Numbers.of(config) if numbers is None else numbers
    if config.schedule == "constant":
        return lambda count: jnp.full_like(count, peak, jnp.float32)
    up = jnp.maximum(jnp.round(config.warmup_fraction * n), 1)
    low, end = config.initial_fraction * peak, config.final_fraction * peak

    def schedule(count):
        rise = jnp.clip(count / up, 0.0, 1.0)
        fall = jnp.clip((count - up) / jnp.maximum(n - up, 1), 0.0, 1.0)
        start = jnp.where(count < up, low, end)
        share = jnp.where(
            count < up,
            (1 - jnp.cos(jnp.pi * rise)) / 2,
            (1 + jnp.cos(jnp.pi * fall)) / 2,
        )
        return start + (peak - start) * share

    return schedule


def make_optimizer(
    config: TrainConfig, numbers: Numbers | None = None
) -> optax.GradientTransformation:
    """Clip by global norm, then Adam with decoupled decay on kernels only.

    Biases carry the fitted mixtures and Householder vectors the rotations; pulling
    those to zero would undo the warm start. Last, `learning_rates` by name.

    Args:
      config: settings.
      numbers: those of the settings that are traced; None for the ones of `config`.

    Raises:
      ValueError: (on use) a pattern of `learning_rates` that matches nothing.
    """
    numbers = Numbers.of(config) if numbers is None else numbers
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, numbers),
            # No step takes more than all of a kernel: it would grow with a changing sign.
            weight_decay=jnp.minimum(numbers.weight_decay, 1 / numbers.learning_rate),
            mask=is_kernel,
        ),
        _scaled_by_name(config.learning_rates),
    )


def _scaled_by_name(patterns):
    def scale(updates, params):
        del params
        names = names_of(updates)
        factors = by_pattern(names, patterns, argument="learning_rates", default=1.0)
        return jax.tree_util.tree_map_with_path(
            lambda path, update: update * factors[dotted(path)], updates
        )

    return optax.stateless(scale)


def is_kernel(params: Any) -> Any:
    """True for the arrays whose name is "kernel", same structure as `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )


def make_train_steps(
    graphdef: Any,
    *,
    loss_fn: LossFn,
    optimizer: Callable[[Numbers], optax.GradientTransformation],
    trainable: Any,
    config: TrainConfig,
    strategy: Jit | Pmap,
    rows_move: bool,
) -> Callable[..., tuple[TrainState, TrainMetrics, jax.Array]]:
    """Builds `(state, rows, factors, numbers, indices, count) -> (state, metrics, streak)`.

    The function takes `count` steps, on the batches that the first `count` lines of
    `indices` name. A step whose loss or gradient is not finite changes nothing but the
    counters; `streak` is the longest run of such steps that it saw the end of.

    Args:
      graphdef: the model's static part.
      loss_fn: (model, batch, key) -> loss, scalar or one for each row.
      optimizer: of the parameters, given the traced settings.
      trainable: NNX filter of the parameters.
      config: its `accumulate` counts.
      strategy: where rows and gradients lie.
      rows_move: whether a device may need rows that others hold.
    """
    take = strategy.take if rows_move else strategy.take_own
    watched, seen = watch()

    def loss_of(params, rest, batch, key):
        # Without copies Dropout would count on a Variable of the outer trace.
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(rest), copy=True)
        # A dispatch takes many steps in one memory.
        with rn.keep_activations():
            loss = jnp.mean(loss_fn(model, batch, key))
        return watched(loss), written(model, trainable, params, rest)

    def loss_and_grads(params, rest, batch, key):
        """Of the whole batch, in `accumulate` parts of equal size."""
        function = jax.value_and_grad(loss_of, has_aux=True)
        if config.accumulate == 1:
            (loss, rest), grads = function(params, rest, batch, key)
            return loss, rest, grads
        # Strided parts: on a mesh each of them lies over all devices, without a move.
        parts = jax.tree.map(
            lambda leaf: jnp.moveaxis(
                leaf.reshape(-1, config.accumulate, *leaf.shape[1:]), 1, 0
            ),
            batch,
        )
        keys = jax.random.split(key, config.accumulate)

        def add(carry, part):
            rest, total = carry
            (loss, rest), grads = function(params, rest, *part)
            return (rest, jax.tree.map(jnp.add, total, (loss, grads))), None

        first = jax.tree.map(lambda leaf: leaf[0], (parts, keys))
        (loss, _), grads = jax.eval_shape(function, params, rest, *first)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (loss, grads))
        (rest, total), _ = jax.lax.scan(add, (rest, zeros), (parts, keys))
        loss, grads = jax.tree.map(lambda leaf: leaf / config.accumulate, total)
        return loss, rest, grads

    def one_step(state, rows, factors, numbers, index):
        noise_key, loss_key = jax.random.split(
            jax.random.fold_in(state.key, state.step)
        )
        batch = take(rows, index)
        batch = _add_noise(batch, factors, noise_key, len(index), strategy.own_part)
        loss, rest, grads = loss_and_grads(state.params, state.rest, batch, loss_key)
        if not seen:
            names = names_of(state.params)
            raise ValueError(
                "`trainable` must match variables that the loss depends on;"
                f" {trainable!r} matches {', '.join(names[:3])}{', …' * (len(names) > 3)},"
                " and it depends on none. Call the layers that hold them, or choose others."
            )
        loss, grads = strategy.mean((loss, grads))
        rest = strategy.settled(state.rest, rest)
        norm = optax.tree.norm(grads)
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer(numbers).update(
            grads, state.opt_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
        ema = _averaged(state.ema, params, numbers.ema_decay)
        params, rest, opt_state, ema = jax.tree.map(
            functools.partial(jnp.where, good),
            (params, rest, opt_state, ema),
            (state.params, state.rest, state.opt_state, state.ema),
        )
        state = state.replace(
            params=params,
            rest=rest,
            opt_state=opt_state,
            ema=ema,
            step=state.step + 1,
            bad_streak=jnp.where(good, 0, state.bad_streak + 1),
            bad_steps=state.bad_steps + jnp.where(good, 0, 1),
        )
        return state, loss, norm, good

    def train_steps(state, rows, factors, numbers, indices, count):
        def body(i, carry):
            state, streak, log = carry
            state, *values = one_step(state, rows, factors, numbers, indices[i])
            log = [
                a.at[i].set(v.astype(a.dtype)) for a, v in zip(log, values, strict=True)
            ]
            return state, jnp.maximum(streak, state.bad_streak), log

        size = indices.shape[0]
        log = [jnp.zeros(size), jnp.zeros(size), jnp.zeros(size, bool)]
        # A loop of traced length: one compilation serves whole and part dispatches.
        state, streak, (loss, norm, good) = jax.lax.fori_loop(
            0, count, body, (state, jnp.zeros((), jnp.int32), log)
        )
        metrics = TrainMetrics.single_from_model_output(
            loss=loss, grad_norm=norm, mask=good
        )
        return state, metrics, streak

    return train_steps


def _averaged(ema: Any, params: Any, decay: Any) -> Any:
    """The running average after a step, in the types of the parameters."""

    def one(old, new):
        share = jnp.asarray(decay, old.dtype)
        return share * old + (1 - share) * new

    return jax.tree.map(one, ema, params)


def make_evaluate(graphdef: Any, *, loss_fn: LossFn) -> Callable[..., EvalMetrics]:
    """Builds `(params, rest, batch, mask, key) -> EvalMetrics` of minus the loss."""

    def evaluate(params, rest, batch, mask, key):
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(rest), copy=True)
        score = jnp.broadcast_to(-loss_fn(model, batch, key), mask.shape)
        return EvalMetrics.single_from_model_output(score=score, mask=mask)

    return evaluate


def _add_noise(batch, factors, key, batch_size, own_part):
    def noise(leaf):
        # Drawn for the whole batch: a row gets the same noise in every layout.
        whole = jax.random.normal(key, (batch_size, *leaf.shape[1:]), leaf.dtype)
        return own_part(whole)

    def shaped(noise, factor):
        if noise.ndim != 2:
            return noise * factor
        # Rounded to bfloat16 the factor would lose the directions that hardly vary.
        return jnp.matmul(noise, factor, precision=jax.lax.Precision.HIGHEST)

    leaves, structure = jax.tree.flatten(batch)
    noisy = [
        leaf if factor is None else leaf + shaped(noise(leaf), factor)
        for leaf, factor in zip(leaves, factors, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)
