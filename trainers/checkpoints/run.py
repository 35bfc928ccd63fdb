"""What a run leaves in its folder, so that the same line goes on where it was."""

import contextlib
import copy
import os
import warnings
from types import TracebackType
from typing import Any, NamedTuple, Self

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.failures import without_echoes, writing
from trainers.checkpoints.format import CheckpointError
from trainers.checkpoints.identity import differences
from trainers.checkpoints.source import FOLDER
from trainers.paths import Path, located, look_again, move
from trainers.placement.lock import check_alone
from trainers.placement.processes import together

WAY_OUT = (
    "Choose another `workdir` (--workdir), or pass `resume=False` (--no-resume), which"
    f" keeps the old checkpoints aside in `{FOLDER}.previous`."
)


class Saved(NamedTuple):
    """A run as of one step."""

    step: int
    tree: Any  # arrays: the train state, the best model, sums since the last evaluation
    about: dict[str, Any]  # JSON: history, seconds, reason to stop, data position


class RunCheckpoints:
    """The checkpoints of one run; use it in a `with` statement.

    Leaving the block waits for writes that are under way.

    Args:
      workdir: the run's folder.
      identity: of the run, as from `fingerprint`.
      keep: newest steps that stay.
      resume: False sets earlier checkpoints aside when the block is entered.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        identity: dict[str, Any],
        keep: int,
        resume: bool,
    ):
        self._workdir = located(workdir)
        self._folder = self._workdir / FOLDER
        self._identity, self._keep, self._resume = identity, keep, resume
        self._manager = None
        self._quiet = contextlib.ExitStack()
        self.latest_step = -1

    def __enter__(self) -> Self:
        if not self._resume:
            together(lambda: set_aside(self._folder), alone=True)
        self._quiet.enter_context(without_echoes())  # of the thread that writes
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._quiet:
            if self._manager is None:
                return
            # An error that is on its way counts more than what it left unwritten.
            unsaid = contextlib.suppress(*([CheckpointError] if kind else []))
            with unsaid, writing("step", self._folder):
                self._manager.close()

    def check_alone(self) -> None:
        """Raises where another run has taken over the folder, before it is written to."""
        check_alone(self._workdir)

    def check(self) -> None:
        """Reads what is there before any work is done for nothing.

        Raises:
          CheckpointError: the checkpoints are of another run.
        """
        for step in reversed(all_steps(self._folder) if self._resume else []):
            try:
                self._check_identity(on_disk.read_meta(self._folder, step), step)
            except OtherRunError:
                raise
            except CheckpointError:
                continue  # damaged: `newest` tells of it
            return

    def newest(self, like: Any) -> Saved | None:
        """The newest step that is whole, or None where there is none yet.

        Args:
          like: a tree with the structure and places of the one that was written.

        Raises:
          CheckpointError: the checkpoints are of another run, or all damaged.
        """
        rejected: list[tuple[int, CheckpointError]] = []
        for step in reversed(all_steps(self._folder)):
            try:
                meta = on_disk.read_meta(self._folder, step)
                self._check_identity(meta, step)
                templates = on_disk.flat(like)
                self._check_names(templates, meta["arrays"], step)
                arrays = on_disk.read_arrays(
                    self._folder, step, meta, meta["arrays"], like=templates
                )
            except OtherRunError:
                raise
            except CheckpointError as error:
                rejected.append((step, error))
                continue
            self._reject(rejected, step)
            self.latest_step = step
            return Saved(step, on_disk.unflat(like, arrays), meta["run"])
        if rejected:
            step, error = rejected[0]
            raise CheckpointError(
                f"{error} No other step in {self._folder} is whole. {WAY_OUT}"
            )
        return None

    def write(self, step: int, tree: Any, about: dict[str, Any]):
        """Writes the run as of `step`, in the background: what comes may change after."""
        if self._manager is None:
            self._manager = on_disk.open_manager(self._folder, keep=self._keep)
        about = {"run": copy.deepcopy(about) | {"identity": self._identity}}
        with writing("step", self._folder):
            on_disk.write_step(
                self._manager, step, on_disk.flat(tree), self._identity["model"] | about
            )
        self.latest_step = step

    def _check_identity(self, meta, step):
        if "run" not in meta:
            raise OtherRunError(
                f"{self._folder / str(step)} holds one model and no training run."
                f" {WAY_OUT}"
            )
        check_same(meta["run"]["identity"], self._identity, self._folder / str(step))

    def _check_names(self, wanted, there, step):
        """Of an equal run: what its functions return may still be other."""
        if other := sorted(wanted.keys() ^ there.keys()):
            raise OtherRunError(
                f"`workdir` must be new or hold checkpoints of the same run;"
                f" {self._folder / str(step)} differs in what it holds: {other[0]}."
                f" Return the same values from `loss_fn`. {WAY_OUT}"
            )

    def _reject(self, rejected, good):
        """Moves unusable steps away: Orbax writes no step before one that is there."""
        for step, error in rejected:
            place = self._folder.with_name(f"{FOLDER}.damaged") / str(step)
            warnings.warn(
                f"{error} The run goes on from step {good}; the damaged one is now"
                f" {place}.",
                RuntimeWarning,
                stacklevel=5,
            )
            together(lambda step=step, place=place: self._move(step, place), alone=True)

    def _move(self, step, place):
        place.parent.mkdir(exist_ok=True)
        move(self._folder / str(step), place)


class OtherRunError(CheckpointError):
    """Whole checkpoints, but not of this run: an older step would not help."""


def check_same(old: dict[str, Any], new: dict[str, Any], place: Path):
    """Raises an `OtherRunError` that tells what differs between two identities."""
    if told := differences(old, new):
        raise OtherRunError(
            f"`workdir` must be new or hold checkpoints of the same run; {place} differs"
            f" in {', '.join(told)}. {WAY_OUT}"
        )


def all_steps(folder: Path) -> list[int]:
    """The numbers that Orbax takes for steps, empty folders included."""
    look_again(folder)
    if not folder.is_dir():
        return []
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if on_disk.is_numbered(p) and on_disk.is_finished(p)
    )


def set_aside(path: Path):
    """Moves a folder to `NAME.previous`, in place of what was there."""
    if path.is_dir() and any(path.iterdir()):
        move(path, path.with_name(f"{path.name}.previous"))
