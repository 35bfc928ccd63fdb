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


def written(model: Any, trainable: Any, params: Any, rest: Any) -> Any:
    """The variables that do not train, as the loss left them; sown values are dropped.

    Raises:
      ValueError: where they are not those of `rest`, or one that trains was written to.
    """
    nnx.pop(model, nnx.Intermediate)
    params_after = nnx.to_pure_dict(nnx.state(model, trainable))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(trainable)))
    names = _types(rest).items() ^ _types(after).items()
    pairs = zip(
        names_of(params), *map(jax.tree.leaves, (params, params_after)), strict=True
    )
    if wrong := sorted({n for n, _ in names} | {n for n, a, b in pairs if a is not b}):
        raise ValueError(
            "`loss_fn` may write to variables that do not train, and keep their shapes and"
            f" types; got changes of {', '.join(wrong[:5])}. Call the model once before the"
            " training, so that it makes all its variables, or hold what it writes in"
            " another type of variable than `trainable` matches."
        )
    return after


def _types(tree: Any) -> dict[str, Any]:
    return dict(
        zip(names_of(tree), map(jax.typeof, jax.tree.leaves(tree)), strict=True)
    )
