"""Models on disk: Orbax for the arrays, JSON for what rebuilds the model around them.

A checkpoint folder holds one Orbax step or more. Each has two items: `model`, a flat
dictionary of arrays by name ("layers.0.vectors"), and `meta`, which carries the format,
the flow's configuration, every array's shape and a checksum of all their bytes, because
Orbax restores flipped bits silently. Writing is atomic: a step is there whole or not
at all.
"""

import contextlib
import gc
import json
import logging
import os
import pathlib
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint import checkpoint_managers

FORMAT = "rbig-nnx"
FORMAT_VERSION = 1
FOLDER = "checkpoints"  # inside a training run's workdir
_IN_FLIGHT = 0.2  # seconds, after a failed read: the others end within it
_WORST_SCORE = -1e30  # stands for a score that is not finite, which cannot be ranked


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of something else."""


class CheckpointWriter:
    """Keeps the best and the last model of a run; use it in a `with` statement.

    Leaving the block waits for writes that are under way.

    Args:
      workdir: the run's folder. An earlier run's checkpoints there are moved to
        `checkpoints.previous` at the first write.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._path = pathlib.Path(workdir).absolute() / FOLDER
        self._manager, self._latest = None, -1

    def __enter__(self):
        return self

    @property
    def latest_step(self) -> int:
        """The last step written, -1 before the first."""
        return self._latest

    def __exit__(self, *_):
        if self._manager is not None:
            self._manager.close()

    def write(self, step: int, model: nnx.Module, *, score: float):
        """Writes `model` as of `step`, in the background; `score`: higher is better."""
        if self._manager is None:
            _set_aside(self._path)
            self._manager = _open_manager(self._path)
        _write(self._manager, step, model, score=score)
        self._latest = step


def save(path: str | os.PathLike, model: nnx.Module, *, step: int = 0):
    """Writes one model to the folder `path`; a checkpoint there is replaced.

    Args:
      path: a folder, new or an earlier checkpoint.
      model: any NNX module. A flow made of this library's layers is saved with its
        configuration, so `load_flow` needs no code; any other one needs `restore`.
      step: a number to remember it by.
    """
    path = pathlib.Path(path).absolute()
    if path.exists() and not _is_replaceable(path):
        raise ValueError(
            f"`path` must be a new folder or an earlier checkpoint; got {path}, which"
            " holds something else. Choose another name."
        )
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    with _open_manager(new) as manager:
        _write(manager, step, model, score=0.0)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def restore(
    path: str | os.PathLike,
    model: nnx.Module,
    *,
    strict: bool = True,
    step: int | Literal["best", "last"] = "best",
) -> nnx.Module:
    """Returns a new model like `model` with the arrays of a checkpoint.

    Args:
      path: folder of `save`, or a run's `workdir`.
      model: gives the structure; unchanged.
      strict: True demands the same names and shapes on both sides. False takes those
        that agree and warns with the list of the others.
      step: which of a run's models.
    """
    folder, number = _find(path, step)
    meta = _read_meta(folder, number)
    stored = meta["arrays"]
    wanted = _describe(arrays_of(model))
    agreed = {k for k in wanted if k in stored and _fits(wanted[k], stored[k])}
    problems = [
        *(f"{k}: not in the checkpoint" for k in sorted(wanted.keys() - stored.keys())),
        *(f"{k}: not in the model" for k in sorted(stored.keys() - wanted.keys())),
        *(
            f"{k}: shape {tuple(stored[k]['shape'])} in the checkpoint and"
            f" {tuple(wanted[k]['shape'])} in the model"
            for k in sorted((wanted.keys() & stored.keys()) - agreed)
        ),
    ]
    if problems and strict:
        raise CheckpointError(
            f"`model` must have the arrays of the checkpoint {folder}; they differ in"
            f" {_shorten(problems)}. Build the model with the same arguments, or pass"
            " `strict=False` to take what agrees."
        )
    if not agreed:
        raise CheckpointError(
            f"`model` has no array in common with the checkpoint {folder}: it is of"
            " another model."
        )
    if problems:
        warnings.warn(f"not restored: {_shorten(problems)}", stacklevel=2)
    arrays = _read_arrays(folder, number, meta)
    return with_arrays(model, {name: arrays[name] for name in agreed})


def load_flow(
    path: str | os.PathLike, *, step: int | Literal["best", "last"] = "best"
) -> nnx.Module:
    """Rebuilds a flow from a checkpoint alone.

    Args:
      path: folder of `save`, or a run's `workdir`.
      step: which of a run's models; "best" is by validation.
    """
    import rbig_nnx  # here, so that saving any NNX module needs no flow

    folder, number = _find(path, step)
    meta = _read_meta(folder, number)
    if meta["config"] is None:
        raise CheckpointError(
            f"the checkpoint {folder} is of a {meta['model']}, which cannot be rebuilt"
            " from a configuration. Build that model and use trainers.restore(path,"
            " model)."
        )
    flow = rbig_nnx.from_config(meta["config"], rngs=nnx.Rngs(0))
    return restore(path, flow, step=step)


def arrays_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """A model's arrays by dotted name, random keys as their words."""
    return {
        name: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for name, leaf in _named_leaves(nnx.state(model))
    }


def with_arrays(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
    """A new model like `model` with the named arrays exchanged, types kept."""
    graphdef, state = nnx.split(model)
    leaves = []
    for name, leaf in _named_leaves(state):
        if name not in arrays:
            leaves.append(leaf)
        elif _is_key(leaf):
            impl = jax.random.key_impl(leaf)
            leaves.append(jax.random.wrap_key_data(arrays[name], impl=impl))
        else:
            leaves.append(jnp.asarray(arrays[name], leaf.dtype))
    paths = [path for path, _ in nnx.to_flat_state(state)]
    new = nnx.from_flat_state(list(zip(paths, leaves, strict=True)))
    return nnx.merge(graphdef, new, copy=True)


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of all names and bytes, in the order of the names."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), crc)
    return crc


def _open_manager(path: pathlib.Path) -> ocp.CheckpointManager:
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells of every file
    score = lambda metrics: metrics["score"]  # noqa: E731
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                checkpoint_managers.BestN(get_metric_fn=score, n=1),
            ]
        ),
        best_fn=score,  # without it no metric is written
        best_mode="max",
        cleanup_tmp_directories=True,
    )
    path.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(path, options=options)


def _write(manager, step: int, model: nnx.Module, *, score: float):
    arrays = arrays_of(model)
    meta = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": type(model).__name__,
        "config": _config_of(model),
        "arrays": _describe(arrays),
        "checksum": checksum(arrays),
        "step": int(step),
        "score": float(score) if np.isfinite(score) else None,
        "jax": jax.__version__,
    }
    written = manager.save(
        int(step),
        args=ocp.args.Composite(
            model=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)
        ),
        metrics={"score": float(score) if np.isfinite(score) else _WORST_SCORE},
    )
    if not written:
        raise CheckpointError(
            f"step {step} was not written: {manager.directory} already holds step"
            f" {manager.latest_step()}."
        )


def _config_of(model: nnx.Module) -> dict | None:
    import rbig_nnx

    if not isinstance(model, rbig_nnx.GaussianizationFlow):
        return None
    try:
        return rbig_nnx.to_config(model)
    except ValueError:  # somebody's own layers
        return None


def _find(path, step) -> tuple[pathlib.Path, int]:
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise CheckpointError(
            f"`path` must be a checkpoint folder; got {path}, which is"
            f" {'a file' if path.exists() else 'not there'}."
        )
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    steps = _steps_in(folder)
    if not steps:
        raise CheckpointError(
            f"`path` must hold a checkpoint written by trainers.save or trainers.fit;"
            f" got {path}, which holds none."
        )
    if step == "last":
        return folder, steps[-1]
    if step == "best":
        return folder, max(steps, key=lambda s: (_score_of(folder, s), s))
    if step not in steps:
        raise CheckpointError(f"`step` must be one of {steps} in {path}; got {step!r}.")
    return folder, step


def _steps_in(folder: pathlib.Path) -> list[int]:
    # Orbax counts an empty folder named 9 as step 9; ours have our own item.
    return sorted(
        int(p.name) for p in folder.iterdir() if p.name.isdigit() and any(p.iterdir())
    )


def _score_of(folder: pathlib.Path, step: int) -> float:
    try:
        score = _read_meta(folder, step)["score"]
    except CheckpointError:
        return -np.inf  # a damaged step is chosen only where there is no other
    return _WORST_SCORE if score is None else score


def _read_meta(folder: pathlib.Path, step: int) -> dict[str, Any]:
    file = folder / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(file.read_text())
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder / str(step)} is no checkpoint of this library, or lost its"
            " `meta` item. Load it with the program that wrote it."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise _damaged(folder, step, "its `meta` item does not parse") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder / str(step)} was written by another program; `path` must be a"
            " checkpoint of trainers.save or trainers.fit."
        )
    if meta.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / str(step)} has format version {meta.get('format_version')}; this"
            f" release reads version {FORMAT_VERSION}. Use the release that wrote it."
        )
    return meta


def _read_arrays(folder, step, meta) -> dict[str, np.ndarray]:
    # NumPy targets: what comes back is bound to no device.
    target = {
        name: np.empty(about["shape"], jnp.dtype(about["dtype"]))
        for name, about in meta["arrays"].items()
    }
    handler = ocp.StandardCheckpointHandler()
    try:
        with _without_closed_loops(), ocp.Checkpointer(handler) as checkpointer:
            arrays = checkpointer.restore(
                folder / str(step) / "model", args=ocp.args.StandardRestore(target)
            )
    except Exception as error:  # Orbax raises bare Exception for missing bytes
        reason = (
            str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        )
        raise _damaged(folder, step, reason) from error
    if checksum(arrays) != meta["checksum"]:
        raise _damaged(folder, step, "the checksum of its arrays does not match")
    return arrays


@contextlib.contextmanager
def _without_closed_loops():
    """Silences the reads that Orbax leaves in flight when one of them fails.

    Each finds its event loop closed and prints a traceback after the error that counts.
    """
    shown = sys.unraisablehook

    def hook(unraisable):
        if "Event loop is closed" not in str(unraisable.exc_value):
            shown(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except BaseException:
        gc.collect()
        time.sleep(_IN_FLIGHT)
        raise
    finally:
        sys.unraisablehook = shown


def _damaged(folder, step, reason) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {folder / str(step)} is damaged: {reason}. Restore it from a"
        " copy, or load another step."
    )


def _describe(arrays: Mapping[str, Any]) -> dict[str, dict]:
    return {
        name: {"shape": list(np.shape(a)), "dtype": jnp.result_type(a).name}
        for name, a in arrays.items()
    }


def _fits(one: dict, other: dict) -> bool:
    return list(one["shape"]) == list(other["shape"])


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _named_leaves(state: Any):
    for path, leaf in nnx.to_flat_state(state):
        array = leaf[...] if isinstance(leaf, nnx.Variable) else leaf
        yield ".".join(map(str, path)), array


def _is_replaceable(path: pathlib.Path) -> bool:
    if not path.is_dir():
        return False
    if not any(path.iterdir()):
        return True
    try:
        _read_meta(*_find(path, "last"))
    except CheckpointError:
        return False
    return True


def _set_aside(path: pathlib.Path):
    if path.is_dir() and any(path.iterdir()):
        previous = path.with_name(f"{path.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        path.rename(previous)


def _shorten(lines: list[str]) -> str:
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    return "; ".join(lines[:5]) + more
