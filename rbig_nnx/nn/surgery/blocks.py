"""The blocks of a flow: in its list of layers, or stored stacked."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rbig_nnx.nn.base.changes import has_shared_variables
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.stack import ScannedBlocks, blocks_of, kinds_of
from rbig_nnx.nn.surgery.members import leading_axes

Mixtures = MixtureCDFCoupling | MixtureCDFMarginal


def stack_blocks(flow: GaussianizationFlow) -> GaussianizationFlow:
    """The same flow with its equal blocks stored stacked, as `scan_blocks=True` builds them.

    Raises:
      ValueError: for no block, shared variables, or blocks with random streams or counters.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.stack_blocks(rn.diagonal_flow(2, 3, rngs=nnx.Rngs(0)))
      >>> print(len(flow.layers), flow.layers[1].num_blocks)
      2 3
    """
    layers, _ = written_out(flow)
    return with_layers(flow, stacked_blocks(layers))


def unstack_blocks(flow: GaussianizationFlow) -> GaussianizationFlow:
    """The same flow with all layers in its list, as `scan_blocks=False` builds it.

    Raises:
      ValueError: for shared variables.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.diagonal_flow(2, 3, scan_blocks=True, rngs=nnx.Rngs(0))
      >>> print(len(rn.unstack_blocks(flow).layers))
      7
    """
    return with_layers(flow, written_out(flow)[0])


def written_out(flow: GaussianizationFlow) -> tuple[list[Any], bool]:
    """Copies of all layers, those of stacked blocks too, and whether there were such."""
    if not isinstance(flow, GaussianizationFlow):
        raise ValueError(
            f"`flow` must be a GaussianizationFlow; got {type(flow).__name__}. Convert the"
            " flow in it: model.flow = rbig_nnx.widen(model.flow, ...)."
        )
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(flow)):
        raise ValueError(
            "`flow` must hold arrays; got only their shapes. Convert within the function"
            " that is asked for shapes: nnx.eval_shape(lambda: rbig_nnx.widen(...))."
        )
    if axes := leading_axes(flow):
        raise ValueError(
            f"`flow` must be one flow; got an ensemble of shape {axes}. Convert each member,"
            " jax.tree.map(lambda a: a[i], ensemble), and stack what you get:"
            " jax.tree.map(lambda *a: jnp.stack(a), *members)."
        )
    if has_shared_variables(flow):
        raise ValueError(
            "`flow` must have layers with variables of their own; got some that are at two"
            " places, which a conversion would part. Give each layer its own."
        )
    layers = list(jax.tree.map(_gathered, nnx.clone(flow)).layers)
    stacked = any(isinstance(layer, ScannedBlocks) for layer in layers)
    return [
        la for outer in layers for block in blocks_of(outer) for la in block
    ], stacked


def _gathered(array: Any) -> Any:
    """An array that lies on several devices as one that lies on none in particular."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array):
        return array
    spread = len(array.devices()) > 1 and array.is_fully_addressable
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jnp.asarray(np.asarray(array)) if spread and not is_key else array


def with_layers(
    flow: GaussianizationFlow, layers: Sequence[Any]
) -> GaussianizationFlow:
    """A copy of the flow with these layers."""
    result = nnx.clone(flow)  # which may be of a subclass
    result.layers = nnx.List(list(layers))
    return result


def stacked_blocks(layers: Sequence[Any]) -> list[Any]:
    """The layers with runs of equal blocks stacked.

    Raises:
      ValueError: if there is no block, or one cannot be stacked.
    """
    head, blocks = head_and_blocks(layers)
    if not blocks:
        raise ValueError(
            "`flow` must have blocks to stack; got layers"
            f" {[type(layer).__name__ for layer in layers]}."
        )
    kinds = iter(kinds_of([layer for block in blocks for layer in block]))
    kinds_of_blocks = [tuple(itertools.islice(kinds, len(block))) for block in blocks]
    runs = itertools.groupby(range(len(blocks)), key=kinds_of_blocks.__getitem__)
    return [*head, *(ScannedBlocks([blocks[i] for i in run]) for _, run in runs)]


def head_and_blocks(layers: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
    """What lies next to the data, and the blocks: rotation, then mixtures, or first these."""
    own = HouseholderRotation | Mixtures

    def is_other(layer: Any) -> bool:
        return not isinstance(layer, own)

    head = list(itertools.takewhile(is_other, layers))
    rest = list(layers[len(head) :])
    # A map of each column before couplings, or before a layer of no block, is no block.
    if isinstance(next(iter(rest), None), MixtureCDFMarginal) and (
        any(isinstance(layer, MixtureCDFCoupling) for layer in rest)
        or any(map(is_other, rest[1:2]))
    ):
        head += rest[:1]
        head += itertools.takewhile(is_other, rest[1:])
        rest = list(layers[len(head) :])
    mixes = [isinstance(layer, Mixtures) for layer in rest]
    blocks: list[list[Any]] = []
    for i, layer in enumerate(rest):
        together = i > 0 and isinstance(layer, MixtureCDFCoupling)
        together = together and isinstance(rest[i - 1], MixtureCDFCoupling)
        begins = i == 0 or (mixes[i] == mixes[0] and mixes[i] != mixes[i - 1])
        if begins or (mixes[i] and mixes[i - 1] and not together):
            blocks.append([])
        blocks[-1].append(layer)
    return head, blocks
