"""What the `meta` item of a checkpoint may say: types, ranges and sizes, by declaration.

All of it is looked at before anything is built. A number that says how large something is
must not be larger than the arrays that are there; so no number in a file takes memory.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from rbig_nnx.math.params import whole
from trainers.checkpoints.meta.layers import check_config

_MOST = 1_000_000  # arrays of a checkpoint, records of a history
_LAST = 2**62
Count = Annotated[int, Meta(ge=0, le=_LAST)]
Word = Annotated[int, Meta(ge=0, lt=2**32)]
Name = Annotated[str, Meta(min_length=1, max_length=1_000)]
Digest = Annotated[str, Meta(max_length=100)]


class Array(Struct):
    """Shape, type and checksum of an array."""

    shape: Annotated[list[Count], Meta(max_length=64)]
    dtype: Annotated[str, Meta(max_length=30)]
    checksum: Word


class Run(Struct):
    """A training run as of a step."""

    identity: dict[str, Any]
    history: Annotated[list[dict[str, float]], Meta(max_length=_MOST)]
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    stop_reason: Literal["completed", "early stop", "non-finite"] | None = None
    source: Any = None


class Checkpoint(Struct):
    """All of the item."""

    step: Count
    arrays: Annotated[dict[Name, Array], Meta(max_length=_MOST)]
    model: Name
    config: dict[str, Any] | None
    about: dict[str, Any] | UnsetType = UNSET
    run: Run | UnsetType = UNSET


class Rows(Struct):
    """One array of a data set, of all processes."""

    shape: list[Count]
    dtype: str
    rows: list[Count]
    digests: list[Digest]


class Model(Struct):
    """The model of a run."""

    model: str
    config: dict[str, Any] | None


class Identity(Struct):
    """What `trainers.checkpoints.identity.fingerprint` says of a run."""

    outer: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, str | dict[str, Rows]]
    model: Model
    loss_fn: str
    arrays: dict[str, dict[str, Any]]
    start: dict[str, Annotated[list[float], Meta(min_length=3, max_length=3)]]
    optimizer: dict[str, Any] | UnsetType = UNSET
    metrics: list[str] | UnsetType = UNSET
    loss: dict[Literal["bound", "code", "python"], str] | UnsetType = UNSET


def check(meta: Mapping[str, Any]) -> None:
    """Raises a `ValueError`, with the place of what is wrong."""
    found = msgspec.convert(meta, Checkpoint)
    for name, array in found.arrays.items():
        parts = name.replace("\\", "/").split("/")
        if not name.isprintable() or {"", ".", ".."} & set(parts):
            raise ValueError("a name of `arrays` leads out of the folder")
        if not is_numeric(array.dtype):
            raise ValueError(f"`arrays` holds the type {array.dtype!r}")
    if found.config is not None:
        shapes = [array.shape for array in found.arrays.values()]
        check_config(found.config, shapes)
    if found.run is not UNSET and found.run.history:
        first = found.run.history[0].keys()
        if "step" not in first or any(r.keys() != first for r in found.run.history):
            raise ValueError("the records of its history have other columns")


def check_identity(identity: Mapping[str, Any]) -> None:
    """Raises a `ValueError`, with the place of what is wrong."""
    msgspec.convert(identity, Identity)


def is_numeric(dtype: str) -> bool:
    """Whether a name is that of a type of numbers, and of no other form of it."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        return False
    return found.name == dtype and (
        found.kind == "b" or bool(jnp.issubdtype(found, np.number))
    )


def size_of(arrays: Mapping[str, Any]) -> int:
    """Bytes that the arrays of a checked item take in memory."""
    return sum(
        int(np.prod([1, *array["shape"]], dtype=object))
        * np.dtype(array["dtype"]).itemsize
        for array in arrays.values()
    )


def step_of(step: Any) -> int:
    """The number that a model is remembered by; raises a `ValueError` for others."""
    number = whole("step", step, 0)
    if number > _LAST:
        raise ValueError(f"`step` must be at most {_LAST}; got {number}.")
    return number


def about_of(about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is kept with a model; raises a `ValueError` where JSON does not hold it."""
    try:
        about = dict(about or {})
        json.dumps(about)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"`about` must be a mapping that JSON holds: {error}. Use Python's own numbers,"
            " words, lists and mappings."
        ) from None
    return about
