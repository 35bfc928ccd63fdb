"""What calls write to modules, on its way out of a trace.

A function under `jax.jit` or `jax.lax.scan` gets copies of the modules that it takes. What
layers write there (statistics, counts of random draws, sown values) is given back beside the
result, and written to the modules themselves. Most write nothing: then nothing is added to the
compiled program.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def calling(function: Callable, modules: Any, *args: Any) -> tuple[Any, nnx.State]:
    """The function's result, and the variables of the modules that it wrote to.

    Args:
      function: (modules, *args) -> result. Traced.
      modules: a module, or a tuple of them.
      *args: passed on.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> from rbig_nnx.nn.base.changes import calling, write
      >>> rngs = nnx.Rngs(0)
      >>> key, changed = jax.jit(lambda rngs: calling(lambda rngs: rngs(), rngs))(rngs)
      >>> write(rngs, changed)
      >>> print(rngs.default.count[...])
      1
    """
    before = {path: jax.tree.flatten(value) for path, value in _values(modules)}
    result = function(modules, *args)
    changed = [
        (path, value)
        for path, value in _values(modules)
        if path not in before or not _is_same(before[path], jax.tree.flatten(value))
    ]
    return result, nnx.from_flat_state(changed)


def write(modules: Any, changed: nnx.State) -> None:
    """Writes variables, new ones too, to modules of the structure they came from."""
    if not changed:
        return
    for path, value in nnx.to_flat_state(changed):
        *places, name = path
        owner = functools.reduce(_child, places, modules)
        if getattr(owner, str(name), ...) is None:  # a gap, which no update fills
            setattr(owner, name, nnx.data(value))
    nnx.update(modules, changed)


def _child(node: Any, key: Any) -> Any:
    named = isinstance(key, str) and hasattr(node, key)
    return getattr(node, key) if named else node[key]


def through(jitted: Callable, function: Callable, modules: Any, *args: Any) -> Any:
    """`function(modules, *args)` by its compiled form, with all that it writes.

    Args:
      jitted: `calling` of the function, under `jax.jit`.
      function: as of `calling`.
      modules: get what is written.
      *args: passed on.
    """
    result, changed = jitted(modules, *args)
    if changed and has_shared_variables(modules):
        # Copies of what is shared went different ways: once more, without copies.
        return function(modules, *args)
    write(modules, changed)
    return result


def has_shared_variables(modules: Any) -> bool:
    """Whether a variable is at two places, which a traced function takes for two."""
    variables = [id(v) for _, v in _values(modules) if isinstance(v, nnx.Variable)]
    return len(set(variables)) < len(variables)


def writes_nothing(modules: Any) -> bool:
    """Whether all modules are of kinds that are known to leave themselves as they are."""
    return all(
        type(module) in (nnx.Linear, nnx.List, nnx.Sequential, nnx.LayerNorm)
        or type(module).__module__.startswith("rbig_nnx.")
        for _, module in nnx.iter_modules(modules)
    )


def _values(modules: Any) -> list[tuple[tuple, Any]]:
    """Variables, and arrays that lie in none, with their paths."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        modules, is_leaf=lambda value: isinstance(value, nnx.Variable)
    )
    return [(tuple(map(_name, path)), value) for path, value in found]


def _name(entry: Any) -> str | int:
    names = (getattr(entry, kind, None) for kind in ("name", "idx", "key"))
    return next(name for name in names if name is not None)


def _is_same(old: tuple, new: tuple) -> bool:
    (before, structure), (after, new_structure) = old, new
    if structure != new_structure:
        return False
    return all(a is b for a, b in zip(before, after, strict=True))
