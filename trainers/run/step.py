"""The state of a run, and the functions of it that run on the device."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import rbig_nnx as rn
from trainers.config import TrainConfig
from trainers.placement import messages
from trainers.placement.names import names_of
from trainers.placement.strategy import Jit, Pmap
from trainers.rows.weights import Weighted
from trainers.run.metrics import EvalMetrics, Metrics, TrainMetrics, from_outputs
from trainers.run.optimizer import Numbers, OwnOptimizer, averaged, extra_arguments
from trainers.run.variables import as_before, updated, watch, written

# (model, batch, key) -> loss, scalar or one for each row; or (loss, numbers by name)
LossFn = Callable[[Any, Any, jax.Array], Any]


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


def loss_and_values(found: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a loss function returned: its loss, and what it would like to see recorded.

    Raises:
      ValueError: neither a loss nor a pair of one and numbers by name.
    """
    loss, values = (
        found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    )
    if not hasattr(loss, "shape") and not isinstance(loss, float | int):
        told = _form(loss)
    elif not isinstance(values, Mapping):
        told = f"a pair of a loss and {_form(values)}"
    else:
        wrong = [name for name, v in values.items() if not _is_number(name, v)]
        if not wrong:
            plain = {name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
            return jnp.asarray(loss), plain
        told = f"{_form(values[wrong[0]])} under {wrong[0]!r}"
    raise ValueError(
        "`loss_fn` must return a loss, or (loss, values) with values a dictionary of real"
        f" numbers of shape () by text; got {told}. Take the mean over the rows, and join"
        " nested names, as in 'prior/scale'."
    )


def _is_number(name: Any, value: Any) -> bool:
    try:
        found = jax.typeof(value)
    except TypeError:  # a dictionary, a text
        return False
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    real = any(jnp.issubdtype(found.dtype, kind) for kind in kinds)
    return isinstance(name, str) and real and not found.shape


def _form(value: Any) -> str:
    if shape := getattr(value, "shape", None):
        return f"an array of shape {tuple(shape)}"
    return f"a {type(value).__name__}"


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """The loss of each row times its weight, of a batch of `Weighted` rows.

    Args:
      loss_fn: of the rows alone, with one loss for each of them.

    Raises:
      ValueError: (on use) a mean, of which the rows have no part of their own.
    """

    loss_fn: LossFn

    def __call__(self, model: Any, batch: Any, key: jax.Array) -> Any:
        """As any `LossFn`."""
        loss, values = loss_and_values(self.loss_fn(model, batch.rows, key))
        if jnp.shape(loss) != batch.weights.shape:
            raise ValueError(
                "`loss_fn` must return one loss for each row of the batch where"
                f" `weights` are given, shape {batch.weights.shape}; got shape"
                f" {jnp.shape(loss)}."
            )
        # A row of weight 0 may have any loss; training meets none of them.
        return jnp.where(batch.weights > 0, batch.weights * loss, 0), values


def init_state(
    params: Any,
    rest: Any,
    *,
    optimizer: optax.GradientTransformation | OwnOptimizer,
    seed: int,
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


def make_train_steps(
    graphdef: Any,
    *,
    loss_fn: LossFn,
    values: tuple[str, ...],
    optimizer: Callable[[Numbers], optax.GradientTransformation] | OwnOptimizer,
    trainable: Any,
    config: TrainConfig,
    strategy: Jit | Pmap,
    rows_move: bool,
    rows_apart: bool = False,
    layout: TrainState | None = None,
) -> Callable[..., tuple[TrainState, TrainMetrics, jax.Array]]:
    """Builds `(state, rows, factors, numbers, indices, count) -> (state, metrics, streak)`.

    The function takes `count` steps, on the batches that the first `count` lines of
    `indices` name. A step whose loss or gradient is not finite changes nothing but the
    counters; `streak` is the longest run of such steps that it saw the end of.

    Args:
      graphdef: the model's static part.
      loss_fn: (model, batch, key) -> loss, scalar or one for each row; or (loss, values).
      values: their names.
      optimizer: of the parameters, given the traced settings; or one of the user's own,
        which is also given loss, gradients, and functions of the parameters for both. With
        it a step whose updates are not finite is skipped too.
      trainable: NNX filter of the parameters.
      config: its `accumulate` counts.
      strategy: where rows and gradients lie.
      rows_move: whether a device may need rows that others hold.
      rows_apart: whether the loss of a row depends on that row alone, as log p of a flow:
        each device then works for itself, and one message brings the means together.
      layout: the sharding of every array of the state; None on one device.
    """
    take = strategy.take if rows_move else strategy.take_own
    places, parts = layout and (layout.params, layout.rest), config.accumulate
    watched, seen = watch()
    writes: list[bool] = []  # not empty once a loss wrote to variables

    def loss_of(params, rest, batch, key):
        # Without copies Dropout would count on a Variable of the outer trace.
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(rest), copy=True)
        # A dispatch takes many steps in one memory.
        with rn.keep_activations():
            loss, logged = loss_and_values(loss_fn(model, batch, key))
        if logged.keys() != set(values):
            raise ValueError(
                "`loss_fn` must return values of the same names in training and in"
                f" evaluation; got {sorted(logged)} and {sorted(values)}."
            )
        after = written(model, trainable, (params, rest))
        writes.extend(True for _ in jax.tree.leaves(after))
        return watched(jnp.mean(loss)), (after, logged)

    def loss_and_grads(params, rest, key, batch):
        """Of the whole batch, in `accumulate` parts of equal size."""
        function = jax.value_and_grad(loss_of, has_aux=True)
        if config.accumulate == 1:
            (loss, (after, logged)), grads = function(params, rest, batch, key)
            return after, (loss, logged, grads)
        # Strided parts: on a mesh each of them lies over all devices, without a move.
        parts = jax.tree.map(
            lambda leaf: jnp.moveaxis(
                leaf.reshape(-1, config.accumulate, *leaf.shape[1:]), 1, 0
            ),
            batch,
        )
        keys = jax.random.split(key, config.accumulate)

        def add(carry, part):
            after, total = carry
            variables = updated((params, rest), after)
            (loss, (after, logged)), grads = function(*variables, *part)
            return (after, jax.tree.map(jnp.add, total, (loss, logged, grads))), None

        first = jax.tree.map(lambda leaf: leaf[0], (parts, keys))
        (loss, (after, logged)), grads = jax.eval_shape(function, params, rest, *first)
        zeros = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), (loss, logged, grads)
        )
        carry = as_before((params, rest), after), zeros
        (after, total), _ = jax.lax.scan(add, carry, (parts, keys))
        return after, jax.tree.map(lambda leaf: leaf / config.accumulate, total)

    def mean_loss_and_grads(params, rest, key, batch):
        """As `loss_and_grads`, over all devices, each of which has all variables whole."""
        before = params, rest
        params, whole = messages.whole(before, places)
        if rows_apart and isinstance(strategy, Jit) and strategy.mesh is not None:
            found = strategy.mean_of_rows(
                lambda *args: loss_and_grads(*args)[1], parts, params, whole, key, batch
            )
            if not writes:
                return before, found
        after, found = loss_and_grads(params, whole, key, strategy.spread(batch, parts))
        return updated(before, after), strategy.mean(found)

    def one_step(state, rows, factors, numbers, index):
        noise_key, loss_key = jax.random.split(
            jax.random.fold_in(state.key, state.step)
        )
        batch = take(rows, index)
        batch = _add_noise(batch, factors, noise_key, len(index), strategy.own_part)

        def at(params):
            return mean_loss_and_grads(params, state.rest, loss_key, batch)

        variables, (loss, logged, grads) = at(state.params)
        if not seen:
            names = names_of(state.params)
            raise ValueError(
                "`trainable` must match variables that the loss depends on;"
                f" {trainable!r} matches {', '.join(names[:3])}{', …' * (len(names) > 3)},"
                " and it depends on none. Call the layers that hold them, or choose others."
            )
        params, rest = strategy.settled((state.params, state.rest), variables)
        norm, given = optax.tree.norm(grads), (grads, state.opt_state, params)
        good = jnp.isfinite(loss) & jnp.isfinite(norm)
        if isinstance(optimizer, OwnOptimizer):
            extra = extra_arguments(lambda params: at(params)[1], loss, grads)
            updates, opt_state = optimizer.update(*given, **extra)
            good &= jnp.isfinite(optax.tree.norm(updates))
        else:
            updates, opt_state = optimizer(numbers).update(*given)
        params = optax.apply_updates(params, updates)
        ema = averaged(state.ema, params, opt_state, numbers.ema_decay)
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
        state = messages.in_place(state, layout)
        return state, (loss, norm, good, logged)

    def train_steps(state, rows, factors, numbers, indices, count):
        def body(i, carry):
            state, streak, log = carry
            state, found = one_step(state, rows, factors, numbers, indices[i])
            log = jax.tree.map(lambda a, v: a.at[i].set(v.astype(a.dtype)), log, found)
            return state, jnp.maximum(streak, state.bad_streak), log

        size = indices.shape[0]
        numbers_by_name = {name: jnp.zeros(size) for name in values}
        log = (jnp.zeros(size), jnp.zeros(size), jnp.zeros(size, bool), numbers_by_name)
        # A loop of traced length: one compilation serves whole and part dispatches.
        state, streak, (loss, norm, good, logged) = jax.lax.fori_loop(
            0, count, body, (state, jnp.zeros((), jnp.int32), log)
        )
        metrics = TrainMetrics.single_from_model_output(
            loss=loss, grad_norm=norm, values=logged, mask=good
        )
        return state, metrics, streak

    return train_steps


def make_evaluate(
    graphdef: Any, *, loss_fn: LossFn, metrics: Metrics = (), layout: Any = None
) -> Callable[..., tuple[EvalMetrics, dict[str, Any]]]:
    """Builds `(params, rest, batch, mask, key) -> (minus the loss, metrics by name)`.

    `layout` is the sharding of every array of (params, rest), None on one device.
    """

    def evaluate(params, rest, batch, mask, key):
        params, rest = messages.whole((params, rest), layout)
        model = nnx.merge(graphdef, nnx.State(params), nnx.State(rest), copy=True)
        loss, _ = loss_and_values(loss_fn(model, batch, key))
        loss = jnp.broadcast_to(loss, mask.shape)
        score = EvalMetrics.single_from_model_output(score=-loss, mask=mask)
        weighted = isinstance(batch, Weighted)
        return score, from_outputs(
            metrics,
            loss=loss,
            model=model,
            batch=batch.rows if weighted else batch,
            weights=batch.weights if weighted else jnp.ones_like(loss),
            mask=mask,
        )

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
