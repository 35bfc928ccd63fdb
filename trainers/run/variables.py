"""What a loss reads of a model's variables and writes to them, and which of them can train."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from trainers.placement.names import names_of


def watch() -> tuple[Callable, list]:
    """The identity, and a list that is not empty once a derivative went through it."""
    seen: list[bool] = []

    @jax.custom_jvp
    def watched(value):
        return value

    @watched.defjvp
    def _(primals, tangents):
        seen.append(True)
        return primals[0], tangents[0]

    return watched, seen


def check_variables(model: Any, trainable: Any) -> None:
    """Refuses variables that hold no array, and such that cannot train.

    Raises:
      ValueError: naming one.
    """
    trains = nnx.filterlib.to_predicate(trainable)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        value = variable.get_value() if isinstance(variable, nnx.Variable) else variable
        name = ".".join(map(str, path))
        if value is None:
            continue
        whole = jax.tree_util.all_leaves([value])
        if not whole or isinstance(value, jax.ShapeDtypeStruct):
            raise ValueError(
                "`model` must hold an array in every variable; got a"
                f" {type(value).__name__} in {name}. Build or restore it in full, and hold"
                " several arrays, as integers and their scale, in a variable each."
            )
        if trains(path, variable) and not jnp.issubdtype(
            jnp.result_type(value), jnp.inexact
        ):
            raise ValueError(
                f"`trainable` must match variables of floats; {trainable!r} matches"
                f" {name} of {jnp.result_type(value)}. Leave it out, as in"
                f" nnx.All(nnx.Param, nnx.Not(nnx.PathContains({path[-1]!r})))."
            )


def written(model: Any, trainable: Any, before: tuple[Any, Any]) -> tuple[Any, Any]:
    """The variables that the loss wrote, and None for the others; sown values are dropped.

    Some that train are written too: `nnx.WeightNorm` normalises kernels where they lie, and
    `nnx.remat` and `nnx.jit` write back all that they are given.

    Args:
      model: after the loss.
      trainable: NNX filter.
      before: what the model was made of, those that train and the others.

    Raises:
      ValueError: where the model has others than before.
    """
    nnx.pop(model, nnx.Intermediate)
    states = nnx.state(model, trainable), nnx.state(model, nnx.Not(trainable))
    after = tuple(map(nnx.to_pure_dict, states))
    pairs = zip(map(_types, before), map(_types, after), strict=True)
    if wrong := sorted({name for old, new in pairs for name, _ in old ^ new}):
        raise ValueError(
            "`loss_fn` may write to variables, and keep their shapes and types; got changes"
            f" of {', '.join(wrong[:5])}. Call the model once before the training, so that"
            " it makes all its variables."
        )
    return jax.tree.map(lambda old, new: None if new is old else new, before, after)


def updated(before: Any, after: Any) -> Any:
    """The variables with what `written` gives."""
    return jax.tree.map(lambda old, new: old if new is None else new, before, after)


def as_before(before: Any, after: Any) -> Any:
    """What `written` gives, with the values before."""
    return jax.tree.map(lambda old, new: None if new is None else old, before, after)


def _types(tree: Any) -> set[tuple[str, Any]]:
    types = map(jax.typeof, jax.tree.leaves(tree))
    return set(zip(names_of(tree), types, strict=True))
