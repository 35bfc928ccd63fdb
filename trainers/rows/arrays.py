"""Arrays as they come, on the host: by value to the types that a device takes.

JAX wraps an integer beyond its types and rounds a float without a word, so both are looked
at before anything becomes a `jax.Array`.
"""

from typing import Any

import jax
import numpy as np

from trainers.tables.checks import InputError, check_finite, shown
from trainers.tables.door import frame_of, of_array
from trainers.tables.frame import Frame

_LEAST_STEPS = 1_000  # of the float type, that a column's standard deviation must span
_LOOKED_AT = 2**17  # values, spread over the rows, that tell a column's spread
_IQR = 1.349  # between the quartiles of a normal distribution, in standard deviations


def as_floats(x: Any, name: str, *, fine: bool = False) -> np.ndarray:
    """Finite floats, [n, d]: what the same numbers give as float64.

    Args:
      x: numbers of any real type and byte order, [n, d], or a DataFrame of them.
      name: the argument's name, for errors.
      fine: whether columns of which the type keeps too little are refused.

    Raises:
      InputError: text, complex numbers, values that are missing or not finite, another
        shape, and columns that are too coarse.
    """
    values = _numbers(x, name)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(
            f"`{name}` must be [rows, features] with at least one of each; got shape"
            f" {values.shape}."
            + (" Use x[:, None] for one feature." if values.ndim == 1 else "")
        )
    return _floats(values, name, fine=fine)


def as_leaf(x: Any, name: str, *, floats: bool = False, fine: bool = False) -> Any:
    """One of several arrays, [n, ...], in a type of JAX's: labels stay integers.

    Args:
      x: numbers.
      name: what the errors call it.
      floats: whether integers and booleans become floats, as in `as_floats`.
      fine: as of `as_floats`, for what becomes floats.

    Raises:
      InputError: as `as_floats`, and integers that JAX's type does not hold.
    """
    values = _numbers(x, name)
    if floats:
        return _floats(values, name, fine=fine and values.ndim == 2)
    if values.dtype.kind == "f":
        wide = values.dtype.itemsize > 8
        return _finite(values, np.float64 if wide else values.dtype, name)
    kept = jax.dtypes.canonicalize_dtype(values.dtype)
    if values.dtype.kind in "iu" and kept != values.dtype and values.size:
        low, high, held = values.min(), values.max(), np.iinfo(kept)
        if low < held.min or high > held.max:
            raise InputError(
                f"`{name}` must fit {kept.name}, from {held.min} to {held.max}; got"
                f" {values.dtype.name} from {low} to {high}. Number labels from 0, or"
                " give measured numbers as floats."
            )
    return values.astype(kept, copy=False)


def _floats(values: np.ndarray, name: str, *, fine: bool) -> np.ndarray:
    # Through float64, but float32 is what it is with 64-bit types too.
    same = values.dtype == np.float32
    rows = _finite(values, values.dtype if same else np.float64, name)
    if fine:
        _check_fine(values, rows.dtype, name)
    return rows


def _finite(values: np.ndarray, dtype: Any, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        rows = values.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
    check_finite(rows, name)
    return rows


def _check_fine(values: np.ndarray, dtype: np.dtype, name: str):
    """Raises for columns that hardly vary in steps of the type, constant ones apart."""
    part = values[:: max(1, values.size // _LOOKED_AT)].astype(np.float64)
    low, place, high = np.quantile(part, (0.25, 0.5, 0.75), axis=0)
    # Quartiles, because one wild row would widen any column; but of a column that is mostly
    # one number they coincide.
    spread = np.where(high > low, (high - low) / _IQR, part.std(axis=0))
    step = np.spacing(np.abs(place).astype(dtype)).astype(np.float64)
    coarse = np.flatnonzero((spread > 0) & (spread < _LEAST_STEPS * step))
    if coarse.size:
        first = coarse[0]
        raise InputError(
            f"every column of `{name}` must vary by more than {_LEAST_STEPS} steps of"
            f" {np.dtype(dtype).name}; got column {shown(coarse)} (from 0), about"
            f" {place[first]:.6g} ± {spread[first]:.2g} in steps of {step[first]:.2g}."
            " Centre and scale it in float64, or use trainers.FlowDensity or `rbig-nnx"
            " fit`, which do."
        )


def _numbers(x: Any, name: str) -> np.ndarray:
    """Real numbers in a type of NumPy's, native; nothing is rounded or wrapped yet."""
    table = hasattr(x, "columns") or hasattr(x, "column_names")
    fields = getattr(getattr(x, "dtype", None), "names", None)
    if table or fields or np.ma.isMaskedArray(x):
        return _joined(frame_of(x, name=name), name)
    try:
        values = np.asarray(x)
    except ValueError:
        raise InputError(f"`{name}` must have rows of one length.") from None
    if values.dtype.kind in "US" and not hasattr(x, "dtype"):
        values = np.asarray(x, object)  # one word in a list makes words of its numbers
    if values.dtype.kind == "c":
        raise InputError(
            f"`{name}` must hold real numbers; got {values.dtype}. Give x.real, or both"
            " parts as columns."
        )
    if values.dtype.kind not in "biuf" and values.ndim and values.size:
        by_column = values.reshape(len(values), -1).T
        columns = tuple(
            of_array(column, f"x{j}", where=f"column {j} of `{name}`")
            for j, column in enumerate(by_column)
        )
        values = _joined(Frame(columns), name).reshape(values.shape)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return values


def _joined(frame: Frame, name: str) -> np.ndarray:
    """The columns side by side, in the narrowest type that holds them all."""
    for number, column in enumerate(frame.columns):
        if column.values.dtype.kind not in "biuf":
            raise InputError(
                f"`{name}` must hold numbers; got {column.source} in column {number}"
                f" ({column.name!r}). Leave it out, or use trainers.FlowDensity or"
                " `rbig-nnx fit`, which know such columns."
            )
    return Frame(frame.columns).native()
