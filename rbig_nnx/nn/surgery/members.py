"""Ensembles: flows whose variables are stacked along leading axes, as `nnx.vmap` makes them."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.stack import ScannedBlocks
from rbig_nnx.nn.standardize import Standardize, Whiten
from rbig_nnx.nn.transforms import ClusterTransform, RadialTransform, TailTransform


def leading_axes(flow: GaussianizationFlow) -> tuple[int, ...]:
    """The shape of an ensemble, (members,) or one axis for each `nnx.vmap`; () of one flow.

    It is read off the layers of this package, whose arrays have a known shape.

    Raises:
      ValueError: naming a variable that does not have the members on its first axes.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> from rbig_nnx.nn.surgery.members import leading_axes
      >>> make = nnx.vmap(lambda rngs: rn.diagonal_flow(2, 1, rngs=rngs))
      >>> print(leading_axes(make(nnx.Rngs(0).split(3))))
      (3,)
    """
    known = [found for layer in flow.layers for found in _known(layer)]
    axes = max((a.shape[: a.ndim - len(own)] for a, own in known), key=len, default=())
    if not axes:
        return ()
    misfits = [a.shape for a, own in known if a.shape != (*axes, *own)]
    misfits += [
        a.shape for a in jax.tree.leaves(nnx.state(flow)) if not _is_stacked(a, axes)
    ]
    if misfits:
        raise ValueError(
            "`model` must have the members of an ensemble on the first axis of every"
            f" variable; got variables stacked by {axes} beside one of shape"
            f" {misfits[0]}. Make it by nnx.vmap with its default `out_axes`, or warm-start"
            " one flow and stack copies of it."
        )
    return axes


def _known(layer: Any) -> list[tuple[Array, tuple[int, ...]]]:
    """Arrays of a layer, and the shape that each has in one flow."""
    d = getattr(layer, "num_features", 0)
    if isinstance(layer, ScannedBlocks):
        inner = [found for la in layer.layers for found in _known(la)]
        return [(a, (layer.num_blocks, *own)) for a, own in inner]
    if isinstance(layer, Standardize):
        return [(layer.mean[...], (d,))]
    if isinstance(layer, Whiten):
        return [(layer.matrix[...], (d, d))]
    if isinstance(layer, TailTransform):
        return [(layer.left_tail[...], (d,))]
    if isinstance(layer, RadialTransform):
        return [(layer.tail[...], ())]
    if isinstance(layer, ClusterTransform):
        return [(layer.offsets[...], (layer.num_components, d))]
    if isinstance(layer, HouseholderRotation):
        return [(layer.vectors[...], (layer.num_reflections, d))]
    if isinstance(layer, MixtureCDFMarginal):
        return [(layer.max_log_scale[...], (d,))]
    if isinstance(layer, MixtureCDFCoupling):
        return [(layer.max_log_scale[...], (layer.mask.count(False),))]
    return []


def _is_stacked(a: Any, axes: tuple[int, ...]) -> bool:
    return np.shape(a)[: len(axes)] == axes
