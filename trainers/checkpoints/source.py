"""What a checkpoint offers, whoever wrote it: arrays by name, and how to read them."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from trainers.checkpoints import format as on_disk
from trainers.checkpoints import plain
from trainers.checkpoints.format import CheckpointError
from trainers.paths import Path, located

FOLDER = "checkpoints"  # inside a training run's workdir

Step = int | Literal["best", "last"]
Weights = Literal["ema", "raw"]
Places = Mapping[str, jax.ShapeDtypeStruct]


class Source(NamedTuple):
    """A checkpoint that was found."""

    place: Path
    arrays: Places  # by the names that a model has
    read: Callable[[Places], dict[str, Any]]  # those named, to where each is to lie
    meta: Mapping[str, Any]  # what `save` or `fit` said of the model; empty of others

    def renamed(self, prefix: str, rename: Mapping[str, str]) -> "Source":
        """A part of the checkpoint, by other names; see `restore`.

        Raises:
          ValueError: what begins no name, or would give two arrays the same one.
        """
        kept = _behind(prefix, self.arrays)
        taken = _by_mapping(rename, kept)
        old = {new: kept[name] for new, name in taken.items()}

        def read(places: Places) -> dict[str, Any]:
            arrays = self.read({old[name]: place for name, place in places.items()})
            return {name: arrays.pop(old[name]) for name in places}

        arrays = {new: self.arrays[name] for new, name in old.items()}
        return self._replace(arrays=arrays, read=read)


def find_source(path: str | os.PathLike, *, step: Step, weights: Weights) -> Source:
    """The checkpoint at `path`: of `save`, of a run, or of Orbax alone.

    Raises:
      CheckpointError: there is none, or it is damaged.
      ValueError: weights of no kind.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"`weights` must be 'ema' or 'raw'; got {weights!r}.")
    folder = folder_of(path)
    if not any(map(_is_ours, folder.iterdir())):
        items = plain.items_in(folder, step if isinstance(step, int) else None)
        if items:
            return _of_others(folder, items, weights)
    return _of_ours(*find(path, step), step, weights)


def find(path: str | os.PathLike, step: Step) -> tuple[Path, int]:
    """The folder of steps at `path`, and the number of the one that is asked for.

    Raises:
      CheckpointError: there is none.
    """
    folder = folder_of(path)
    steps = on_disk.steps_in(folder)
    if not steps:
        raise CheckpointError(
            f"`path` must hold a checkpoint of trainers.save, trainers.fit or Orbax; got"
            f" {located(path)}, which holds none."
        )
    if step in ("best", "last"):  # every step of a run carries the best until then
        return folder, steps[-1]
    # The folder of that name first; `save` may have had to take another name.
    named = (s for s in sorted(steps, key=lambda s: s != step))
    found = next((s for s in named if _own_step(folder, s) == step), None)
    if found is None:
        raise CheckpointError(
            f"`step` must be 'best', 'last' or one of {steps} in {path}; got {step!r}."
        )
    return folder, found


def _own_step(folder: Path, number: int) -> int:
    """The step that a folder says it is; of a damaged one its name, until it is read."""
    try:
        return on_disk.read_meta(folder, number)["step"]
    except CheckpointError:
        return number


def folder_of(path: str | os.PathLike) -> Path:
    """`path` itself, or where a run with that `workdir` keeps its checkpoints."""
    path = located(path)
    if not path.is_dir():
        raise CheckpointError(
            f"`path` must be a checkpoint folder; got {path}, which is"
            f" {'a file' if path.exists() else 'not there'}."
        )
    return path / FOLDER if (path / FOLDER).is_dir() else path


def read_meta(folder: Path, number: int) -> dict[str, Any]:
    """What a step says of its arrays; an error names a step that is whole."""
    try:
        return on_disk.read_meta(folder, number)
    except CheckpointError as error:
        raise _with_way_out(error, folder, number) from error


def is_of_save(step: Path) -> bool:
    """Whether a folder is a step that `save` wrote, in any version."""
    try:
        meta = on_disk.peek(step)
    except (OSError, ValueError):
        return False
    ours = isinstance(meta, dict) and meta.get("format") == on_disk.FORMAT
    return ours and "run" not in meta


def _behind(prefix: str, names: Collection[str]) -> dict[str, str]:
    """The names that begin so, by what follows."""
    start = f"{prefix}." if prefix else ""
    found = {n.removeprefix(start): n for n in names if n.startswith(start)}
    if prefix and not found:
        raise ValueError(
            f"`prefix` must be a part of the checkpoint; got {prefix!r}, and its names"
            f" begin with {_beginnings(names)}."
        )
    return found


def _by_mapping(rename: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Names by their new ones: of the keys that begin one, the longest counts."""

    def begins(key: str, name: str) -> bool:
        return key in ("", name) or name.startswith(f"{key}.")

    unused = [key for key in rename if not any(begins(key, n) for n in names)]
    if unused:
        raise ValueError(
            f"`rename` must map names in the checkpoint, or what they begin with; got"
            f" {', '.join(map(repr, unused))}, and they begin with {_beginnings(names)}."
        )
    result: dict[str, str] = {}
    for name in names:
        key = max((k for k in rename if begins(k, name)), key=len, default=None)
        new = name
        if key is not None:
            rest = name.removeprefix(key).removeprefix(".")
            new = ".".join(part for part in (rename[key], rest) if part)
        if new in result:
            raise ValueError(
                f"`rename` must give every array a name of its own; got {new} for"
                f" {result[new]} and for {name}."
            )
        result[new] = name
    return result


def _beginnings(names: Collection[str]) -> str:
    """The first parts of the names."""
    found = sorted({name.partition(".")[0] for name in names})
    return ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")


def _is_ours(step):
    """Whether a folder is a step of this library, perhaps a damaged one."""
    try:
        meta = on_disk.peek(step)
    except OSError:
        return False
    except ValueError:
        return True
    return meta is None or (
        isinstance(meta, dict) and meta.get("format") == on_disk.FORMAT
    )


def _of_others(folder, items, weights):
    if weights != "ema":
        raise CheckpointError(
            f"`weights` must be 'ema' for {folder}, which is of no training run of this"
            f" library; got {weights!r}. Name a part of it by `prefix`."
        )

    def read(places: Places) -> dict[str, Any]:
        return plain.read(items, places, places)

    arrays = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in plain.describe(items).items()
    }
    return Source(folder, arrays, read, {})


def _of_ours(folder, number, step, weights):
    meta = read_meta(folder, number)
    stored = _stored_names(folder, meta, step, weights)

    def read(places: Places) -> dict[str, Any]:
        like = {stored[name]: place for name, place in places.items()}
        try:
            arrays = on_disk.read_arrays(folder, number, meta, like, like=like)
        except CheckpointError as error:
            raise _with_way_out(error, folder, number) from error
        return {name: arrays.pop(stored[name]) for name in places}

    arrays = {
        name: jax.ShapeDtypeStruct(
            tuple(meta["arrays"][entry]["shape"]),
            np.dtype(meta["arrays"][entry]["dtype"]),
        )
        for name, entry in stored.items()
    }
    return Source(folder, arrays, read, meta)


def _stored_names(folder, meta, step, weights) -> dict[str, str]:
    """Names in the checkpoint by name in the model."""
    if "run" in meta:
        part = "best" if step == "best" else "state"
        values = "ema" if weights == "ema" else "params"
        prefixes = (f"{part}.{values}.", f"{part}.rest.")
    elif weights == "raw":
        raise CheckpointError(
            f"`weights` must be 'ema' for {folder}, which holds one model and no training"
            " run; got 'raw'."
        )
    else:
        prefixes = ("model.",)
    return {
        name.removeprefix(prefix): name
        for prefix in prefixes
        for name in meta["arrays"]
        if name.startswith(prefix)
    }


def _with_way_out(error, folder, number) -> CheckpointError:
    good = _newest_good(folder, below=number)
    offer = (
        "Restore it from a copy."
        if good is None
        else f"Step {good} is whole: pass `step={good}`."
    )
    return CheckpointError(f"{error} {offer}")


def _newest_good(folder: Path, *, below: int) -> int | None:
    """The newest step before step `below` that reads whole, or None."""
    for step in reversed([s for s in on_disk.steps_in(folder) if s < below]):
        try:
            meta = on_disk.read_meta(folder, step)
            on_disk.read_arrays(folder, step, meta, meta["arrays"])
        except CheckpointError:
            continue
        return step
    return None
