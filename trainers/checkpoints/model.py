"""Models on disk: written, read into a model, or rebuilt from the checkpoint alone."""

import contextlib
import fnmatch
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.format import CheckpointError
from trainers.checkpoints.meta import declared
from trainers.checkpoints.mismatch import Mismatch, beginning, mismatch
from trainers.checkpoints.source import (
    Source,
    Step,
    Weights,
    find,
    find_source,
    read_meta,
)
from trainers.checkpoints.steps.replacing import check_shared, make_room, replace_others
from trainers.checkpoints.steps.steady import steady
from trainers.checkpoints.variables import (
    abstract_names,
    arrays_of,
    described,
    with_arrays,
)
from trainers.paths import in_bucket, located
from trainers.placement.names import check_module
from trainers.placement.processes import of_first, together
from trainers.tables.checks import printable


def save(
    path: str | os.PathLike,
    model: nnx.Module,
    *,
    step: int = 0,
    about: Mapping[str, Any] | None = None,
):
    """Writes one model to the folder `path`; a checkpoint there is replaced once it is whole.

    Several processes all call it, and write one checkpoint, in which each array is that of
    process 0 unless they hold it together.

    Args:
      path: a folder, new or an earlier checkpoint; or one in a bucket, gs://BUCKET/NAME.
      model: any NNX module. A flow made of this library's layers is saved with its
        configuration, so `load_flow` needs no code; any other one needs `restore`.
      step: a number to remember it by.
      about: what else to keep with it, as JSON; `read_about` gives it back.

    Raises:
      ValueError: `path` cannot be made, holds something else, or is not on a disk that all
        processes share; `model` holds no arrays, or `about` what JSON does not.
      ImportError: a bucket, without what reads it; the message names the extra.
      CheckpointError: there is no room, or a bucket does not give back what was written.

    Example:
      >>> import tempfile
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> import trainers
      >>> flow = rn.diagonal_flow(2, 1, rngs=nnx.Rngs(0))
      >>> path = tempfile.mkdtemp() + "/flow"
      >>> trainers.save(path, flow)
      >>> trainers.load_flow(path).num_features
      2
    """
    check_module(model, "save")
    if names := abstract_names(model):
        raise ValueError(
            f"`model` must hold arrays; got only the shape of {', '.join(names[:3])}."
            " Restore or build it in full."
        )
    place, step = located(path), declared.step_of(step)
    about = about_model(model) | {"about": declared.about_of(about)}
    arrays = {f"model.{name}": array for name, array in arrays_of(model).items()}
    if not any(map(np.size, arrays.values())):
        raise ValueError(
            f"`model` must hold arrays; got a {type(model).__name__} without any. Hold them"
            " in nnx.Variable, and submodules in nnx.List."
        )
    number = of_first(together(lambda: make_room(place, step), alone=True))
    together(lambda: check_shared(place))
    on_disk.write_single(place / str(number), step, arrays, about)
    if in_bucket(place):  # which may take what it does not give back
        meta = on_disk.read_meta(place, number)
        what = (place, number, meta, meta["arrays"])  # those of process 0
        together(lambda: on_disk.read_arrays(*what, like=arrays), error=CheckpointError)
    together(lambda: replace_others(place, number, step), alone=True)


def restore(
    path: str | os.PathLike,
    model: nnx.Module,
    *,
    strict: bool = True,
    only: str | Sequence[str] = (),
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    shardings: Any = None,
    step: Step = "best",
    weights: Weights = "ema",
) -> nnx.Module:
    """Returns a new model like `model` with the arrays of a checkpoint.

    Args:
      path: folder of `save`, a run's `workdir`, or what Orbax wrote without this library:
        a tree, as from `StandardCheckpointer().save(path, nnx.state(model))`, or the
        steps of a `CheckpointManager`, whose newest counts as the best.
      model: gives the structure; unchanged. One that was never allocated will do, as
        `nnx.eval_shape` and `nnx.get_abstract_model` give it.
      strict: True demands the same names and shapes on both sides, and a flow that was
        built with the same arguments. False takes the arrays that agree and warns with
        three lists: what the checkpoint misses, what the model does not expect, and what
        has another shape.
      only: a pattern of dotted names or several, as in `("*.vectors", "layers.0.*")`; the
        arrays that match none are left as they are in `model`. Empty for all.
      prefix: a part of the checkpoint, as in "encoder.flow"; the other parts do not count.
      rename: names in that part, or what they begin with, to names in the model, as in
        `{"backbone": "trunk.layers.0"}`; "" begins them all.
      shardings: a `jax.sharding.Sharding` for all arrays, or a tree of them with names of
        the model: each array is read to where it is to lie. None: to where `model` says,
        if it does; else to the default device.
      step: which of a run's models; "best" is by validation, a number is the model that
        trained at that step.
      weights: of a run, the moving averages that were evaluated, or the raw parameters.

    Raises:
      CheckpointError: the checkpoint is missing, damaged, or does not fit the model.
      ValueError: no module; patterns, names or shardings that match nothing.

    Example:
      >>> import tempfile
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> from trainers import restore, save
      >>> def build():
      ...     return rn.coupling_flow(2, 1, hidden=(8,), rngs=nnx.Rngs(0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save(f"{folder}/flow", build())
      ...     flow = restore(f"{folder}/flow", nnx.eval_shape(build))
      >>> print(flow.layers[1].vectors.shape)
      (2, 2)
    """
    check_module(model, "load")
    only = (only,) if isinstance(only, str) else only
    options = {"only": only, "prefix": prefix, "rename": rename, "shardings": shardings}

    def read() -> tuple[nnx.Module, Mismatch | None]:
        source = find_source(path, step=step, weights=weights)
        return _restored(source, model, strict=strict, **options)

    restored, differs = steady(path, read)
    if differs:
        warnings.warn(f"not restored: {differs.told()}", stacklevel=2)
    return restored


def load_flow(
    path: str | os.PathLike, *, step: Step = "best", weights: Weights = "ema"
) -> nnx.Module:
    """Rebuilds a flow from a checkpoint alone, or refuses: never another map than was saved.

    Layers of your own are rebuilt too once `rbig_nnx.register_layer` knows their class.

    Args:
      path: folder of `save`, or a run's `workdir`.
      step: which of a run's models; see `restore`.
      weights: of a run; see `restore`.

    Raises:
      CheckpointError: the checkpoint is missing, damaged, of another kind of model or of
        layers that are not known, or of float64 while JAX's 64-bit types are off.

    Example:
      >>> import tempfile
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> import trainers
      >>> flow = rn.diagonal_flow(2, 1, rngs=nnx.Rngs(0))
      >>> path = tempfile.mkdtemp() + "/flow"
      >>> trainers.save(path, flow)
      >>> rn.to_config(trainers.load_flow(path)) == rn.to_config(flow)
      True
    """
    return steady(path, lambda: _rebuilt(find_source(path, step=step, weights=weights)))


def load_with_about(path: str | os.PathLike) -> tuple[nnx.Module, dict[str, Any]]:
    """A flow, and what was kept with it: both of one save, whoever saves meanwhile.

    Args:
      path: folder of `save`, or a run's `workdir`, which keeps nothing more.

    Raises:
      CheckpointError: as `load_flow`.
    """

    def read() -> tuple[nnx.Module, dict[str, Any]]:
        source = find_source(path, step="best", weights="ema")
        return _rebuilt(source), source.meta.get("about", {})

    return steady(path, read)


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """What `save` was told to keep with the model, as JSON; empty for a run's `workdir`.

    Raises:
      CheckpointError: the checkpoint is missing or damaged.
    """
    return steady(path, lambda: read_meta(*find(path, "last"))).get("about", {})


def about_model(model: nnx.Module) -> dict[str, Any]:
    """What a checkpoint says of its model: the class, and what rebuilds a flow."""
    import rbig_nnx

    config = None
    if isinstance(model, rbig_nnx.GaussianizationFlow):
        with contextlib.suppress(ValueError):  # somebody's own layers
            config = rbig_nnx.to_config(model)
    return {"model": type(model).__name__, "config": config}


def _restored(
    whole: Source,
    model: nnx.Module,
    *,
    strict: bool = True,
    only: Sequence[str] = (),
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    shardings: Any = None,
) -> tuple[nnx.Module, Mismatch | None]:
    """What `restore` returns of a checkpoint, and what was not restored."""
    part = bool(only or prefix or rename)
    source = whole.renamed(prefix, rename or {})
    wanted = _matching(described(model, shardings), only)
    stored = {n: a for n, a in source.arrays.items() if not only or _matches(n, only)}
    configs = () if part else _configs(source, model)
    agreed = {
        n: a for n, a in wanted.items() if n in stored and stored[n].shape == a.shape
    }
    differs = mismatch(stored, wanted, configs)
    if differs and (strict or not agreed):
        start = "" if agreed else beginning(whole.arrays, wanted)
        way_out = f"Pass prefix={start!r}." if start else differs.way_out()
        fault = "must have the arrays of" if agreed else "has no array in common with"
        raise CheckpointError(
            f"`model` {fault} the checkpoint {source.place}; they differ:"
            f" {differs.told(most=5)}. {way_out}"
        )
    left = sorted(set(abstract_names(model)) - agreed.keys())
    if left:
        raise CheckpointError(
            "`model` must hold an array wherever the checkpoint gives none; got only the"
            f" shape of {', '.join(left[:5])}. Build it in full."
        )
    return with_arrays(model, source.read(agreed), agreed), differs


def _rebuilt(source: Source) -> nnx.Module:
    """What `load_flow` returns of a checkpoint."""
    import rbig_nnx  # here, so that saving any NNX module needs no flow

    meta = source.meta
    way_out = "Build that model and use trainers.restore(path, model)."
    if not meta:
        raise CheckpointError(
            f"{source.place} is no checkpoint of this library: nothing in it tells how to"
            f" build its model. {way_out}"
        )
    # Earlier releases wrote a configuration of subclasses too, which forgets what they are.
    is_flow = meta["model"] == rbig_nnx.GaussianizationFlow.__name__
    if meta["config"] is None or not is_flow:
        reason = "has layers of your own and" if is_flow else "is no plain flow and"
        raise CheckpointError(
            f"the checkpoint {source.place} is of a {meta['model']}, which {reason} cannot"
            f" be rebuilt from a configuration. {way_out}"
        )
    _check_precision(source)

    def build() -> nnx.Module:
        return rbig_nnx.from_config(meta["config"], rngs=nnx.Rngs(0))

    try:
        flow = nnx.eval_shape(build)  # no arrays beside those of the checkpoint
    except Exception as error:  # also a constructor of somebody's own
        raise CheckpointError(
            f"the checkpoint {source.place} cannot be rebuilt: {printable(error, 500)}"
        ) from error
    others = _other_dtypes(source, flow)
    if others:
        raise CheckpointError(
            f"the checkpoint {source.place} holds arrays of other types than its"
            f" configuration describes: {', '.join(others[:3])}. {way_out}"
        )
    return _restored(source, flow)[0]


def _check_precision(source: Source):
    """Refuses 64-bit types where JAX would cut them without being asked."""
    dtypes = {array.dtype for array in source.arrays.values()}
    cut = sorted(d.name for d in dtypes if jax.dtypes.canonicalize_dtype(d) != d)
    if cut:
        raise CheckpointError(
            f"the checkpoint {source.place} holds {', '.join(cut)}, and JAX's 64-bit types"
            " are off. Set JAX_ENABLE_X64=1, or restore it into a model of float32:"
            " trainers.restore(path, model)."
        )


def _other_dtypes(source: Source, flow: nnx.Module) -> list[str]:
    built = {n: a.dtype for n, a in described(flow).items() if n in source.arrays}
    return [
        f"{name} ({source.arrays[name].dtype}, not {dtype})"
        for name, dtype in built.items()
        if source.arrays[name].dtype != dtype
    ]


def _configs(source: Source, model: nnx.Module) -> Sequence[Any]:
    """Of the flow that was saved and of the model, where both can be described."""
    configs = source.meta.get("config"), about_model(model)["config"]
    same = source.meta.get("model") == type(model).__name__
    return configs if same and None not in configs else ()


def _matching(arrays, only):
    if unused := [p for p in only if not any(_matches(n, [p]) for n in arrays)]:
        raise ValueError(
            f"`only` must match names of the model; got {unused}, which match none of"
            f" {', '.join(sorted(arrays)[:5])}, ..."
        )
    return {n: a for n, a in arrays.items() if not only or _matches(n, only)}


def _matches(name, patterns) -> bool:
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)
