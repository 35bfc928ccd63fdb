"""Who is fitted and who judges, and of many rows who takes part at all."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from rbig_nnx.fit.sample import everywhere, generator, on_host, row_numbers, row_taker

T = TypeVar("T")

_FEW_JUDGES = 200  # where a slice has fewer rows, every row judges in turn
_FOLDS = 5  # at most, if all rows but one fold are enough to be fitted


class Rows(NamedTuple):
    """Weights of the rows that are fitted and of those that judge, each [n]."""

    fit: Array
    judge: Array  # without a holdout, the same

    @property
    def every(self) -> Array:
        """Weights of both, but for a factor."""
        return self.fit + self.judge


@functools.partial(jax.jit, static_argnums=1)
def _draws(key: Array, n: int, weights: Array | None) -> tuple[Array, Array]:
    """Weights, [n], and uniform draws, [n]: infinite for rows without weight."""
    weights = jnp.ones(n, jnp.float32) if weights is None else weights
    weights = weights.astype(jnp.float32)
    draws = jax.random.uniform(key, (n,), jnp.float32)
    return weights, jnp.where(weights > 0, draws, jnp.inf)


@jax.jit
def _ranks(draws: Array) -> Array:
    count = jnp.arange(len(draws), dtype=jnp.int32)
    return jnp.zeros(len(draws), jnp.int32).at[jnp.argsort(draws)].set(count)


@jax.jit
def _parted(weights: Array, judges: Array) -> Rows:
    return Rows(jnp.where(judges, 0, weights), jnp.where(judges, weights, 0))


def split(
    key: Array, x: Array, weights: Array | None, holdout: float, needed: int
) -> list[Rows]:
    """Who is fitted and who judges, for each chain of fits; the first is what is returned.

    Of many rows one slice judges and the others are fitted. Of few, every row is fitted in
    the first chain, which nobody judges, and every row judges one of the other chains, whose
    fits do not know it (Stone, Cross-validatory choice and assessment of statistical
    predictions, 1974). So no row is lost to a slice, and no slice is too noisy a judge.

    Args:
      key: random key.
      x: rows, [n, d].
      weights: of the rows, [n], or None.
      holdout: share that judges; 0 for nobody.
      needed: least number of rows that are fitted; fewer than there are of positive weight.

    Returns:
      One chain, of rows that are fitted and others that judge; or, without a holdout, the
      same ones; or that of all rows and those that are judged.
    """
    # By weights, not by slices: rows that are sharded over devices stay where they are.
    weights, draws = _draws(key, x.shape[0], weights)
    num = int(jnp.sum(jnp.isfinite(draws)))
    if not holdout:
        parts = [Rows(weights, weights)]
    elif holdout * num >= _FEW_JUDGES and (1 - holdout) * num >= 2 * needed:
        parts = [_parted(weights, draws < holdout)]
    else:
        # Never so many in turn that fewer than `needed` are left.
        folds = min(_FOLDS, max(round(1 / holdout), 2))
        folds = min(max(folds, -(-num // (num - needed))), num)
        ranks = _ranks(draws)
        # In the first chain, that of no rank, nobody judges.
        parts = [_parted(weights, ranks % folds == fold) for fold in range(-1, folds)]
    if isinstance(x.sharding, NamedSharding) and x.sharding.spec:
        axis = PartitionSpec(x.sharding.spec[0])
        parts = jax.device_put(parts, NamedSharding(x.sharding.mesh, axis))
    return parts


def judged(chains: Sequence[T]) -> Sequence[T]:
    """Those in which somebody judges: all but the first, or the only one."""
    return chains[1:] or chains


def gain_and_error(gains: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """The weighted mean of paired differences, [n], and its standard error.

    A row that judges nothing may be infinite.
    """
    shares = weights / np.sum(weights)
    gains = np.where(shares > 0, gains, 0)
    gain = np.sum(shares * gains)
    return gain, np.sqrt(np.sum(np.square(shares * (gains - gain))))


def sample(
    key: Array, x: Array, context: Array | None, parts: list[Rows], max_rows: int
) -> tuple[Array, Array | None, list[Rows]]:
    """At most `max_rows` rows with what belongs to them, on this process's device.

    Rows by number: of rows that are sharded only the chosen ones move, and every process
    gets the same.
    """
    per_row = x, context, parts
    if len(x) > max_rows:
        at = row_numbers(generator(key), len(x), max_rows)
        per_row = jax.tree.map(lambda a: row_taker(everywhere(a))(a, at), per_row)
    return jax.tree.map(_local, per_row)


def _local(a: Array) -> Array:
    """A whole copy on one device, if it lies on several."""
    return a if everywhere(a) is None else jnp.asarray(on_host(a))
