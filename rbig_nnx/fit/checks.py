"""What rows must be before anything is fitted to them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rbig_nnx.fit.sample import sample_rows
from rbig_nnx.math.arrays import float_array

_STEPS = 800  # of a column's dtype, which its spread must hold
_ROWS = 4_096  # that show a column's spread
_OUTER = 5.0  # per cent of them on each side that do not: outliers, sentinels


def check_rows(name: str, x: Float[Array, "n d"]) -> None:
    """Refuses rows that are not finite, and columns in which there is nothing to fit.

    Args:
      name: the argument's, for the errors.
      x: may be sharded over rows.

    Raises:
      ValueError: naming rows or columns, and the way out.
    """
    bad, first, constant = summary(x)
    if bad:
        raise ValueError(
            f"`{name}` must be finite; got NaN or infinity in {int(bad)} of {len(x)} rows,"
            f" the first row {int(first)}. Drop or fill them."
        )
    if len(constant := np.flatnonzero(constant)):
        raise ValueError(
            f"`{name}` must vary in every column; columns {constant.tolist()} are constant"
            f" in {x.dtype}. Leave them out, or centre them in float64 on the host if they"
            " vary there."
        )
    _check_resolution(name, x)


@jax.jit
def summary(x: Float[Array, "n d"]) -> tuple[Array, Array, Array]:
    """How many rows are not finite, the first of them, and which columns are constant."""
    finite = jnp.all(jnp.isfinite(x), axis=1)
    first = jnp.argmin(finite)
    return jnp.sum(~finite), first, jnp.max(x, axis=0) == jnp.min(x, axis=0)


def _check_resolution(name: str, x: Array) -> None:
    """Refuses columns that lie so far from 0 that their dtype hardly tells values apart.

    The standardiser subtracts the offset, and the steps remain.
    """
    # One key: the same rows, and the same answer, whatever the fit's key is.
    rows = sample_rows(x, None, jax.random.key(0), _ROWS)
    low, middle, high = np.percentile(
        rows.astype(np.float64), [_OUTER, 50.0, 100 - _OUTER], axis=0
    )
    spread = (high - low) / 3.3  # of a Gaussian, the standard deviation
    spread = np.where(spread > 0, spread, np.std(rows, axis=0, dtype=np.float64))
    step = np.spacing(np.abs(middle).astype(rows.dtype))
    step = np.maximum(step, np.finfo(rows.dtype).tiny)
    coarse = np.flatnonzero(spread < _STEPS * step)
    if len(coarse):
        j = coarse[0]
        raise ValueError(
            f"`{name}` must spread over {_STEPS} steps of {rows.dtype} in every column;"
            f" columns {coarse.tolist()} do not: column {j} lies around {middle[j]:.6g} with"
            f" a spread of {spread[j]:.2g}, and the steps there are {step[j]:.2g}. Centre"
            " and scale in float64 on the host, (x - x.mean(0)) / x.std(0), from numbers"
            f" that are not yet {rows.dtype}, or use trainers.FlowDensity, which does so."
        )


def check_weights(weights: Any, n: int) -> tuple[Array | None, int]:
    """The weights of n rows as floats, and how many are positive; None for equal ones.

    Raises:
      ValueError: unless they are one nonnegative number a row, and not all zero.
    """
    if weights is None:
        return None, n
    weights = float_array(weights, "weights", entry="row")
    if weights.shape != (n,):
        raise ValueError(
            f"`weights` must have one row per row of `x`, shape ({n},); got"
            f" {weights.shape}."
        )
    positive = int(jnp.sum(weights > 0))
    if not positive or not bool(jnp.all(weights >= 0) & jnp.all(jnp.isfinite(weights))):
        raise ValueError("`weights` must be finite, nonnegative and not all zero.")
    return weights, positive
