"""Compiled functions, kept so that runs of one structure compile once."""

import collections
import concurrent.futures
import hashlib
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Hashable
from typing import Any

import jax
import platformdirs

_KEPT = 16  # functions; each holds an executable of about 10 MB and no data
_LEAST_SECONDS = 0.2  # of compilation, that are worth a file
_MOST_BYTES = 2**30  # of files, that stay from one process to the next
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


def use_cache(folder: str | os.PathLike | None = None) -> pathlib.Path | None:
    """Keeps compiled programs in files, so that the next process need not compile them.

    The cache is JAX's own, for everything that this process compiles. What the user has set
    for JAX counts: `JAX_COMPILATION_CACHE_DIR` (empty for none), and
    `JAX_ENABLE_COMPILATION_CACHE`. A folder that cannot be written is left alone.

    Args:
      folder: where; None for the user's cache folder of this library. Programs of other
        kinds of processors lie in folders of their own.

    Returns:
      The folder that JAX uses from now on, or None if it keeps nothing.
    """
    asked = jax.config.jax_compilation_cache_dir
    if not jax.config.jax_enable_compilation_cache:
        return None
    if asked or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return pathlib.Path(asked) if asked else None
    folder = pathlib.Path(folder or platformdirs.user_cache_dir("rbig-nnx"))
    folder = folder / f"compiled-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            _drop_oldest(folder)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder


def _processor() -> str:
    """What programs for the CPU are made for: folders may be shared between machines."""
    about = [platform.machine(), platform.processor()]
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    about += sorted({x for x in lines if x.startswith(("flags", "Features"))})
    return hashlib.blake2b("\n".join(about).encode(), digest_size=4).hexdigest()


def _drop_oldest(folder: pathlib.Path) -> None:
    """Files that were not used for longest, until the others are few enough."""
    files = [path for path in folder.iterdir() if path.is_file()]
    used = [(path.stat().st_atime, path.stat().st_size, path) for path in files]
    room = _MOST_BYTES
    for _, size, path in sorted(used, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)
