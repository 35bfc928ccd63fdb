"""What people hand over, as arrays of floats.

`jnp.asarray` wraps int64 to int32, overflows without a word, and knows neither big-endian
numbers nor objects. So what is not yet a `jax.Array` is looked at with NumPy first, in the
type it came in, and goes on by value.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

Numbers = ArrayLike | Sequence[Any]

_WORDS = (str, bytes)
_LOST = 1e-3  # of a column's spread: a rounding error that is no longer small
_ROWS = 1_000  # that are looked at for it


def float_array(
    x: Any,
    name: str,
    *,
    entry: str = "column",
    spreads: Callable[[], Any] | None = None,
) -> Array:
    """Numbers as a floating `jax.Array`, by value.

    `jax.Array`s of floats, traced ones too, are returned as they are. All else gives what
    its values in float64 give: integers of any width, booleans, objects such as
    `decimal.Decimal`, any byte order; masked values are NaN. It becomes float32, or keeps
    float64 with 64-bit types on.

    Args:
      x: numbers of any shape, columns on the last axis.
      name: the argument's, for the errors.
      entry: what a place on the last axis is called there.
      spreads: gives what the model takes for the spread of each column, asked only where
        float32 rounds a column of host numbers coarsely. If that destroys it, a warning
        names it. None: no warning.

    Raises:
      ValueError: for text, dates, complex numbers and objects that are no numbers.

    Example:
      >>> import numpy as np
      >>> from rbig_nnx.math.arrays import float_array
      >>> print(float_array(np.array([3_000_000_000, True, -1]), "x"))
      [ 3.e+09  1.e+00 -1.e+00]
    """
    if _is_of_jax(x):
        x = x if isinstance(x, jax.Array) else jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jnp.floating):
            return x
        if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
            return x.astype(jax.dtypes.canonicalize_dtype(float))
        raise ValueError(f"`{name}` must be real; got dtype {x.dtype}.")
    exact = host_floats(x, name, entry=entry)
    with np.errstate(over="ignore"):
        # A copy, as `jnp.asarray` makes one by a program for each shape.
        rounded = jax.device_put(np.array(exact))
    if spreads is not None and exact.ndim > 1 and rounded.dtype != exact.dtype:
        rows = exact.reshape(-1, exact.shape[-1])
        _warn_if_lost(rows, rounded.dtype, name, spreads)
    return rounded


def host_floats(x: Any, name: str, *, entry: str = "column") -> np.ndarray:
    """Numbers as float32, if they came so or in less, else float64; see `float_array`."""
    if np.ma.isMaskedArray(x):
        # Of objects too: the values beneath a mask may be anything.
        x = np.where(np.ma.getmaskarray(x), np.nan, np.ma.getdata(x))
    try:
        x = np.asarray(x)
    except ValueError:  # NumPy's does not name the argument
        raise ValueError(
            f"`{name}` must be an array; got rows of different lengths."
        ) from None
    kind = x.dtype.kind
    if kind in "fiub":
        narrow = kind == "f" and x.dtype.itemsize <= 4
        with np.errstate(over="ignore"):  # of long doubles
            return x.astype(np.float32 if narrow else np.float64, copy=False)
    if kind == "c":
        raise ValueError(f"`{name}` must be real; got dtype {x.dtype}.")
    if kind == "O":
        return _of_objects(x, name, entry)
    if jnp.issubdtype(x.dtype, jnp.floating):  # bfloat16 and friends
        return x.astype(np.float32)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return x.astype(np.float64)
    if kind in "US":
        raise _not_numbers(x, ~np.vectorize(_reads_as_number, [bool])(x), name, entry)
    raise _not_numbers(x, np.ones(x.shape, bool), name, entry)


def at_least_float32(dtype: Any) -> Any:
    """The dtype, or float32 for one of 16 bits, in which no map is exact."""
    return jnp.promote_types(dtype, jnp.float32)


def coarse_columns(
    rows: np.ndarray, dtype: Any, spread: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Which columns the dtype rounds by more than a part of their spread, and each's error."""
    with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite
        error = np.max(np.abs(rows.astype(dtype) - rows), axis=0)
        (coarse,) = np.nonzero((error > _LOST * spread) & np.isfinite(error))
    return coarse, error


def dtype_of(tree: Any) -> Any:
    """The widest dtype of a tree's floating arrays, at least float32."""
    leaves = (leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))
    dtypes = {a.dtype for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)}
    return functools.reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))


def _is_of_jax(x: Any) -> bool:
    """Whether JAX made it, or parts of it: then it must not be brought to the host."""
    if isinstance(x, list | tuple):
        return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))
    return isinstance(x, jax.Array) or hasattr(x, "__jax_array__")


def _of_objects(x: np.ndarray, name: str, entry: str) -> np.ndarray:
    # NumPy would read text that looks like a number, and None.
    words = [isinstance(v, _WORDS) or v is None for v in x.flat]
    if not any(words):
        try:
            return x.astype(np.float64)
        except (TypeError, ValueError):
            words = [not _reads_as_number(v) for v in x.flat]
    raise _not_numbers(x, np.reshape(words, x.shape), name, entry)


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _not_numbers(x: np.ndarray, bad: np.ndarray, name: str, entry: str) -> ValueError:
    """The error for an array whose entries are, where `bad`, no numbers."""
    if not bad.any():  # text that reads as numbers
        bad = np.ones(x.shape, bool)
    if not bad.size:
        return ValueError(f"`{name}` must hold numbers; got dtype {x.dtype}.")
    width = x.shape[-1] if x.ndim else 1
    places = np.flatnonzero(bad.reshape(-1, width).any(axis=0))
    dots = ", …" if len(places) > 5 else ""
    shown = ", ".join(map(str, places[:5]))
    return ValueError(
        f"`{name}` must hold numbers; {entry} {shown}{dots} (from 0) holds"
        f" {x[bad].flat[0]!r}. If it is a number written as text, use x.astype(float);"
        " else encode it or leave it out."
    )


def _warn_if_lost(rows: np.ndarray, dtype: Any, name: str, spreads: Callable) -> None:
    """Warns of columns that `dtype` rounds by more than a part of their spread."""
    if len(rows) < 2:
        return
    # Most calls end here: in Python, three rows cost less than one operation of NumPy.
    far = float(np.finfo(dtype).eps) / _LOST
    three = (rows[at].tolist() for at in (0, len(rows) // 2, -1))
    if all(
        abs(a - b) > far * abs(a) or abs(a - c) > far * abs(a)
        for a, b, c in zip(*three, strict=True)
    ):
        return
    rows = rows[:: -(-len(rows) // _ROWS)]
    with np.errstate(invalid="ignore", over="ignore"):
        spread = np.maximum(np.ptp(rows, axis=0), spreads())
    lost, error = coarse_columns(rows, dtype, spread)
    if len(lost):
        warnings.warn(
            f"`{name}` is rounded to {np.dtype(dtype).name}, by {error[lost[0]]:.1g} in"
            f" column {', '.join(map(str, lost))} (from 0), which is more than"
            f" {_LOST:.1%} of its spread: what follows is wrong. Subtract an offset in"
            " float64 first, as from the rows that were fitted, or use"
            " trainers.FlowDensity.",
            stacklevel=6,
        )
