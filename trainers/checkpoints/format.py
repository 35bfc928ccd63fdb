"""Checkpoints on disk: Orbax for the arrays, JSON for what describes them.

A checkpoint folder holds one Orbax step or more, each with two items: `arrays`, a flat
dictionary of arrays by dotted name, and `meta`, which carries the format, every array's
shape, type and checksum, and a checksum of itself, because Orbax restores flipped bits
silently. Writing is atomic: a step is there whole or not at all.
"""

import contextlib
import gc
import json
import logging
import pathlib
import sys
import time
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from trainers.placement.names import dotted

FORMAT = "rbig-nnx"
FORMAT_VERSION = 2
_PART = 1 << 20  # words that a checksum takes at a time: its temporaries are small
_IN_FLIGHT = 0.2  # seconds, after a failed read: the others end within it


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of something else."""


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


def checksum(array: Any) -> int:
    """32 bits of an array's bit pattern, whatever devices and processes it is spread over.

    The sum over all words of a mix of word and position (the finaliser of MurmurHash3):
    a sum has no order, so each device adds up its own part.
    """
    if _is_held_together(array) and not array.is_fully_replicated:
        return int(jax.jit(lambda a: _mixed(_words_on_device(a), jnp))(array))
    array = np.ascontiguousarray(_on_host(array))
    words = array.reshape(-1).view(f"u{_word_size(array)}")
    parts = (
        int(_mixed(words[i : i + _PART].astype(np.uint32), np, start=i))
        for i in range(0, len(words), _PART)
    )
    return sum(parts) % 2**32


def describe(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Shape and type of each array, as JSON."""
    return {
        name: {"shape": list(np.shape(a)), "dtype": np.dtype(a.dtype).name}
        for name, a in arrays.items()
    }


def open_manager(path: pathlib.Path, *, keep: int) -> ocp.CheckpointManager:
    """Orbax's writer of the folder `path`, which keeps the newest `keep` steps."""
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells of every file
    path.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        save_decision_policy=checkpoint_managers.FixedIntervalPolicy(1),
        preservation_policy=checkpoint_managers.LatestN(keep),
        cleanup_tmp_directories=True,
    )
    return ocp.CheckpointManager(path, options=options)


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
    written = manager.save(
        int(step),
        args=ocp.args.Composite(
            arrays=ocp.args.StandardSave(filled),
            meta=ocp.args.JsonSave(meta | {"checksum": _json_checksum(meta)}),
        ),
    )
    if not written:
        raise CheckpointError(
            f"step {step} was not written: {manager.directory} already holds step"
            f" {manager.latest_step()}."
        )


def steps_in(folder: pathlib.Path) -> list[int]:
    """The numbers of the steps that are there whole, in order."""
    # Orbax counts an empty folder named 9 as step 9; ours have our own item.
    return sorted(
        int(p.name) for p in folder.iterdir() if p.name.isdigit() and any(p.iterdir())
    )


def read_meta(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """The `meta` item of a step, checked.

    Raises:
      CheckpointError: no checkpoint of this library or version, or a damaged one.
    """
    file = folder / str(step) / "meta" / "metadata"
    try:
        meta = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder / str(step)} is no checkpoint of this library, or lost its"
            " `meta` item. Load it with the program that wrote it."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise damaged(folder / str(step), "its `meta` item does not parse") from None
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
    if meta.pop("checksum", None) != _json_checksum(meta):
        raise damaged(
            folder / str(step), "the checksum of its `meta` item does not match"
        )
    return meta


def read_arrays(
    folder: pathlib.Path,
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
        result |= restored(place / "arrays", targets, place)
    wrong = [n for n in sorted(about) if checksum(result[n]) != about[n]["checksum"]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise damaged(
            folder / str(step),
            f"the checksum does not match for {', '.join(wrong[:3])}{more}",
        )
    return result


def damaged(path: pathlib.Path, reason: str) -> CheckpointError:
    """The error that names the checkpoint and what is wrong with it."""
    return CheckpointError(f"the checkpoint {path} is damaged: {reason}.")


def restored(folder: pathlib.Path, targets: Any, place: pathlib.Path) -> Any:
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
    handler = ocp.PyTreeCheckpointHandler()
    try:
        with _without_closed_loops(), ocp.Checkpointer(handler) as checkpointer:
            return checkpointer.restore(folder, args=arguments)
    except Exception as error:  # Orbax raises bare Exception for missing bytes
        text = str(error) or type(error).__name__
        raise damaged(place, text.splitlines()[0][:200]) from error


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
    if (asked and whole) or _is_held_together(like):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=like.sharding)
    return np.empty(shape, dtype)


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


def _is_held_together(array) -> bool:
    """Whether other processes hold parts of an array."""
    return isinstance(array, jax.Array) and not array.is_fully_addressable


def _on_host(array) -> np.ndarray:
    """The whole array, without the copy that JAX would keep with it."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    whole = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        whole[shard.index] = shard.data
    return whole


def _json_checksum(meta: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())


def _word_size(array) -> int:
    return min(array.dtype.itemsize, 4)


def _words_on_device(array: jax.Array) -> jax.Array:
    if array.dtype == bool:
        return array.astype(jnp.uint32)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.stack([array.real, array.imag], axis=-1)
    word = jnp.dtype(f"u{_word_size(array)}")
    return jax.lax.bitcast_convert_type(array, word).astype(jnp.uint32)


def _mixed(words, xp, start=0):
    constant = xp.uint32
    position = xp.arange(words.size, dtype=xp.uint32).reshape(words.shape)
    position = position + constant(start % 2**32) if start else position
    mix = words ^ (position * constant(0x9E3779B9))
    mix = (mix ^ (mix >> constant(16))) * constant(0x85EBCA6B)
    mix = (mix ^ (mix >> constant(13))) * constant(0xC2B2AE35)
    return xp.sum(mix ^ (mix >> constant(16)), dtype=xp.uint32)
