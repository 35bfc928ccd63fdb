"""What makes a run the same run: everything that its result depends on, as JSON."""

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.checkpoints import format as on_disk
from trainers.checkpoints.held import held
from trainers.checkpoints.meta.declared import check_identity
from trainers.checkpoints.model import about_model
from trainers.config import TrainConfig
from trainers.placement import sharding
from trainers.placement.names import dotted
from trainers.tables.checks import printable
from trainers.tables.files.sources import as_path

_VERSION = 2  # of the dictionaries that `fingerprint` gives
_FREE = ("checkpoint_every", "max_to_keep")  # settings that may change between starts
_DIGEST = "blake2b:"  # before the hexadecimal digits
_PROJECTED = 65_536  # values of an array that one vector of signs meets
_SAME = 1e-3  # of an array's norm: a warm start on an accelerator repeats to rounding
_MOST_TOLD = 4  # differences in a message


def fingerprint(
    model: nnx.Module,
    *,
    config: TrainConfig,
    loss_fn: Any,
    optimizer: Any = None,
    metrics: Sequence[str] = (),
    trainable: Any,
    data: Mapping[str, Any],
    outer: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a run must share with its checkpoints to go on from them.

    Args:
      model: its class, of a flow its configuration, and its first parameters; these up
        to rounding, by two numbers for each array.
      config: settings; how often to save is left out.
      loss_fn: its name; of the user's own also its code with that of the functions of its
        module that it calls, and what is bound to it: values closed over, defaults and
        arguments of `functools.partial`. Of other modules and of global values nothing.
      optimizer: of the user's own: the form of its state, and what its functions hold.
      metrics: names of what is computed at evaluations.
      trainable: NNX filter; which arrays it names.
      data: arrays, or trees of them, by the name of the argument: every byte of them.
        Several processes, which may share the rows out anew, compare values where they
        have the same shares. A string stands for itself, as from `file_digest`.
      outer: what the caller adds, as JSON.
    """
    name = getattr(loss_fn, "__qualname__", type(loss_fn).__qualname__)
    params, rest = nnx.split_state(nnx.state(model), trainable, ...)
    arrays = {
        kind: on_disk.flat(nnx.to_pure_dict(part))
        for kind, part in (("trained", params), ("kept", rest))
    }
    found = {
        "version": _VERSION,
        "outer": dict(outer or {}),
        "config": vars(config),
        "data": {name: _about_rows(rows) for name, rows in data.items()},
        "model": about_model(model),
        "loss_fn": f"{getattr(loss_fn, '__module__', '')}.{name}",
        "arrays": {kind: on_disk.describe(part) for kind, part in arrays.items()},
        "start": {
            name: _sketch(array)
            for part in arrays.values()
            for name, array in part.items()
        },
    }
    # What an earlier release knows nothing of is not there.
    if optimizer is not None:
        found["optimizer"] = _about_optimizer(optimizer, nnx.to_pure_dict(params))
    if metrics:
        found["metrics"] = list(metrics)
    if not found["loss_fn"].startswith("trainers."):
        found["loss"] = _about_loss(loss_fn)
    return as_json(found)


def as_json(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as it comes back from a file: lists for tuples, strings for paths.

    Settings that may change between the starts of a run are left out.
    """

    def without_free(found):
        return {name: value for name, value in found.items() if name not in _FREE}

    return json.loads(json.dumps(identity, default=str), object_hook=without_free)


def digest(identity: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of a mapping, for the name of a folder."""
    text = json.dumps(as_json(identity), sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def file_digest(path: str | os.PathLike) -> str:
    """Of every byte of a file, whatever its name is; about a second for a gigabyte."""
    with as_path(path).open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return _DIGEST + found.hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What sets two identities apart, in the words of the caller; empty if nothing does."""
    if old == new:
        return []
    if old.get("version") != new.get("version"):
        return ["the version of this library that wrote it"]
    if "model" in new:
        try:
            check_identity(old)
        except ValueError as error:
            return [f"what it says of itself, which is damaged ({printable(error)})"]
    told = [
        *_in_mapping(old.get("outer", {}), new.get("outer", {})),
        *_in_mapping(old.get("config", {}), new.get("config", {})),
        *_in_optimizer(old.get("optimizer") or {}, new.get("optimizer") or {}),
        *_in_mapping(old.get("metrics"), new.get("metrics"), "metrics"),
        *_in_data(old.get("data", {}), new.get("data", {})),
        *(_in_model(old, new) if "model" in new else ()),
    ]
    more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
    return told[:_MOST_TOLD] + more


def _in_mapping(old: Any, new: Any, name: str = "") -> Iterator[str]:
    lists = isinstance(old, list) and isinstance(new, list) and len(old) == len(new)
    if lists and any(isinstance(part, dict) for part in new):
        # Layers and the like; of plain numbers the whole list says more.
        old, new = (dict(enumerate(part)) for part in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            at = f"{name}.{key}" if name else str(key)
            yield from _in_mapping(old.get(key), new.get(key), at)
    elif old != new:
        if _is_digest(old) and _is_digest(new):
            yield f"the content of `{name}`"
        else:
            yield f"`{name}` ({_short(old)} there, {_short(new)} here)"


def _in_optimizer(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if bool(old) != bool(new):
        there, here = ("given", "not") if old else ("not given", "given")
        yield f"`optimizer` ({there} there, {here} here)"
    elif old.get("state") != new.get("state"):
        yield "`optimizer` (the form of its state)"
    elif old != new:
        yield "the settings of `optimizer`"


def _in_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*old, *new)):
        if name not in new or name not in old:
            there, here = ("given", "not") if name in old else ("not given", "given")
            yield f"`{name}` ({there} there, {here} here)"
            continue
        before, now = old[name], new[name]
        if not isinstance(before, dict) or not isinstance(now, dict):
            if before != now:
                yield f"the content of `{name}`"
            continue
        shapes, sizes = (
            [{k: part[key] for k, part in rows.items()} for rows in (before, now)]
            for key in ("shape", "rows")
        )
        if shapes[0] != shapes[1]:
            there, here = (", ".join(map(str, s.values())) for s in shapes)
            yield f"the shape of `{name}` ({there} there, {here} here)"
        elif before != now and sizes[0] == sizes[1]:
            yield f"the values of `{name}`"


def _in_model(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    was, now = old["model"], new["model"]
    if was["model"] != now["model"]:
        yield f"the model ({was['model']} there, {now['model']} here)"
        return
    config = list(_in_mapping(was["config"], now["config"], "model"))
    yield from config
    if old["loss_fn"] != new["loss_fn"]:
        yield f"`loss_fn` ({old['loss_fn']} there, {new['loss_fn']} here)"
    elif {"loss"} <= old.keys() & new.keys():
        yield from _in_loss(old["loss"], new["loss"])
    if old["arrays"] != new["arrays"]:
        if not config:
            yield "the model's variables, or which of them train (`trainable`)"
        return
    before = old["start"]
    moved = [
        n
        for n, now in new["start"].items()
        if n not in before or not _is_close(before[n], now)
    ]
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        yield f"the first parameters ({moved[0]}{more}; another seed or warm start)"


def _in_loss(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    if old["bound"] != new["bound"]:
        yield "the values that `loss_fn` has bound"
    elif old["python"] == new["python"] and old["code"] != new["code"]:
        yield "the code of `loss_fn`"


def _is_close(old: list[float], new: list[float]) -> bool:
    return np.allclose(old, new, rtol=0, atol=_SAME * new[0])


def _sketch(array: Any) -> list[float]:
    """What tells arrays apart that differ by more than rounding.

    The norm and a projection of the finite values, and one of where the others are.
    """
    values = np.asarray(sharding.on_this_process(array), np.float64).ravel()
    finite = np.isfinite(values)
    return [*_projected(np.where(finite, values, 0)), _projected(~finite)[1]]


def _projected(values: np.ndarray) -> tuple[float, float]:
    width = max(min(len(values), _PROJECTED), 1)
    values = np.pad(values, (0, -len(values) % width)).reshape(-1, width)
    by_line = values @ _signs(_PROJECTED)[:width]
    return float(np.linalg.norm(values)), float(by_line @ _signs(len(values)))


@functools.lru_cache(8)
def _signs(size: int) -> np.ndarray:
    return np.random.default_rng(0).choice((-1.0, 1.0), size)


def _about_optimizer(optimizer: Any, params: Any) -> dict[str, Any]:
    """As far as it can be told: two of Optax, made by the same line, have the same."""
    state = jax.tree_util.tree_leaves_with_path(jax.eval_shape(optimizer.init, params))
    form = {dotted(path): f"{a.dtype}{list(a.shape)}" for path, a in state}
    return {"state": form, "settings": _digest_of(held(optimizer))}


def _about_loss(loss_fn: Any) -> dict[str, str]:
    """As far as it can be told; byte code is that of one version of Python."""
    code: list[Any] = []
    bound = _digest_of(held(loss_fn, code))
    tag = str(sys.implementation.cache_tag)
    return {"bound": bound, "code": _digest_of(code), "python": tag}


def _digest_of(plain: Any) -> str:
    return _DIGEST + hashlib.blake2b(repr(plain).encode(), digest_size=16).hexdigest()


def _about_rows(rows: Any) -> Any:
    if isinstance(rows, str):
        return rows
    return {
        jax.tree_util.keystr(path) or "array": _about_array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(rows)
    }


def _about_array(array: np.ndarray) -> dict[str, Any]:
    """Of the rows of all processes."""
    words = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    own = hashlib.blake2b(words, digest_size=16)
    counts = sharding.gathered(np.int64(len(array))).tolist()
    digests = sharding.gathered(np.frombuffer(own.digest(), np.uint8))
    return {
        "shape": [sum(counts), *array.shape[1:]],
        "dtype": str(array.dtype),
        "rows": counts,
        "digests": [digest.tobytes().hex() for digest in digests],
    }


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_DIGEST)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
