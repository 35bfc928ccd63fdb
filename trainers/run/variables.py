"""What a loss reads of the variables that train, and writes to the others."""

from collections.abc import Callable
from typing import Any

import jax
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
