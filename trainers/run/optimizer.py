"""What moves the parameters: the optimiser of a `TrainConfig`, or one of Optax."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import SAMState, ScheduleFreeState, schedule_free_eval_params

from trainers.config import TrainConfig
from trainers.placement.names import by_pattern, dotted, names_of
from trainers.run.metrics import first_line

Optimizer = optax.GradientTransformation | optax.MultiSteps

_DEFAULTS = TrainConfig()
_ONLY_OF_CONFIG = (  # settings of the optimiser that `make_optimizer` builds
    "learning_rate",
    "learning_rates",
    "schedule",
    "warmup_fraction",
    "initial_fraction",
    "final_fraction",
    "clip_norm",
    "weight_decay",
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


@dataclasses.dataclass(frozen=True)
class OwnOptimizer:
    """An optimiser of the user's own; equal to another one that holds the same object.

    Its state keeps the types that `init` gave it, and may hold random keys.

    Args:
      given: with `init` and `update`, as of Optax.

    Raises:
      ValueError: (on use) what it raised, told with what it can be given.
    """

    given: Any

    def init(self, params: Any) -> Any:
        """The first state, in arrays of its own."""
        with _told(
            "be one of nested dictionaries of arrays, which nnx.to_pure_dict gives of the"
            " parameters; `init`"
        ):
            return jax.tree.map(jnp.array, self.given.init(params))

    def update(self, grads: Any, state: Any, params: Any, **extra: Any) -> tuple:
        """Updates and the next state; of `extra` it is given what it has names for."""
        names = inspect.signature(self.given.update).parameters.values()
        if all(name.kind is not name.VAR_KEYWORD for name in names):
            extra = {n.name: extra[n.name] for n in names if n.name in extra}
        with _told(f"need no more than {', '.join(extra) or 'gradients'}; `update`"):
            updates, after = self.given.update(grads, state, params, **extra)
            after = jax.tree.map(_of_type, after, state)
        return updates, after


def _of_type(new: Any, old: Any) -> Any:
    new = jnp.asarray(new)
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def extra_arguments(value_and_grad: Callable, loss: Any, grads: Any) -> dict[str, Any]:
    """What an own optimiser may ask for by name: all of the whole batch, with its noise.

    Args:
      value_and_grad: of the parameters, (loss, values, gradients).
      loss: at the parameters.
      grads: likewise.
    """

    @jax.custom_vjp
    def value(params):
        return value_and_grad(params)[0]

    def forward(params):
        loss, _, grads = value_and_grad(params)
        return loss, grads

    def backward(grads, cotangent):
        return (jax.tree.map(lambda leaf: cotangent * leaf, grads),)

    # By this rule a derivative sees all parts of a batch on all devices.
    value.defvjp(forward, backward)

    def value_fn(params, grad_fn=None, obj_fn=None):
        del grad_fn, obj_fn  # a line search hands over everything that it does not know
        return value(params)

    return {
        "value": loss,
        "grad": grads,
        "value_fn": value_fn,
        "obj_fn": value,
        "grad_fn": lambda params, _=None: value_and_grad(params)[2],
    }


@contextlib.contextmanager
def _told(rule: str):
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"`optimizer` must {rule} raised {first_line(error)}"
        ) from error


def own_optimizer(optimizer: Any, config: TrainConfig) -> OwnOptimizer:
    """An optimiser of Optax, checked.

    Args:
      optimizer: with `init` and `update`.
      config: settings, of which those of an optimiser have their defaults.

    Raises:
      ValueError: something else, or settings that it makes meaningless.

    Example:
      >>> import optax
      >>> from trainers import TrainConfig
      >>> optimizer = own_optimizer(optax.sgd(0.1), TrainConfig())
      >>> optimizer.update({"bias": 1.0}, optimizer.init({}), {})[0]
      {'bias': ...-0.1...}
    """
    if isinstance(optimizer, type) or not all(
        callable(getattr(optimizer, name, None)) for name in ("init", "update")
    ):
        name = getattr(optimizer, "__name__", "")
        raise ValueError(
            "`optimizer` must be an optax.GradientTransformation, such as"
            f" optax.adam(1e-3); got a {type(optimizer).__name__} {name}".rstrip()
            + ". Call a function that makes one, give a schedule to one"
            " (optax.sgd(schedule)), and of an nnx.Optimizer pass its `tx`."
        )
    changed = [
        name
        for name in _ONLY_OF_CONFIG
        if getattr(config, name) != getattr(_DEFAULTS, name)
    ]
    if changed:
        told = ", ".join(f"`{name}`={getattr(config, name)!r}" for name in changed)
        raise ValueError(
            "`config` must leave to `optimizer`, where one is given, what it decides; got"
            f" {told}. Build it into the optimiser, as in"
            " optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))."
        )
    return OwnOptimizer(optimizer)


def check_averaging(opt_state: Any, config: TrainConfig) -> None:
    """Raises a `ValueError` where an optimiser that averages meets another `ema_decay`."""
    asked = config.ema_decay
    if asked not in (0, _DEFAULTS.ema_decay) and _parts(opt_state, ScheduleFreeState):
        raise ValueError(
            "`ema_decay` must keep its default, or be 0, where `optimizer` is"
            f" schedule-free: evaluated and returned are its own averages; got {asked!r}."
        )


def averaged(ema: Any, params: Any, opt_state: Any, decay: Any) -> Any:
    """What is evaluated after a step, in the types of the parameters.

    A running average; where the optimiser keeps averages, those. Of an optimiser that
    looks around between its steps, the average is of where it stands.

    Args:
      ema: what was evaluated before.
      params: after the step.
      opt_state: after the step.
      decay: of the running average.
    """
    for state in _parts(opt_state, SAMState):
        if state.cache is not None:
            home = state.steps_since_sync == 0
            params = _by_leaf(
                lambda cache, now, home=home: jnp.where(home, now, cache),
                state.cache,
                params,
            )

    def mean(old, new):
        share = jnp.asarray(decay, old.dtype)
        return share * old + (1 - share) * new

    ema = jax.tree.map(mean, ema, params)
    for state in _parts(opt_state, ScheduleFreeState):

        def own(z, old, now, state=state):
            del old
            return schedule_free_eval_params(state._replace(z=z), now).astype(now.dtype)

        ema = _by_leaf(own, state.z, ema, params)
    return ema


def _parts(opt_state: Any, kind: type) -> list[Any]:
    """The states of one kind of optimiser, which others may wrap."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda part: isinstance(part, kind))
    return [part for part in leaves if isinstance(part, kind)]


def _by_leaf(function: Callable, part: Any, *whole: Any) -> Any:
    """`function` where a state holds an array of its own, else the first of `whole`."""

    def is_gap(leaf):
        return isinstance(leaf, optax.MaskedNode)

    def one(held, *others):
        return others[0] if is_gap(held) else function(held, *others)

    return jax.tree.map(one, part, *whole, is_leaf=is_gap)
