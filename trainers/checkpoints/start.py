"""The start of a run, kept in its folder: the same command goes on without making it anew.

A command that warm-starts a model before `fit(workdir=...)` calls, in this order,

1. `find_start(workdir, identity)` before any work. It raises where the folder holds another
   run; it gives the start back where the same command ran before.
2. If it gave nothing: the warm start, and `keep_start(workdir, model, identity)`.
3. `fit(model, ..., workdir=workdir, identity=identity)`, which compares all that it is
   given, and `identity` too.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import nnx

from trainers.checkpoints.format import CheckpointError, steps_in
from trainers.checkpoints.identity import as_json
from trainers.checkpoints.model import load_flow, read_about, save
from trainers.checkpoints.run import WAY_OUT, OtherRunError, all_steps, check_same
from trainers.checkpoints.source import FOLDER
from trainers.paths import Path, located

_START = "start"  # beside the checkpoints of the run


class Start(NamedTuple):
    """A start that an earlier call of the same command left."""

    path: Path  # of the checkpoint
    about: dict[str, Any]  # what it said of it

    def load(self) -> nnx.Module:
        """The flow, bit for bit."""
        return load_flow(self.path)


def find_start(
    workdir: str | os.PathLike, identity: Mapping[str, Any], *, resume: bool = True
) -> Start | None:
    """What the same command left in the folder, or None where there is nothing yet.

    Args:
      workdir: the run's folder.
      identity: everything that changes the result and that the command decides: settings,
        options of the warm start, the schema, and `file_digest` of its files. As JSON.
      resume: False starts anew, whatever is there.

    Raises:
      CheckpointError: the folder holds another run; the message names what differs and
        the ways out. Or the start is damaged.
    """
    if not resume:
        return None
    workdir = located(workdir)
    path = workdir / _START
    if path.is_dir() and steps_in(path):
        try:
            about = read_about(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error} {WAY_OUT}") from None
        before = {"outer": about.get("identity", {})}
        check_same(before, {"outer": as_json(identity)}, path)
        return Start(path, about["about"])
    if all_steps(workdir / FOLDER):
        raise OtherRunError(
            f"`workdir` must be new or hold a run of the same command; {path}, which would"
            f" tell whose steps those in {workdir / FOLDER} are, is not there. {WAY_OUT}"
        )
    return None


def keep_start(
    workdir: str | os.PathLike,
    model: nnx.Module,
    identity: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
) -> Start:
    """Writes the start of a run into its folder, whole or not at all.

    Args:
      workdir: the run's folder, made if need be. An earlier start is replaced.
      model: a flow of this library's layers.
      identity: as of `find_start`.
      about: what to know of it when it is found again, such as its report. As JSON.

    Returns:
      What `find_start` gives from now on.
    """
    path = located(workdir) / _START
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"identity": as_json(identity), "about": as_json(about or {})}
    save(path, model, about=told)
    return Start(path, told["about"])
