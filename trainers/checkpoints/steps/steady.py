"""Reading beside others who save to the same folder."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from trainers.checkpoints.meta.reading import CheckpointError
from trainers.checkpoints.source import folder_of
from trainers.paths import in_bucket, look_again

T = TypeVar("T")
_TRIES = 10  # a small flow, saved without a pause by another process, needs one or two


def steady(path: str | os.PathLike, read: Callable[[], T]) -> T:
    """What `read` makes of a checkpoint; again where another one took its place meanwhile.

    A save leaves a whole step at every moment, but not the same one: a step that was listed
    may be gone when it is opened, or be that of the next save. Only what stays as it is, and
    cannot be read, is damaged. Several processes read once: they have to fail together.

    Args:
      path: of a checkpoint, or a run's `workdir`.
      read: reads `meta` once, so that all it finds is of one save: arrays of another
        one do not have its checksums.

    Raises:
      CheckpointError: that of `read`, or each time another checkpoint was there.
    """
    tries = _TRIES if jax.process_count() == 1 else 1
    for _ in range(tries):
        before = _steps(path)
        try:
            return read()
        except (CheckpointError, OSError) as error:
            if _steps(path) == before:
                raise
            failed = error
    raise CheckpointError(
        f"`path` must hold a checkpoint that stays while it is read; got {path}, where"
        f" another one was saved at each of {tries} tries. Try again, or save less often."
    ) from failed


def _steps(path: str | os.PathLike) -> Any:
    """The steps that are there, each with what tells it from another of its number."""
    folder = folder_of(path)
    look_again(folder)
    try:
        # In a bucket a step has a larger number than that before it.
        return {
            step.name: None if in_bucket(step) else _identity(step.stat())
            for step in folder.iterdir()
            if step.name.isdigit()
        }
    except FileNotFoundError:
        return object()  # one has just gone: equal to no other moment


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns
