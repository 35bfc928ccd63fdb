"""The members of an ensemble, apart and together, and the sample of rows of each."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.fit.sample import generator, on_host


def members(model: Any, axes: tuple[int, ...]) -> list[Any]:
    """Copies of the model, one for each member, in the order of `np.ndindex(axes)`."""
    graphdef, state = nnx.split(model)
    # On the host: nothing to compile.
    state = jax.tree.map(_on_host, state)
    return [
        nnx.merge(graphdef, jax.tree.map(lambda a, at=at: jnp.asarray(a[at]), state))
        for at in np.ndindex(axes)
    ]


def write_members(model: Any, parts: list[Any], axes: tuple[int, ...]) -> None:
    """Writes the variables of all members, as `members` gives them."""

    def stack(*leaves: Array) -> Array:
        whole = jnp.asarray(_stack([_on_host(a) for a in leaves]))
        return whole.reshape(*axes, *whole.shape[1:])

    nnx.update(model, jax.tree.map(stack, *map(nnx.state, parts)))


def bootstrap(key: Array, n: int, weights: Array | None) -> Array:
    """Weights of n rows, [n], drawn anew: a Bayesian bootstrap sample of them.

    Exponential draws, times the rows' own weights (Rubin, The Bayesian bootstrap, 1981). No
    row is left out, as a third is of rows that are drawn with replacement: a column that
    varies in few of them still does.
    """
    draws = generator(key).exponential(size=n).astype(np.float32)
    return jnp.asarray(draws) if weights is None else weights * draws


def _on_host(a: Any) -> Any:
    """The array as NumPy's, but for random keys."""
    is_key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    return a if is_key else on_host(a)


def _stack(arrays: list[Any]) -> Any:
    return jnp.stack(arrays) if isinstance(arrays[0], jax.Array) else np.stack(arrays)
