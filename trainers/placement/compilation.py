"""Compiled functions, kept so that runs of one structure compile once."""

import collections
import concurrent.futures
from collections.abc import Callable, Hashable
from typing import Any

import jax

_KEPT = 16  # functions; each holds an executable of about 10 MB and no data
_compiled: collections.OrderedDict[Hashable, "Compiled"] = collections.OrderedDict()
_threads = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="compile")


class Compiled:
    """A function whose compilation goes on beside; a call waits for it.

    Args:
      lowered: a traced function, for its arguments' shapes.
    """

    def __init__(self, lowered: jax.stages.Lowered):
        self._executable = _threads.submit(lowered.compile)

    def __call__(self, *arguments: Any) -> Any:
        """The function's result."""
        return self.wait()(*arguments)

    def wait(self) -> jax.stages.Compiled:
        """The executable, once there is one."""
        return self._executable.result()

    @property
    def failed(self) -> bool:
        """Whether there will be none."""
        done = self._executable.done()
        return done and self._executable.exception() is not None


def forget() -> None:
    """Drops what was kept, as `jax.clear_caches` does for JAX's own."""
    _compiled.clear()


def compiled(
    function: Callable,
    arguments: tuple,
    *,
    identity: tuple,
    transform: Callable = jax.jit,
) -> Compiled:
    """Starts to compile `function` for arguments like these, or finds it compiled.

    Args:
      function: of arrays.
      arguments: examples with the shapes, types and shardings to come.
      identity: everything that `function` closes over. Where a part of it is not
        hashable the result is not kept.
      transform: `jax.jit` or `jax.pmap` with their options, which `identity` and the
        arguments must determine.
    """
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple(
        (jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves
    )
    key = (function.__qualname__, identity, structure, shapes)
    try:
        if key in _compiled and not _compiled[key].failed:
            _compiled.move_to_end(key)
            return _compiled[key]
    except TypeError:
        key = None
    result = Compiled(transform(function).lower(*arguments))
    if key is not None:
        _compiled[key] = result
        if len(_compiled) > _KEPT:
            _compiled.popitem(last=False)
    return result
