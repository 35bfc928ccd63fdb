"""Layers applied in order; runs of equal layers are loops.

A flow is written as a plain list of layers. Where a unit of one or more layers repeats
with the same structure and shapes, its parameters are stacked while tracing and the unit
becomes the body of one `jax.lax.scan`, so the size of the compiled program does not grow
with the number of blocks. A coupling and its mirror image are such a unit too, once the
features that the one passes and the other moves change places in between.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array

from rbig_nnx.bijectors.feature_swap import FeatureSwap
from rbig_nnx.math import components, masks


def as_bijector(layer: Any, context: Array | None) -> distrax.Bijector:
    """The layer as a bijector: its own `bijector(context)`, or itself if it is one.

    Raises:
      TypeError: if it is neither.
    """
    if isinstance(layer, distrax.Bijector):
        return layer
    if callable(getattr(layer, "bijector", None)):
        return layer.bijector(context)
    raise TypeError(
        "a layer must be a distrax.Bijector or have a method `bijector(context)` that"
        f" returns one; got {type(layer).__name__}."
    )


class LayerStack(distrax.Bijector):
    """f_n ∘ … ∘ f_1 for layers f_1, …, f_n given in the order of application.

    Args:
      layers: `distrax.Bijector`s on vectors, or modules with `bijector(context)`.
      context: read by the layers that are conditional, [..., c].
    """

    def __init__(self, layers: Sequence[Any], context: Array | None = None):
        super().__init__(event_ndims_in=1)
        self._layers = tuple(layers)
        self._context = context

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x) and log|det J(f)(x)|."""
        return self._apply("forward_and_log_det", x)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        return self._apply("inverse_and_log_det", y)

    def _apply(self, direction: str, x: Array) -> tuple[Array, Array]:
        inverse = direction == "inverse_and_log_det"

        def apply(layer, features, total):
            bijector = as_bijector(layer, self._context)
            value, log_det = getattr(bijector, direction)(features.T)
            return value.T, total + log_det

        # Recomputing a layer in the backward pass is cheaper than keeping its parts.
        keep = jax.checkpoint_policies.save_only_these_names(components.KEPT)
        again = jax.checkpoint(apply, prevent_cse=False, policy=keep)

        def run(steps, carry, apply):
            for step in reversed(steps) if inverse else steps:
                if not isinstance(step, Loop):
                    carry = apply(step, *carry)
                    continue
                carry, _ = jax.lax.scan(
                    lambda carry, body: (run(body, carry, again), None),
                    carry,
                    step.body,
                    length=step.repeats,
                    reverse=inverse,
                )
            return carry

        # Features lie first in memory, as couplings take them: see `masks`.
        carry = x.T, jnp.zeros(x.shape[:-1], x.dtype)
        features, total = run(as_loops(self._layers), carry, apply)
        return features.T, total


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["body"], meta_fields=["repeats"]
)
@dataclasses.dataclass(frozen=True)
class Loop:
    """Layers and loops, their arrays stacked along a leading axis: one step a slice."""

    body: tuple
    repeats: int


def as_loops(layers: Sequence[Any]) -> tuple:
    """The layers in order, with a `Loop` for every unit that repeats."""
    steps: list[Any] = []
    for start, length, repeats in _repeated_units(aligned := _aligned(layers)):
        units = [aligned[start + i * length :][:length] for i in range(repeats)]
        steps += units[0] if repeats == 1 else [Loop(_stacked(units), repeats)]
    return tuple(steps)


def _stacked(sequences: list[list[Any]]) -> tuple:
    """Equal sequences of layers as one, with loops inside and one leading axis."""
    steps: list[Any] = []
    for start, length, repeats in _repeated_units(sequences[0]):
        units = [
            sequence[start + i * length :][:length]
            for sequence in sequences
            for i in range(repeats)
        ]
        if repeats == 1:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *units)
            steps += stacked
            continue
        shape = len(sequences), repeats
        body = jax.tree.map(
            lambda a, shape=shape: a.reshape(*shape, *a.shape[1:]), _stacked(units)
        )
        steps.append(Loop(body, repeats))
    return tuple(steps)


def _aligned(layers: Sequence[Any]) -> list[Any]:
    """The same map, a coupling's mirror image written as it and two swaps."""
    aligned: list[Any] = []
    for layer in layers:
        mirror = _mirrored(layer)
        if mirror is not None and aligned and _same_kind(aligned[-1], mirror):
            swap = FeatureSwap(mirror.mask)
            aligned += [swap, mirror, swap]
        else:
            aligned.append(layer)
    return aligned


def _mirrored(layer: Any) -> Any:
    """A coupling that moves half of the features, for features that changed places."""
    mask = getattr(layer, "mask", ())
    if not hasattr(layer, "with_mask") or 2 * sum(mask) != len(mask):
        return None
    return layer.with_mask(masks.complement(mask))


def _same_kind(first: Any, second: Any) -> bool:
    kind, other = _kinds([first, second])
    return kind is not None and kind == other


def _repeated_units(layers: Sequence[Any]) -> Iterator[tuple[int, int, int]]:
    """Splits layers into units and their repeats, the longest run of blocks first found.

    Yields:
      (start, length, repeats) in order. Layers with other than floating arrays (random
      streams, counters) never repeat.
    """
    kinds = _kinds(layers)
    n, start = len(layers), 0
    while start < n:
        length, count = 1, 1
        for period in range(1, (n - start) // 2 + 1):
            repeats = 1
            unit = kinds[start : start + period]
            while (
                kinds[start + repeats * period :][:period] == unit and None not in unit
            ):
                repeats += 1
            if repeats > 1 and repeats * period > length * count:
                length, count = period, repeats
        yield start, length, count
        start += length * count


def _kinds(layers: Sequence[Any]) -> list[int | None]:
    """Equal numbers for layers of equal structure and shapes; None for unscannable ones."""
    seen: list[Any] = []
    kinds: list[int | None] = []
    for layer in layers:
        leaves, treedef = jax.tree.flatten(layer)
        floating = all(
            hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
            for a in leaves
        )
        if not floating:
            kinds.append(None)
            continue
        signature = (treedef, tuple((a.shape, a.dtype) for a in leaves))
        if signature not in seen:
            seen.append(signature)
        kinds.append(seen.index(signature))
    return kinds
