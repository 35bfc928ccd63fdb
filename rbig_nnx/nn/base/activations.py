"""How many values a flow keeps for its backward pass, instead of computing them twice."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax

_few_values: contextvars.ContextVar[int | None] = contextvars.ContextVar(
    "few_values", default=None
)
_BYTES_A_VALUE = 6  # of what a training step keeps, measured


@contextlib.contextmanager
def keep_activations(num_values: int | None = None) -> Iterator[None]:
    """Flows traced within keep more for their backward pass, instead of computing it twice.

    For programs that take many steps: on CPUs they ask the system for memory once, and a
    step of 4,096 rows takes about 0.7 of the time. `trainers.fit` does it. It concerns up to
    eight equal blocks; outside, the limit is 6 million values on CPUs and half of the memory
    on accelerators, where computing twice costs a quarter of a step of many rows.

    Args:
      num_values: up to how many values to keep, about; each takes some six bytes. None:
        100 million, or on accelerators half of the memory.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.coupling_flow(2, 4, rngs=nnx.Rngs(0))
      >>> def loss(flow, x):
      ...     with rn.keep_activations():
      ...         return -flow.log_prob(x).mean()
      >>> def step(flow, x):
      ...     value, grads = jax.value_and_grad(loss)(flow, x)
      ...     return jax.tree.map(lambda p, g: p - 1e-3 * g, flow, grads), value
      >>> many = jax.jit(lambda flow, batches: jax.lax.scan(step, flow, batches))
      >>> _, losses = many(flow, jnp.zeros((3, 4_096, 2)))
      >>> losses.shape
      (3,)
    """
    if num_values is None:
        num_values = max(100_000_000, _few_here())
    token = _few_values.set(num_values)
    try:
        yield
    finally:
        _few_values.reset(token)


def few_values() -> int:
    """Up to how many values count as few here; a part of every cached trace's key."""
    asked = _few_values.get()
    return _few_here() if asked is None else asked


@functools.cache
def _few_here() -> int:
    """On this machine, if nobody asked."""
    few = 6_000_000
    if jax.default_backend() == "cpu":
        return few
    memory = jax.local_devices()[0].memory_stats() or {}
    return max(few, memory.get("bytes_limit", 0) // 2 // _BYTES_A_VALUE)
