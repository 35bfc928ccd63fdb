"""What a run leaves in its folder, so that the same line goes on where it was."""

import copy
import json
import os
import pathlib
import shutil
import warnings
import zlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.format import CheckpointError
from trainers.checkpoints.model import FOLDER, about_model
from trainers.config import TrainConfig

_FREE = ("checkpoint_every", "max_to_keep")  # settings that may change between starts
_SAMPLE = 1_000  # rows of each array that the fingerprint looks at
_WAY_OUT = (
    "Choose another `workdir`, or pass `resume=False`, which keeps the old checkpoints"
    f" aside in `{FOLDER}.previous`."
)


class Saved(NamedTuple):
    """A run as of one step."""

    step: int
    tree: Any  # arrays: the train state, the best model, sums since the last evaluation
    about: dict[str, Any]  # JSON: history, seconds, reason to stop, data position


def fingerprint(
    model: nnx.Module,
    *,
    config: TrainConfig,
    loss_fn: Any,
    state: Any,
    rows: Mapping[str, Any],
) -> dict[str, Any]:
    """What a run must share with its checkpoints to go on from them, as JSON.

    Args:
      model: its class, and of a flow its configuration.
      config: settings; how often to save is left out.
      loss_fn: its name.
      state: arrays of the run, of which names, shapes and types count.
      rows: the data by the name of the argument. Shapes and a sample of the values count;
        with several processes, which may share the rows out anew, types and widths do.
    """
    settings = {
        name: value for name, value in vars(config).items() if name not in _FREE
    }
    name = getattr(loss_fn, "__qualname__", type(loss_fn).__qualname__)
    found = {
        "model": about_model(model),
        "config": settings,
        "loss_fn": f"{getattr(loss_fn, '__module__', '')}.{name}",
        "arrays": on_disk.describe(on_disk.flat(state)),
        "data": {name: _describe_rows(value) for name, value in rows.items()},
    }
    return json.loads(json.dumps(found))  # lists for tuples, as they come back


class RunCheckpoints:
    """The checkpoints of one run; use it in a `with` statement.

    Leaving the block waits for writes that are under way.

    Args:
      workdir: the run's folder.
      identity: of the run, as from `fingerprint`.
      keep: newest steps that stay.
      resume: False sets earlier checkpoints aside.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        identity: dict[str, Any],
        keep: int,
        resume: bool,
    ):
        self._folder = pathlib.Path(workdir).absolute() / FOLDER
        self._identity, self._keep = identity, keep
        if not resume:
            _in_one_process(lambda: _set_aside(self._folder))
        self._manager = None
        self.latest_step = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._manager is not None:
            self._manager.close()

    def newest(self, like: Any) -> Saved | None:
        """The newest step that is whole, or None where there is none yet.

        Args:
          like: a tree with the structure and places of the one that was written.

        Raises:
          CheckpointError: the checkpoints are of another run, or all damaged.
        """
        rejected: list[tuple[int, CheckpointError]] = []
        for step in reversed(_all_steps(self._folder)):
            try:
                meta = on_disk.read_meta(self._folder, step)
                self._check_identity(meta, step)
                templates = on_disk.flat(like)
                arrays = on_disk.read_arrays(
                    self._folder, step, meta, meta["arrays"], like=templates
                )
            except _OtherRunError:
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
                f"{error} No other step in {self._folder} is whole. {_WAY_OUT}"
            )
        return None

    def write(self, step: int, tree: Any, about: dict[str, Any]):
        """Writes the run as of `step`, in the background: what comes may change after."""
        if self._manager is None:
            self._manager = on_disk.open_manager(self._folder, keep=self._keep)
        about = {"run": copy.deepcopy(about) | {"identity": self._identity}}
        on_disk.write_step(
            self._manager, step, on_disk.flat(tree), self._identity["model"] | about
        )
        self.latest_step = step

    def _check_identity(self, meta, step):
        if "run" not in meta:
            raise _OtherRunError(
                f"{self._folder / str(step)} holds one model and no training run."
                f" {_WAY_OUT}"
            )
        lines = list(_differences(meta["run"]["identity"], self._identity))
        if lines:
            more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
            raise _OtherRunError(
                f"`workdir` must be new or hold checkpoints of the same run;"
                f" {self._folder / str(step)} differs in {'; '.join(lines[:5])}{more}."
                f" {_WAY_OUT}"
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
            _in_one_process(lambda step=step, place=place: self._move(step, place))

    def _move(self, step, place):
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        (self._folder / str(step)).rename(place)


class _OtherRunError(CheckpointError):
    """Whole checkpoints, but not of this run: an older step would not help."""


def _all_steps(folder: pathlib.Path) -> list[int]:
    """The numbers that Orbax takes for steps, empty folders included."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def _differences(old: Any, new: Any, name: str = ""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            at = f"{name}.{key}" if name else key
            yield from _differences(old.get(key), new.get(key), at)
    elif old != new:
        yield f"{name}: {old!r} in the checkpoint and {new!r} now"


def _describe_rows(rows: Any) -> Any:
    leaves = jax.tree_util.tree_leaves_with_path(rows)
    alone = jax.process_count() == 1
    return {
        jax.tree_util.keystr(path) or "array": {
            "shape": list(leaf.shape if alone else leaf.shape[1:]),
            "dtype": str(leaf.dtype),
            **({"sample": _sample(leaf)} if alone else {}),
        }
        for path, leaf in leaves
    }


def _sample(array) -> int:
    rows = np.linspace(0, len(array) - 1, min(len(array), _SAMPLE)).astype(int)
    return zlib.crc32(np.ascontiguousarray(array[rows]).tobytes())


def _set_aside(path: pathlib.Path):
    if path.is_dir() and any(path.iterdir()):
        previous = path.with_name(f"{path.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)


def _in_one_process(action):
    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("checkpoint folder")
