"""The type checker of the test run: beartype, on the shapes and dtypes of arrays only.

The annotations say `Float[Array, "n d"]`: a shape and a kind of number. As in
`jax.numpy`, a NumPy array or a Python number passes wherever a JAX array does. Other
annotations are left to pyright: the tests hand over wrong types to see our own errors.
"""

import functools
import operator
import types
import typing

import jax
from beartype import beartype
from jaxtyping import AbstractArray


def check(function):
    """Checks the calls of `function` against its annotations."""
    function.__annotations__ = {
        name: _array_like(hint) for name, hint in function.__annotations__.items()
    }
    return beartype(function)


def _array_like(hint):
    """The hint with every JAX array widened, and anything where it has no array."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        if hint.array_type is not jax.Array:
            return hint
        widened = hint.dtype[typing.Any, hint.dim_str]
        return widened | float | int if _may_be_scalar(hint.dim_str) else widened
    if hint in (None, type(None), ...):
        return hint
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return functools.reduce(operator.or_, map(_array_like, arguments))
    if origin is tuple:
        return tuple[tuple(_array_like(a) for a in arguments)]
    return typing.Any


def _may_be_scalar(dim_str):
    return all(d.startswith(("*", "...")) for d in dim_str.split())
