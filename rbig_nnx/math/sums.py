"""Sums over many rows that are exact, and reductions over few components that are fast."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


def in_float64(function: Callable[..., tuple[Array, ...]], *arrays: Array):
    """Applies `function` to the arrays in float64, the results in the first one's dtype.

    For sums over rows: devices add in another order than one device does, and greedy fits
    make a large difference of a last bit. What is added in float64 and rounded once is the
    same float32 for every order, however the rows lie.

    TPUs have no float64: there the arrays keep their precision.

    Args:
      function: of arrays; its constants must have a dtype. Traced.
      *arrays: floating.
    """
    dtype = arrays[0].dtype
    if jax.default_backend() == "tpu":
        return function(*arrays)
    with jax.enable_x64(new_val=True):
        results = function(*(a.astype(jnp.float64) for a in arrays))
        return tuple(r.astype(dtype) for r in results)


@jax.custom_jvp
def sums(*terms: Array) -> tuple[Array, ...]:
    """The sum of each array over its leading axis, all in one pass.

    One kernel that reads what the arrays have in common once. On CPUs a sum by itself over
    a leading axis has a tenth of the speed or, where it is large, a twentieth.

    Args:
      *terms: at least two arrays of one shape and dtype, [K, ...].

    Returns:
      As many arrays, [...].
    """
    zero = jnp.zeros((), terms[0].dtype)

    def add(a, b):
        return tuple(x + y for x, y in zip(a, b, strict=True))

    return tuple(jax.lax.reduce(terms, (zero,) * len(terms), add, (0,)))


@sums.defjvp
def _sums_jvp(primals, tangents):
    return sums(*primals), tuple(jnp.sum(t, axis=0) for t in tangents)


def fold(combine: Callable[[Array, Array], Array], terms: Array) -> Array:
    """Reduces the leading axis, written out, for an axis that is short.

    As one expression it fuses with what surrounds it. Not for tangents: its transpose pads.
    """
    return functools.reduce(combine, [terms[k] for k in range(terms.shape[0])])
