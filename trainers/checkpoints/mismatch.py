"""How a checkpoint and a model differ, in the words in which flows are built."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

Arrays = Mapping[str, jax.ShapeDtypeStruct]

_WIDENED = ("num_components", "num_blocks", "hidden", "context_features")
_STACKED = "scan_blocks"
_SHAPELESS = ("type", "mask", "family", "anchor_weight", "activation")


class Mismatch(NamedTuple):
    """What sets the arrays of a checkpoint and of a model apart."""

    missing: list[str]  # in the checkpoint
    unexpected: list[str]  # in the model
    reshaped: list[str]  # of other shapes
    arguments: dict[
        str, tuple[Any, Any]
    ]  # of the recipe: in the checkpoint, in the model

    def told(self, most: int | None = None) -> str:
        """Arguments and lists in one line, each list cut to `most` names."""
        lists = {
            "missing in the checkpoint": self.missing,
            "unexpected in the model": self.unexpected,
            "mismatched": self.reshaped,
        }
        parts = [
            f"{name} ({_short(there)} in the checkpoint, {_short(here)} in the model)"
            for name, (there, here) in self.arguments.items()
        ]
        for title, names in lists.items():
            if names:
                more = len(names) - len(names[:most])
                tail = f" and {more} more" if more else ""
                parts.append(f"{title}: {', '.join(names[:most])}{tail}")
        return "; ".join(parts)

    def way_out(self) -> str:
        """What to do about it, keeping the density that was saved."""
        wider = {n: self.arguments[n][1] for n in _WIDENED if n in self.arguments}
        calls = []
        converts = self.arguments.keys() <= {*_WIDENED, _STACKED}
        if wider and converts and all(_is_wider(*self.arguments[n]) for n in wider):
            given = [f"{n}={_short(value)}" for n, value in wider.items()]
            given += ["rngs=rngs"] * ("hidden" in wider)
            calls.append(f"rbig_nnx.widen(flow, {', '.join(given)})")
        if _STACKED in self.arguments and converts:
            name = "stack_blocks" if self.arguments[_STACKED][1] else "unstack_blocks"
            calls.append(f"rbig_nnx.{name}(flow)")
        then = f", and convert the flow: {', then '.join(calls)}" if calls else ""
        if then or self.arguments:
            return (
                "Restore into a model built with the arguments of the checkpoint"
                f"{then}. Taking only what agrees would give another density."
            )
        return (
            "Build the model with the same arguments. `prefix` and `rename` take a part of"
            " a checkpoint or other names; `only`, a part of the model."
        )


def mismatch(stored: Arrays, wanted: Arrays, configs: Sequence[Any]) -> Mismatch | None:
    """How they differ, or None if they do not.

    Args:
      stored: arrays of the checkpoint, by the model's names.
      wanted: arrays of the model.
      configs: what `rbig_nnx.to_config` says of the checkpoint's flow and of the model's,
        where both are known; else nothing.
    """
    reshaped = [
        f"{n}: shape {stored[n].shape} in the checkpoint and {wanted[n].shape} in the model"
        for n in sorted(wanted.keys() & stored.keys())
        if stored[n].shape != wanted[n].shape
    ]
    found = Mismatch(
        sorted(wanted.keys() - stored.keys()),
        sorted(stored.keys() - wanted.keys()),
        reshaped,
        _different(*map(_recipe, (stored, wanted)))
        | _different(*map(_shapeless, configs or ({}, {}))),
    )
    return found if any(found) else None


def beginning(stored: Arrays, wanted: Arrays) -> str | None:
    """The prefix behind which the checkpoint has all that the model wants, if there is one."""
    first = next(iter(wanted), "")
    prefixes = [n.removesuffix(f".{first}") for n in stored if n.endswith(f".{first}")]
    for prefix in sorted(prefixes, key=len):
        names = [f"{prefix}.{name}" for name in wanted]
        if all(
            n in stored and stored[n].shape == a.shape for n, a in _pairs(names, wanted)
        ):
            return prefix
    return None


def _pairs(names, wanted):
    return zip(names, wanted.values(), strict=True)


def _different(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (there[name], here[name])
        for name in there
        if name in here and there[name] != here[name]
    }


def _recipe(arrays: Arrays) -> dict[str, Any]:
    """The arguments of `coupling_flow` or `diagonal_flow` that arrays of these shapes tell."""
    # A file may claim any shape; scalars tell no width.
    shapes = {name: array.shape for name, array in arrays.items() if array.shape}
    limits = [n.rpartition("max_log_scale")[0] for n in shapes if n.endswith("scale")]
    limits = [start for start in limits if f"{start}max_log_scale" in shapes]
    found: dict[str, set] = {}
    blocks = 0
    for start in limits:
        *stacked, moved = shapes[f"{start}max_log_scale"]
        bias = f"{start}bias", f"{start}conditioner.out.bias"
        bias = next((shapes[n] for n in bias if n in shapes), None)
        if bias is None or not moved:
            continue
        trunk = _trunk(shapes, f"{start}conditioner.")
        told = {
            "num_components": bias[-1] // (3 * moved),
            "hidden": trunk,
            _STACKED: bool(stacked),
        }
        for name, value in told.items():
            if value is not None:
                found.setdefault(name, set()).add(value)
    for name, shape in shapes.items():
        if name.endswith("vectors") and len(shape) > 1:
            blocks += shape[0] if len(shape) == 3 else 1
            found.setdefault("num_features", set()).add(shape[-1])
            found.setdefault("num_reflections", set()).add(shape[-2])
    if not found:
        return {}
    contexts = [
        shape[-1]
        for name, shape in shapes.items()
        if name.rpartition("standardize_context.")[2] == "mean"
    ]
    single = {n: next(iter(v)) if len(v) == 1 else str(v) for n, v in found.items()}
    return single | {"num_blocks": blocks, "context_features": sum(contexts)}


def _trunk(shapes: Mapping[str, Sequence[int]], start: str) -> tuple[int, ...] | None:
    """Widths of the default network's layers."""
    widths = []
    while (name := f"{start}trunk.layers.{len(widths)}.bias") in shapes:
        widths.append(shapes[name][-1])
    return tuple(widths) or None


def _shapeless(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What tells two flows of the same arrays apart, of all layers."""
    found: dict[str, dict] = {}  # for their order

    def collect(entry: Mapping[str, Any]) -> None:
        if "layers" in entry:
            for part in entry["layers"]:
                collect(part)
            return
        for name in _SHAPELESS:
            if name in entry:
                found.setdefault(name, {})[str(entry[name])] = None

    collect(config or {})
    return {name: " and ".join(values) for name, values in found.items()}


def _is_wider(there: Any, here: Any) -> bool:
    if isinstance(there, tuple) and isinstance(here, tuple):
        return len(there) == len(here) and all(map(_is_wider, there, here))
    return isinstance(there, int) and isinstance(here, int) and here >= there


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
