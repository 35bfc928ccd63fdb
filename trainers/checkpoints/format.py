"""Checkpoints on disk: Orbax for the arrays, JSON for what describes them.

A checkpoint folder holds one Orbax step or more, each with two items: `arrays`, a flat
dictionary of arrays by dotted name, and `meta`, which carries the format, every array's
shape, type and checksum, and a checksum of itself, because Orbax restores flipped bits
silently. Writing is atomic: a step is there whole or not at all. On a disk it gets its name
when it is whole; in a bucket, whose objects have no other name, a last file says so. Several
processes call all that writes.
"""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint.options import AtomicityMode, AtomicityOptions

from trainers.checkpoints.failures import be_quiet, beginning, without_echoes, writing
from trainers.checkpoints.meta.checksums import checksum, is_held_together
from trainers.checkpoints.meta.reading import FORMAT as FORMAT
from trainers.checkpoints.meta.reading import FORMAT_VERSION as FORMAT_VERSION
from trainers.checkpoints.meta.reading import CheckpointError as CheckpointError
from trainers.checkpoints.meta.reading import damaged as damaged
from trainers.checkpoints.meta.reading import json_checksum
from trainers.checkpoints.meta.reading import peek as peek
from trainers.checkpoints.meta.reading import read_meta as read_meta
from trainers.paths import Path, in_bucket, look_again
from trainers.placement.names import dotted
from trainers.placement.processes import together

WHOLE = "commit_success.txt"  # what Orbax writes last where folders have no other name
_CENTURY = 100 * 366 * 24 * 3600  # seconds


def flat(tree: Any) -> dict[str, Any]:
    """A tree's arrays by dotted name, random keys as their words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        dotted(path): jax.random.key_data(leaf) if is_key(leaf) else leaf
        for path, leaf in leaves
    }


def unflat(like: Any, arrays: Mapping[str, Any]) -> Any:
    """The tree `like` with the named arrays for its own."""

    def one(path, leaf):
        array = arrays[dotted(path)]
        if not is_key(leaf):
            return array
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))

    return jax.tree_util.tree_map_with_path(one, like)


def is_key(leaf: Any) -> bool:
    """Whether an array, or what stands for one, holds random keys."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def describe(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shape and type of each array, as JSON."""
    return {
        name: {"shape": list(np.shape(a)), "dtype": np.dtype(a.dtype).name}
        for name, a in arrays.items()
    }


def open_manager(path: Path, *, keep: int) -> ocp.CheckpointManager:
    """Orbax's writer of the folder `path`, which keeps the newest `keep` steps."""
    be_quiet()
    path.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
        preservation_policy=checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,
        atomicity_options=_atomicity(path),
        async_options=_waiting(),
    )
    return ocp.CheckpointManager(path, options=options, item_handlers=_handlers(path))


def write_step(
    manager: ocp.CheckpointManager,
    step: int,
    arrays: Mapping[str, Any],
    about: Mapping[str, Any],
):
    """Starts to write one step; the arrays may change as soon as this returns.

    Args:
      manager: of the folder.
      step: larger than those that are there.
      arrays: by name.
      about: what else the `meta` item says, as JSON.
    """
    if not manager.save(int(step), args=_items(step, arrays, about)):
        raise CheckpointError(
            f"step {step} was not written: {manager.directory} already holds step"
            f" {manager.latest_step()}."
        )


def write_single(
    place: Path, step: int, arrays: Mapping[str, Any], about: Mapping[str, Any]
):
    """Writes one step to the new folder `place`, and waits until it is whole.

    Args:
      place: a number in the folder of a checkpoint.
      step: what the `meta` item calls it.
      arrays: by name.
      about: as of `write_step`.
    """
    be_quiet()
    handler = ocp.CompositeCheckpointHandler(**_handlers(place))
    how = _atomicity(place)
    with (
        writing("checkpoint", place.parent),
        ocp.Checkpointer(handler, atomicity_options=how) as checkpointer,
    ):
        checkpointer.save(place, args=_items(step, arrays, about))


def _items(step, arrays, about):
    described = describe(arrays)
    for name, entry in described.items():
        entry["checksum"] = checksum(arrays[name])
    meta = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "jax": jax.__version__,
        "step": int(step),
        "arrays": described,
        **about,
    }
    # Orbax refuses empty arrays; their description is all there is to know.
    filled = {name: array for name, array in arrays.items() if np.size(array)}
    return ocp.args.Composite(
        arrays=ocp.args.PyTreeSave(filled),
        meta=ocp.args.JsonSave(meta | {"checksum": json_checksum(meta)}),
    )


def _waiting() -> ocp.AsyncOptions:
    """How long a write may take: Orbax's rule among processes, one of which may be gone.

    Orbax reads the clock of the day, which jumps where a laptop sleeps.
    """
    alone = jax.process_count() == 1
    return ocp.AsyncOptions(timeout_secs=_CENTURY) if alone else ocp.AsyncOptions()


def _atomicity(path: Path) -> AtomicityOptions:
    mode = AtomicityMode.COMMIT_FILE if in_bucket(path) else AtomicityMode.AUTO
    return AtomicityOptions(mode=mode)


def _handlers(path: Path) -> dict[str, ocp.CheckpointHandler]:
    """What writes each item; in a bucket every array by itself.

    Arrays in one database write its manifest again and again, each time in place of the one
    that was read: a bucket that cannot tell which that was refuses.
    """
    kinds = ocp.type_handlers
    arrays = ocp.PyTreeCheckpointHandler(
        use_ocdbt=not in_bucket(path),
        # Without Orbax's description of each array beside its own: a quarter of a small step.
        type_handler_registry=kinds.create_type_handler_registry(
            (np.ndarray, kinds.NumpyHandler()), (jax.Array, kinds.ArrayHandler())
        ),
    )
    return {"arrays": arrays, "meta": ocp.JsonCheckpointHandler()}


def steps_in(folder: Path) -> list[int]:
    """The numbers of the steps that are there whole, in order."""
    look_again(folder)
    # Orbax counts an empty folder named 9 as step 9; ours have our own item.
    return sorted(
        int(p.name)
        for p in folder.iterdir()
        if is_numbered(p) and is_finished(p) and any(p.iterdir())
    )


def is_numbered(step: Path) -> bool:
    """Whether it is a folder with the name of a step; files and links to none are passed."""
    return step.name.isascii() and step.name.isdigit() and step.is_dir()


def is_finished(step: Path) -> bool:
    """Whether nobody is writing the step, or was killed at it."""
    return not in_bucket(step) or (step / WHOLE).exists()


def read_arrays(
    folder: Path,
    step: int,
    meta: Mapping[str, Any],
    names: Collection[str],
    *,
    like: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Some arrays of a step, checked: NumPy's, which are bound to no device.

    Args:
      folder: of the checkpoint.
      step: its number.
      meta: of that step.
      names: of the arrays to read.
      like: arrays by name. What several processes hold together is read the same way,
        each process its own part. So are `jax.ShapeDtypeStruct`s with a sharding.

    Raises:
      CheckpointError: the step is damaged.
    """
    about = {name: meta["arrays"][name] for name in names}
    result = {
        name: np.empty(entry["shape"], jnp.dtype(entry["dtype"]))
        for name, entry in about.items()
    }
    targets = {
        name: target(array.shape, array.dtype, (like or {}).get(name))
        for name, array in result.items()
        if array.size
    }
    if targets:
        place = folder / str(step)

        def read() -> Any:
            return restored(place / "arrays", targets, place)

        shared = any(is_held_together(t) for t in targets.values())
        # Where each process reads a part, one may find it damaged and the others not.
        found = together(read, error=CheckpointError) if shared else read()
        result |= found or {}
    wrong = [n for n in sorted(about) if checksum(result[n]) != about[n]["checksum"]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise damaged(
            folder / str(step),
            f"the checksum does not match for {', '.join(wrong[:3])}{more}",
        )
    return result


def restored(folder: Path, targets: Any, place: Path) -> Any:
    """What Orbax reads from the folder of a tree, for a part of that tree.

    Args:
      folder: of the arrays.
      targets: a tree; each leaf as of `target`.
      place: the checkpoint that they are of, for the error.

    Raises:
      CheckpointError: Orbax does not read it.
    """
    arguments = ocp.args.PyTreeRestore(
        item=targets,
        restore_args=ocp.checkpoint_utils.construct_restore_args(targets),
        partial_restore=True,
    )
    # Not by a Checkpointer, which waits for all processes: one of them may read alone.
    handler = ocp.PyTreeCheckpointHandler()
    try:
        with without_echoes(), contextlib.closing(handler):
            return handler.restore(epath.Path(folder), args=arguments)
    except Exception as error:  # Orbax raises bare Exception for missing bytes
        raise damaged(place, beginning(error)) from error


def target(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
    """What tells Orbax to read an array: to the host, or to where `like` lies.

    Args:
      shape: of the array.
      dtype: of the array.
      like: an array that several processes hold together, or a `jax.ShapeDtypeStruct`
        with a sharding; anything else for NumPy's array.
    """
    asked = isinstance(like, jax.ShapeDtypeStruct) and like.sharding is not None
    # 64-bit types come to the host where JAX would cut them: their checksum is of all bits.
    whole = jax.dtypes.canonicalize_dtype(dtype) == dtype
    if (asked and whole) or is_held_together(like):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=like.sharding)
    return np.empty(shape, dtype)
