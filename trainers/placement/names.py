"""Variables by dotted name, and settings given by patterns of such names."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from flax import nnx

Patterns = Sequence[tuple[str, Any]]  # (pattern, value); the first that matches counts

_PARTS = ("key", "name", "idx")  # of JAX's paths: in dictionaries, classes, sequences


def check_module(model: Any, method: str) -> None:
    """Raises a `ValueError` for what holds no variables: neither a module nor a tree.

    Args:
      model: of the user's.
      method: that an estimator, which is no module, has of its own for the same.
    """
    if isinstance(model, nnx.Module) or not jax.tree_util.all_leaves([model]):
        return
    is_class = isinstance(model, type)
    came = f"the class {model.__name__}" if is_class else f"a {type(model).__name__}"
    own = hasattr(model, method) and not is_class
    way_out = f"Call its own `{method}`." if own else "Build one first."
    raise ValueError(f"`model` must be an nnx.Module; got {came}. {way_out}")


def dotted(path: Iterable[Any]) -> str:
    """The name of a leaf of a tree, "layers.2.conditioner.out.kernel"."""
    return ".".join(map(_part, path))


def names_of(tree: Any) -> list[str]:
    """The dotted names of all leaves, in order."""
    return [dotted(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def by_pattern(
    names: Iterable[str], patterns: Patterns, *, argument: str, default: Any
) -> dict[str, Any]:
    """For each name the value of the first pattern that matches it.

    Args:
      names: dotted names.
      patterns: of the shell, where "*" matches dots too: "*.kernel", "layers.3.*".
      argument: what the patterns were given as, for the error.
      default: value of names that nothing matches.

    Raises:
      ValueError: if a pattern matches no name.
    """
    names = list(names)
    for pattern, _ in patterns:
        if not fnmatch.filter(names, pattern):
            shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            raise ValueError(
                f"every pattern of `{argument}` must match a variable; {pattern!r}"
                f" matches none of {shown}"
            )

    def value(name: str) -> Any:
        matches = (v for p, v in patterns if fnmatch.fnmatchcase(name, p))
        return next(matches, default)

    return {name: value(name) for name in names}


def _part(part: Any) -> str:
    found = (getattr(part, kind) for kind in _PARTS if hasattr(part, kind))
    return str(next(found, part))
