"""What a function or an object is made of, by plain values: equal where it does the same."""

import functools
import types
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.checkpoints import format as on_disk

_PLAIN = bool | int | float | complex | str | bytes | None


def held(value: Any, code: list[Any] | None = None) -> Any:
    """The plain values in a value, nested: of a function also what it closes over.

    Args:
      value: any.
      code: None: objects by all that they hold, as transformations of Optax. Or a list that
        gets the byte code of functions; then objects count by their plain attributes, since
        others, such as a log or an open file, may change while nothing of the function does.
    """
    return _held(value, {}, code)


def _held(value: Any, seen: dict[int, int], code: list[Any] | None) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if id(value) in seen:
        return f"#{seen[id(value)]}"
    seen[id(value)] = len(seen)
    held = functools.partial(_held, seen=seen, code=code)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(on_disk.flat({"": value})[""])
        return name, str(array.dtype), array.shape, zlib.crc32(array.tobytes())
    if isinstance(value, Mapping):
        return [(held(key), held(part)) for key, part in value.items()]
    if isinstance(value, Set):
        return sorted(map(repr, value))
    if isinstance(value, Sequence):
        return [held(part) for part in value]
    if isinstance(value, types.MethodType):
        return name, held(value.__self__ if code is None else value.__func__)
    if isinstance(value, functools.partial):
        return name, held(value.func), held(value.args), held(value.keywords)
    if isinstance(value, types.FunctionType):
        own = [held(value.__defaults__), held(value.__kwdefaults__)]
        cells = [held(cell.cell_contents) for cell in value.__closure__ or ()]
        if code is None:
            numbers = [c for c in value.__code__.co_consts if isinstance(c, float)]
            return name, numbers, *own, cells
        code.append(_byte_code(value.__code__, value.__doc__))
        return name, *own, cells, [held(other) for other in _called(value)]
    if isinstance(value, type | types.ModuleType) or not hasattr(value, "__dict__"):
        return name
    if code is None or hasattr(value, "__wrapped__"):
        return name, held(getattr(value, "__wrapped__", vars(value)))
    if isinstance(value, nnx.Module):
        return name, held(on_disk.flat(nnx.to_pure_dict(nnx.state(value))))
    own = {k: v for k, v in vars(value).items() if isinstance(v, _PLAIN)}
    return name, held(own), held(vars(type(value)).get("__call__"))


def _called(function: types.FunctionType) -> Iterator[types.FunctionType]:
    """Functions of the same module whose names stand in the code."""
    for name in sorted(_names(function.__code__)):
        other = function.__globals__.get(name)
        same = getattr(other, "__module__", None) == function.__module__
        if same and isinstance(other, types.FunctionType):
            yield other


def _names(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))


def _byte_code(code: types.CodeType, doc: str | None = None) -> tuple[Any, ...]:
    """Without what changes nothing: its docstring, its place, names of variables."""
    constants = [
        _byte_code(c)
        if isinstance(c, types.CodeType)
        else sorted(map(repr, c))  # a set has no order
        if isinstance(c, frozenset)
        else c
        for c in code.co_consts
        if doc is None or c != doc
    ]
    return code.co_code, code.co_names, constants
