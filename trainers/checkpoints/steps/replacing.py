"""One step takes the place of another in the folder of `save`, which always holds one."""

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.source import is_of_save
from trainers.paths import Path, in_bucket, move, remove
from trainers.placement.lock import unusable

_UNFINISHED = ".orbax-checkpoint-tmp"  # in names of what was never whole, or is no more


def make_room(path: Path, step: int) -> int:
    """Makes the folder, or checks it; the name in it under which a step can be written.

    Raises:
      ValueError: it cannot be made, or holds something else.
    """
    try:
        if not path.exists():
            path.mkdir(parents=True)
    except OSError as error:
        raise unusable("path", path, error) from None
    there = list(path.iterdir()) if path.is_dir() else [path] * path.exists()
    unfinished = [p for p in there if _is_unfinished(p)]
    if not all(map(is_of_save, set(there) - set(unfinished))):
        raise ValueError(
            f"`path` must be a new folder or an earlier checkpoint; got {path}, which"
            " holds something else. Choose another name."
        )
    for left in unfinished:
        remove(left)
    taken = (int(p.name) for p in there if p not in unfinished)
    return max([step - 1, *taken]) + 1  # the newest from its first moment


def replace_others(path: Path, number: int, step: int) -> None:
    """Leaves one step in the folder, on a disk by its own number."""
    for other in (p for p in path.iterdir() if p.name != str(number)):
        _discard(other)
    if number != step and not in_bucket(path):
        move(path / str(number), path / str(step))


def check_shared(path: Path) -> None:
    """Raises a `ValueError` where this process does not see what process 0 made."""
    if not in_bucket(path) and not path.is_dir():
        raise ValueError(
            f"`path` must be on a disk that all processes share, or in a bucket; {path},"
            " which process 0 made, is not there in another one."
        )


def _discard(step: Path) -> None:
    """Removes a step; what a kill leaves of it counts as unfinished."""
    if in_bucket(step):
        remove(step / on_disk.WHOLE)
    else:
        step = step.rename(step.with_name(f"{step.name}{_UNFINISHED}"))
    remove(step)


def _is_unfinished(path: Path) -> bool:
    """Whether an earlier writing of a step was killed."""
    if path.name.isdigit():
        return not on_disk.is_finished(path)
    return _UNFINISHED in path.name
