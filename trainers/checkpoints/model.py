"""Models on disk: written, read into a model, or rebuilt from the checkpoint alone."""

import contextlib
import fnmatch
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.format import CheckpointError

FOLDER = "checkpoints"  # inside a training run's workdir

Step = int | Literal["best", "last"]
Weights = Literal["ema", "raw"]


def save(
    path: str | os.PathLike,
    model: nnx.Module,
    *,
    step: int = 0,
    about: Mapping[str, Any] | None = None,
):
    """Writes one model to the folder `path`; a checkpoint there is replaced.

    Args:
      path: a folder, new or an earlier checkpoint.
      model: any NNX module. A flow made of this library's layers is saved with its
        configuration, so `load_flow` needs no code; any other one needs `restore`.
      step: a number to remember it by.
      about: what else to keep with it, as JSON; `read_about` gives it back.

    Raises:
      ValueError: `path` holds something else.
    """
    path = pathlib.Path(path).absolute()
    if path.exists() and not _is_replaceable(path):
        raise ValueError(
            f"`path` must be a new folder or an earlier checkpoint; got {path}, which"
            " holds something else. Choose another name."
        )
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    arrays = {f"model.{name}": array for name, array in arrays_of(model).items()}
    with on_disk.open_manager(new, keep=1) as manager:
        on_disk.write_step(
            manager, step, arrays, about_model(model) | {"about": dict(about or {})}
        )
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
    only: Sequence[str] = (),
    step: Step = "best",
    weights: Weights = "ema",
) -> nnx.Module:
    """Returns a new model like `model` with the arrays of a checkpoint.

    Args:
      path: folder of `save`, or a run's `workdir`.
      model: gives the structure; unchanged.
      strict: True demands the same names and shapes on both sides. False takes those
        that agree and warns with three lists: what the checkpoint misses, what the model
        does not expect, and what has another shape.
      only: patterns of dotted names, as in `("*.vectors", "layers.0.*")`; the arrays that
        match none are left as they are in `model`. Empty for all.
      step: which of a run's models; "best" is by validation, a number is the model that
        trained at that step.
      weights: of a run, the moving averages that were evaluated, or the raw parameters.

    Raises:
      CheckpointError: the checkpoint is missing, damaged, or does not fit the model.
    """
    folder, number = _find(path, step)
    meta = _meta(folder, number)
    stored = _stored_names(folder, meta, step, weights)
    wanted = _matching(on_disk.describe(arrays_of(model)), only)
    expected = {n for n in stored if not only or _matches(n, only)}
    shapes = {n: tuple(meta["arrays"][stored[n]]["shape"]) for n in expected}
    missing = sorted(wanted.keys() - expected)
    unexpected = sorted(expected - wanted.keys())
    mismatched = [
        f"{n}: shape {shapes[n]} in the checkpoint and {tuple(wanted[n]['shape'])} in"
        " the model"
        for n in sorted(wanted.keys() & expected)
        if shapes[n] != tuple(wanted[n]["shape"])
    ]
    agreed = {n for n in wanted if shapes.get(n) == tuple(wanted[n]["shape"])}
    lists = {
        "missing in the checkpoint": missing,
        "unexpected in the model": unexpected,
        "mismatched": mismatched,
    }
    if strict and any(lists.values()):
        raise CheckpointError(
            f"`model` must have the arrays of the checkpoint {folder}; they differ:"
            f" {_told(lists, most=5)}. Build the model with the same arguments, or pass"
            " `strict=False` to take what agrees."
        )
    if not agreed:
        raise CheckpointError(
            f"`model` has no array in common with the checkpoint {folder}: it is of"
            " another model."
        )
    if any(lists.values()):
        warnings.warn(f"not restored: {_told(lists)}", stacklevel=2)
    arrays = _arrays(folder, number, meta, [stored[n] for n in agreed])
    return with_arrays(model, {name: arrays[stored[name]] for name in agreed})


def load_flow(
    path: str | os.PathLike, *, step: Step = "best", weights: Weights = "ema"
) -> nnx.Module:
    """Rebuilds a flow from a checkpoint alone.

    Args:
      path: folder of `save`, or a run's `workdir`.
      step: which of a run's models; see `restore`.
      weights: of a run; see `restore`.

    Raises:
      CheckpointError: the checkpoint is missing, damaged, of another kind of model, or of
        float64 while JAX's 64-bit types are off.
    """
    import rbig_nnx  # here, so that saving any NNX module needs no flow

    folder, number = _find(path, step)
    meta = _meta(folder, number)
    # Earlier releases wrote a configuration of subclasses too, which forgets what they are.
    is_flow = meta["model"] == rbig_nnx.GaussianizationFlow.__name__
    if meta["config"] is None or not is_flow:
        reason = "has layers of your own and" if is_flow else "is no plain flow and"
        raise CheckpointError(
            f"the checkpoint {folder} is of a {meta['model']}, which {reason} cannot be"
            " rebuilt from a configuration. Build that model and use"
            " trainers.restore(path, model)."
        )
    stored = _stored_names(folder, meta, step, weights).values()
    _check_precision(folder, {meta["arrays"][name]["dtype"] for name in stored})
    flow = rbig_nnx.from_config(meta["config"], rngs=nnx.Rngs(0))
    return restore(path, flow, step=step, weights=weights)


def _check_precision(folder, dtypes):
    """Refuses 64-bit types where JAX would cut them without being asked."""
    cut = sorted(d for d in dtypes if jax.dtypes.canonicalize_dtype(d) != d)
    if cut:
        raise CheckpointError(
            f"the checkpoint {folder} holds {', '.join(cut)}, and JAX's 64-bit types are"
            " off. Set JAX_ENABLE_X64=1, or restore it into a model of float32:"
            " trainers.restore(path, model)."
        )


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """What `save` was told to keep with the model, as JSON; empty for a run's `workdir`.

    Raises:
      CheckpointError: the checkpoint is missing or damaged.
    """
    return _meta(*_find(path, "last")).get("about", {})


def arrays_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """A model's arrays by dotted name, random keys as their words."""
    return {
        name: np.asarray(jax.random.key_data(leaf) if on_disk.is_key(leaf) else leaf)
        for name, leaf in _named_leaves(nnx.state(model))
    }


def with_arrays(model: nnx.Module, arrays: Mapping[str, np.ndarray]) -> nnx.Module:
    """A new model like `model` with the named arrays exchanged, types kept."""
    graphdef, state = nnx.split(model)
    leaves = []
    for name, leaf in _named_leaves(state):
        if name not in arrays:
            leaves.append(leaf)
        elif on_disk.is_key(leaf):
            impl = jax.random.key_impl(leaf)
            leaves.append(jax.random.wrap_key_data(arrays[name], impl=impl))
        else:
            leaves.append(jnp.asarray(arrays[name], leaf.dtype))
    paths = [path for path, _ in nnx.to_flat_state(state)]
    new = nnx.from_flat_state(list(zip(paths, leaves, strict=True)))
    return nnx.merge(graphdef, new, copy=True)


def about_model(model: nnx.Module) -> dict[str, Any]:
    """What a checkpoint says of its model: the class, and what rebuilds a flow."""
    import rbig_nnx

    config = None
    if isinstance(model, rbig_nnx.GaussianizationFlow):
        with contextlib.suppress(ValueError):  # somebody's own layers
            config = rbig_nnx.to_config(model)
    return {"model": type(model).__name__, "config": config}


def newest_good(folder: pathlib.Path, *, below: int) -> int | None:
    """The newest step before step `below` that reads whole, or None."""
    for step in reversed([s for s in on_disk.steps_in(folder) if s < below]):
        try:
            meta = on_disk.read_meta(folder, step)
            on_disk.read_arrays(folder, step, meta, meta["arrays"])
        except CheckpointError:
            continue
        return step
    return None


def _find(path, step) -> tuple[pathlib.Path, int]:
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise CheckpointError(
            f"`path` must be a checkpoint folder; got {path}, which is"
            f" {'a file' if path.exists() else 'not there'}."
        )
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    steps = on_disk.steps_in(folder)
    if not steps:
        raise CheckpointError(
            f"`path` must hold a checkpoint written by trainers.save or trainers.fit;"
            f" got {path}, which holds none."
        )
    if step in ("best", "last"):  # every step of a run carries the best until then
        return folder, steps[-1]
    if step not in steps:
        raise CheckpointError(
            f"`step` must be 'best', 'last' or one of {steps} in {path}; got {step!r}."
        )
    return folder, step


def _meta(folder, number):
    try:
        return on_disk.read_meta(folder, number)
    except CheckpointError as error:
        raise _with_way_out(error, folder, number) from error


def _arrays(folder, number, meta, names):
    try:
        return on_disk.read_arrays(folder, number, meta, names)
    except CheckpointError as error:
        raise _with_way_out(error, folder, number) from error


def _with_way_out(error, folder, number) -> CheckpointError:
    good = newest_good(folder, below=number)
    offer = (
        "Restore it from a copy."
        if good is None
        else f"Step {good} is whole: pass `step={good}`."
    )
    return CheckpointError(f"{error} {offer}")


def _stored_names(folder, meta, step, weights) -> dict[str, str]:
    """Names in the checkpoint by name in the model."""
    if weights not in ("ema", "raw"):
        raise ValueError(f"`weights` must be 'ema' or 'raw'; got {weights!r}.")
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


def _matching(arrays, only):
    unused = [p for p in only if not any(fnmatch.fnmatchcase(n, p) for n in arrays)]
    if unused:
        raise ValueError(
            f"`only` must match names of the model; got {unused}, which match none of"
            f" {', '.join(sorted(arrays)[:5])}, ..."
        )
    return {n: a for n, a in arrays.items() if not only or _matches(n, only)}


def _matches(name, patterns) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _told(lists: Mapping[str, Sequence[str]], *, most: int | None = None) -> str:
    parts = []
    for title, names in lists.items():
        if names:
            shown = names if most is None else names[:most]
            more = len(names) - len(shown)
            tail = f" and {more} more" if more else ""
            parts.append(f"{title}: {', '.join(shown)}{tail}")
    return "; ".join(parts)


def _named_leaves(state: Any):
    for path, leaf in nnx.to_flat_state(state):
        array = leaf[...] if isinstance(leaf, nnx.Variable) else leaf
        yield ".".join(map(str, path)), array


def _is_replaceable(path: pathlib.Path) -> bool:
    """Whether `path` is empty or holds nothing but what `save` wrote, in any version."""
    if not path.is_dir():
        return False
    return all(_is_of_save(entry) for entry in path.iterdir())


def _is_of_save(step: pathlib.Path) -> bool:
    try:
        meta = json.loads((step / "meta" / "metadata").read_text())
    except (OSError, ValueError):
        return False
    return meta.get("format") == on_disk.FORMAT and "run" not in meta
