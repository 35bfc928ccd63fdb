"""What a checkpoint may say of a flow: the arguments of its layers, each in its range."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

_DEPTH = 4  # of stacks within stacks
_USUAL = 1_024  # a width that needs no array of that size to be believed
_MOST = 10_000  # layers of a flow
Size = Annotated[int, Meta(ge=1, le=2**62)]
Type = Annotated[str, Meta(max_length=30)]
Dtype = Literal["float16", "bfloat16", "float32", "float64"]
Family = Literal["gaussian", "logistic"]
Weight = Annotated[float, Meta(ge=0, lt=1)]


class _Layer(Struct, tag_field="type", forbid_unknown_fields=True):
    num_features: Size
    param_dtype: Dtype | UnsetType = UNSET


class Standardize(_Layer, tag="Standardize"):
    """As `rbig_nnx.Standardize`, and so are the others."""


class Whiten(_Layer, tag="Whiten"):
    """Likewise."""


class TailTransform(_Layer, tag="TailTransform"):
    """Likewise."""


class RadialTransform(_Layer, tag="RadialTransform"):
    """Likewise."""


class ClusterTransform(_Layer, tag="ClusterTransform"):
    """Likewise."""

    num_components: Size | UnsetType = UNSET
    anchor_weight: Weight | UnsetType = UNSET


class HouseholderRotation(_Layer, tag="HouseholderRotation"):
    """Likewise."""

    num_reflections: Size | UnsetType | None = UNSET
    trainable: Literal["vectors", "none"] | UnsetType = UNSET


class MixtureCDFMarginal(_Layer, tag="MixtureCDFMarginal"):
    """Likewise."""

    num_components: Size | UnsetType = UNSET
    family: Family | UnsetType = UNSET
    anchor_weight: Weight | UnsetType = UNSET


class MixtureCDFCoupling(MixtureCDFMarginal, tag="MixtureCDFCoupling"):
    """Likewise."""

    mask: list[bool] | UnsetType | None = UNSET
    context_features: Annotated[int, Meta(ge=0, le=2**62)] | UnsetType = UNSET
    hidden: Annotated[list[Size], Meta(max_length=1_000)] | UnsetType = UNSET
    activation: Type | UnsetType = UNSET
    dtype: Dtype | UnsetType | None = UNSET
    precision: Literal["highest", "high", "default"] | UnsetType = UNSET


class ScannedBlocks(Struct, tag_field="type", tag="ScannedBlocks"):
    """Equal blocks of layers."""

    num_blocks: Size
    layers: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=_MOST)]


class Flow(Struct, forbid_unknown_fields=True):
    """A `rbig_nnx.GaussianizationFlow`."""

    num_features: Size
    context_features: Annotated[int, Meta(ge=0, le=2**62)]
    layers: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=_MOST)]


_OWN = (
    Standardize
    | Whiten
    | TailTransform
    | RadialTransform
    | ClusterTransform
    | HouseholderRotation
    | MixtureCDFMarginal
    | MixtureCDFCoupling
    | ScannedBlocks
)
_NAMES = {layer.__name__ for layer in _OWN.__args__}


def check_config(
    config: Mapping[str, Any], shapes: Sequence[Sequence[int]] | None = None
) -> None:
    """Checks the arguments of a flow's layers; those of other layers are their own matter.

    Args:
      config: as of `rbig_nnx.to_config`.
      shapes: of the arrays of the checkpoint.

    Raises:
      ValueError: with the place of what is wrong.
    """
    flow = msgspec.convert(config, Flow)
    most = max((size for shape in shapes or () for size in shape), default=0)
    for name, size in _sizes([flow, *_layers(flow.layers, _DEPTH)]):
        if size > max(most, _USUAL):
            raise ValueError(
                f"`{name}` is {size}, and no array that is there is so large"
            )


def _layers(entries: Sequence[Mapping[str, Any]], depth: int) -> Iterator[Struct]:
    for entry in entries:
        if not isinstance(entry.get("type"), str):
            raise ValueError("a layer has no `type`")
        if entry["type"] not in _NAMES:
            continue  # registered, or unknown to `from_config`
        layer = msgspec.convert(entry, _OWN)
        yield layer
        if isinstance(layer, ScannedBlocks):
            if depth == 1:
                raise ValueError(f"stacks lie within stacks, more than {_DEPTH} deep")
            yield from _layers(layer.layers, depth - 1)


def _sizes(layers: Sequence[Struct]) -> Iterator[tuple[str, int]]:
    """The whole numbers, which all are widths or counts of something that has arrays."""
    for layer in layers:
        for name in layer.__struct_fields__:
            value = getattr(layer, name)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int):
                    yield name, number
