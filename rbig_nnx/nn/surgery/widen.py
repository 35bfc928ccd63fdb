"""More of everything in a flow, at the same density."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rbig_nnx.math.arrays import Numbers, dtype_of
from rbig_nnx.math.params import APART, MixtureParams, exact_identity, parts_of, split
from rbig_nnx.nn.conditioner import LECUN_NORMAL
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.network import is_plain
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.standardize import Standardize
from rbig_nnx.nn.surgery.blocks import (
    Mixtures,
    head_and_blocks,
    stacked_blocks,
    with_layers,
    written_out,
)

# How far apart parts of a component are, in the scales of the bias, where a network may make
# them a hundred times narrower: far enough that training parts them as fast as any.
_APART_UNKNOWN = 3e-5
_LEAST_PRECISION = 1e-6  # of biases: 16 bits do not tell the parts of a component apart


def widen(
    flow: GaussianizationFlow,
    *,
    num_components: int | None = None,
    num_blocks: int | None = None,
    hidden: Sequence[int] | None = None,
    context_features: int | None = None,
    context: Numbers | None = None,
    rngs: nnx.Rngs | None = None,
) -> GaussianizationFlow:
    """The same density by a larger flow: what is added has no effect yet, and trains.

    log p is the same, to 1e-5 nats in float32. As Chen, Goodfellow and Shlens, Net2Net,
    2016, do it, and for mixtures: their heaviest components become several. New blocks come
    last, next to the latent, and are the identity: reflections in pairs, mixtures that are
    N(0, 1), of the Gaussian family whatever the others are, and networks as in the block
    before. New units of a network read at random and are not read; new context features
    come after those that there are, and are not read.

    Args:
      flow: trained or not; unchanged. A subclass, and layers of your own before the first
        block, stay what they are.
      num_components: of each mixture, at least as many as it has; None for as many.
      num_blocks: at least as many as there are; None for as many.
      hidden: widths of the conditioners' networks, as many as they have, none narrower;
        None for the same.
      context_features: width of the context, at least that of now; None for the same.
      context: rows, [n, context_features], by which new features are standardised. None:
        they come with mean 0 and standard deviation 1. Networks fade far outside of it.
      rngs: source of what new units read; only `hidden` needs it.

    Returns:
      A new flow. Its blocks are stacked if they were; its layers lie on one device.

    Raises:
      ValueError: for less than there is, or a flow that cannot have more: shared variables,
        other layers where it would be added, mixtures of 16 bits.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.coupling_flow(2, 1, num_components=2, hidden=(8,), rngs=nnx.Rngs(0))
      >>> wide = rn.widen(flow, num_components=3, num_blocks=2)
      >>> print(len(flow.layers), len(wide.layers), wide.layers[2].num_components)
      4 7 3
    """
    layers, was_stacked = written_out(flow)
    for layer in layers:
        if isinstance(layer, MixtureCDFCoupling) and context_features is not None:
            _read_more(layer, context_features)
        if isinstance(layer, MixtureCDFCoupling) and hidden is not None:
            _think_wider(layer, tuple(hidden), rngs)
        if isinstance(layer, Mixtures) and num_components is not None:
            _split_components(layer, num_components)
    if num_blocks is not None:
        layers += _identity_blocks(layers, num_blocks)
    result = with_layers(flow, stacked_blocks(layers) if was_stacked else layers)
    if context_features is not None:
        _standardize_more(result, layers, context_features, context)
    return result


def _at_least(name: str, wanted: int, present: int) -> int:
    """By how much it grows."""
    if wanted < present:
        raise ValueError(
            f"`{name}` must be at least the flow's {present}, since nothing is taken away;"
            f" got {wanted}."
        )
    return wanted - present


def _read_more(layer: MixtureCDFCoupling, context_features: int) -> None:
    extra = _at_least("context_features", context_features, layer.context_features)
    first = _linear_layers(layer, "context_features")[0]
    _grow(first, extra, 0, jnp.zeros)
    layer.context_features = context_features


def _standardize_more(
    flow: GaussianizationFlow,
    layers: Sequence[Any],
    context_features: int,
    context: Numbers | None,
) -> None:
    present = flow.context_features or 0
    _at_least("context_features", context_features, present)
    if not any(isinstance(layer, MixtureCDFCoupling) for layer in layers):
        raise ValueError(
            "`context_features` needs couplings, whose networks read a context; got layers"
            f" {[type(layer).__name__ for layer in layers]}. Build the flow with couplings."
        )
    flow.context_features = context_features
    if context_features == present:
        return
    after = Standardize(context_features, param_dtype=dtype_of(layers))
    mean, log_scale = _moments(context, context_features)
    before = flow.standardize_context
    if before is not None:
        mean[:present], log_scale[:present] = before.mean[...], before.log_scale[...]
    after.mean[...] = jnp.asarray(mean, after.mean.dtype)
    after.log_scale[...] = jnp.asarray(log_scale, after.log_scale.dtype)
    flow.standardize_context = nnx.data(after)  # where there was None


def _moments(context: Numbers | None, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and log standard deviation of each column, [c]; 0 where nothing is known."""
    if context is None:
        return np.zeros(width), np.zeros(width)
    rows = np.asarray(context, np.float64)
    if rows.ndim != 2 or rows.shape[1] != width or not np.all(np.ptp(rows, axis=0) > 0):
        raise ValueError(
            f"`context` must be rows of {width} features, each of which varies; got shape"
            f" {rows.shape}. Leave constant columns out."
        )
    return rows.mean(axis=0), np.log(rows.std(axis=0))


def _think_wider(
    layer: MixtureCDFCoupling, hidden: tuple[int, ...], rngs: nnx.Rngs | None
) -> None:
    if rngs is None:
        raise ValueError(
            "`rngs` must be given for wider `hidden`; got None. Pass nnx.Rngs(0)."
        )
    linear = _linear_layers(layer, "hidden")
    widths = [each.out_features for each in linear[:-1]]
    if len(hidden) != len(widths):
        raise ValueError(
            f"`hidden` must be {len(widths)} widths, as the flow's {tuple(widths)}; got"
            f" {hidden}."
        )

    def random(shape: tuple[int, int], dtype: Any) -> Array:
        return LECUN_NORMAL(rngs.params(), shape, dtype)

    inputs = 0
    for each, width in zip(linear, (*hidden, linear[-1].out_features), strict=True):
        outputs = _at_least("hidden", width, each.out_features)
        _grow(each, inputs, outputs, random)
        inputs = outputs
    layer.conditioner.hidden = hidden


def _grow(
    layer: nnx.Linear, inputs: int, outputs: int, init: Callable[..., Array]
) -> None:
    """Adds inputs that are not read, and outputs that read all inputs as `init` says."""
    bias: Any = layer.bias  # of the usual options, so it has one
    kernel = jnp.pad(layer.kernel[...], ((0, inputs), (0, 0)))
    if outputs:
        # Drawn in full, so that the scale is that of all inputs.
        columns = init((len(kernel), kernel.shape[1] + outputs), kernel.dtype)
        kernel = jnp.concatenate([kernel, columns[:, kernel.shape[1] :]], axis=1)
    layer.kernel.set_value(kernel)
    bias.set_value(jnp.pad(bias[...], (0, outputs)))
    layer.in_features += inputs
    layer.out_features += outputs


def _linear_layers(layer: MixtureCDFCoupling, name: str) -> list[nnx.Linear]:
    found = layer.conditioner.linear_layers()
    if found is None:
        raise ValueError(
            f"`{name}` can only grow in networks of this package's own; got a"
            f" {type(layer.conditioner).__name__} with a trunk of type"
            f" {type(layer.conditioner.trunk).__name__}, or layers of your own in it. Put them"
            " there afterwards."
        )
    return found


def _split_components(layer: Mixtures, num_components: int) -> None:
    if not _at_least("num_components", num_components, layer.num_components):
        return
    coupling = isinstance(layer, MixtureCDFCoupling)
    bias = layer.conditioner.output("bias") if coupling else layer.bias
    if jnp.finfo(bias.dtype).eps > _LEAST_PRECISION:
        raise ValueError(
            f"`num_components` can only grow in float32 or float64; got biases of"
            f" {bias.dtype}, which cannot hold parts of a component. Convert the flow first:"
            " jax.tree.map(lambda a: a.astype(jnp.float32), flow)."
        )
    if coupling:
        out = layer.conditioner.out
        if not is_plain(out):
            raise ValueError(
                "`num_components` can only grow where the output layer is an nnx.Linear;"
                f" got {type(out).__name__}. Widen first, then exchange it."
            )
        new_bias, kernel = _split_coupling(layer, num_components)
        out.kernel.set_value(kernel)
        out.out_features = len(new_bias)
    else:
        new_bias = _split_marginal(layer, num_components)
    bias.set_value(new_bias)
    layer.num_components = num_components


@functools.partial(jax.jit, static_argnums=1)
def _split_marginal(layer: MixtureCDFMarginal, num_components: int) -> Array:
    """The bias of so many components."""
    params = layer.mixture_params().limited(layer.max_log_scale[...])
    source, place = parts_of(params.logits, num_components)
    place = APART[layer.family] * place
    return split(params, source, place).pack().astype(layer.bias.dtype)


@functools.partial(jax.jit, static_argnums=1)
def _split_coupling(
    layer: MixtureCDFCoupling, num_components: int
) -> tuple[Array, Array]:
    """The output bias and kernel of so many components: parts have the columns of one."""
    bias, kernel = map(layer.conditioner.output, ("bias", "kernel"))
    params = layer.mixture_params()
    source, place = parts_of(params.logits, num_components)
    columns = MixtureParams.unpack(kernel[...], layer.num_components)  # each [h, m, K]
    columns = MixtureParams(
        *(jnp.take_along_axis(c, source[None], axis=-1) for c in columns)
    )
    apart = split(params, source, _APART_UNKNOWN * place)
    return apart.pack().astype(bias.dtype), columns.pack().astype(kernel.dtype)


def _identity_blocks(layers: Sequence[Any], num_blocks: int) -> Iterator[nnx.Module]:
    """The layers of the blocks that are to be added to those that there are."""
    _, blocks = head_and_blocks(layers)
    blocks = [b for b in blocks if any(isinstance(layer, Mixtures) for layer in b)]
    extra = _at_least("num_blocks", num_blocks, len(blocks))
    if extra and not blocks:
        raise ValueError(
            "`num_blocks` needs a block to add others like it; got layers"
            f" {[type(layer).__name__ for layer in layers]}."
        )
    for _ in range(extra):
        for layer in blocks[-1]:
            yield _identity(nnx.clone(layer))


def _identity(layer: Any) -> nnx.Module:
    """The layer, made the identity; not a subclass, which may be another map."""
    if type(layer) is HouseholderRotation:
        layer.vectors[...] = _pairs(*layer.vectors.shape).astype(layer.vectors.dtype)
    elif type(layer) in (MixtureCDFCoupling, MixtureCDFMarginal):
        layer.family = "gaussian"  # no mixture of logistics is the identity
        params = exact_identity(layer.num_components)
        moved = layer.max_log_scale.shape[-1]
        layer.set_mixtures(
            MixtureParams(*(jnp.broadcast_to(p, (moved, len(p))) for p in params))
        )
    else:
        raise ValueError(
            f"`num_blocks` cannot grow: a layer of type {type(layer).__name__} in the last"
            " block is of no kind that can be made the identity. Add the block in code."
        )
    return layer


def _pairs(num_reflections: int, num_features: int) -> Float[np.ndarray, "r d"]:
    """Reflections that undo each other: each of two the same. One that is left is none."""
    axes = np.arange(num_reflections // 2) % num_features
    vectors = np.zeros((num_reflections, num_features), np.float32)
    vectors[: 2 * len(axes)] = np.eye(num_features)[np.repeat(axes, 2)]
    return vectors
