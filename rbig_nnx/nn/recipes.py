"""The recipes that assemble layers to flows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from rbig_nnx.math import masks
from rbig_nnx.math.params import ANCHOR_WEIGHT, Family, whole
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.flow import GaussianizationFlow
from rbig_nnx.nn.marginal import MixtureCDFMarginal
from rbig_nnx.nn.rotation import HouseholderRotation
from rbig_nnx.nn.stack import FEW_BLOCKS, ScannedBlocks
from rbig_nnx.nn.standardize import Standardize, Whiten
from rbig_nnx.nn.transforms import ClusterTransform, RadialTransform, TailTransform


def coupling_flow(
    num_features: int,
    num_blocks: int,
    *,
    num_components: int = 8,
    hidden: Sequence[int] = (64, 64),
    family: Family = "gaussian",
    num_reflections: int | None = None,
    context_features: int = 0,
    anchor_weight: float = ANCHOR_WEIGHT,
    tails: bool = False,
    marginals: bool = False,
    whiten: bool = False,
    radial: bool = False,
    clusters: int = 0,
    activation: Callable[[Array], Array] = jax.nn.relu,
    dtype: Any = None,
    precision: Any = "highest",
    param_dtype: Any = jnp.float32,
    kernel_metadata: dict[str, Any] | None = None,
    bias_metadata: dict[str, Any] | None = None,
    vectors_metadata: dict[str, Any] | None = None,
    scan_blocks: bool | None = None,
    rngs: nnx.Rngs,
) -> GaussianizationFlow:
    """Blocks of a rotation, a mixture-CDF coupling and the complementary coupling.

    With one feature there is nothing to couple: each block is the marginal map, or a
    coupling on the context alone.

    Args:
      num_features: d ≥ 1.
      num_blocks: blocks, at least one.
      num_components: K, components of each mixture beside the fixed anchor.
      hidden: widths of the conditioners' trunks.
      family: "gaussian" or "logistic" components.
      num_reflections: of each rotation; None for enough for any rotation.
      context_features: width of the context that conditions the density; 0 for none.
      anchor_weight: weight of the fixed N(0, 1) component in every mixture.
      tails: put a `TailTransform` before the blocks, for columns with heavy tails.
      marginals: put a `MixtureCDFMarginal` before the blocks, behind `TailTransform` if that is
        asked for, for columns that are not Gaussian by themselves, as skewed ones.
      whiten: put a `Whiten` layer before the blocks, for columns that are linearly
        dependent: rotations alone cannot undo other mixtures of sources.
      radial: put a `RadialTransform` before the blocks, behind `Whiten` if that is asked for,
        for features that share one random scale, as those of a Student's t do.
      clusters: components of a `ClusterTransform` before the blocks, for rows that come in
        clusters; 0 for none.
      activation: of the trunks, a function of `jax.nn`.
      dtype: compute dtype of the conditioners.
      precision: of the conditioners' products: float32 stays float32 on every platform,
        unless it is "high" or "default".
      param_dtype: storage dtype of all parameters.
      kernel_metadata: metadata of every kernel, for instance its sharding.
      bias_metadata: metadata of every bias.
      vectors_metadata: metadata of every rotation's vectors.
      scan_blocks: keep the blocks' parameters stacked, in one `ScannedBlocks`: the same
        flow, whose compilation does not grow with its depth. None for more than eight
        blocks: the steps of fewer are faster as layers in a list.
      rngs: source of the initial parameters.

    Returns:
      A flow, a `Standardize` layer first, ready for `warm_start`.

    Raises:
      ValueError: for sizes below one.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.coupling_flow(3, 2, num_components=4, hidden=(8,), rngs=nnx.Rngs(0))
      >>> print(flow.log_prob(jnp.zeros((5, 3))).shape)
      (5,)
    """
    num_features = whole("num_features", num_features)
    mixtures = {
        "num_components": num_components,
        "family": family,
        "anchor_weight": anchor_weight,
        "param_dtype": param_dtype,
        "bias_metadata": bias_metadata,
        "rngs": rngs,
    }

    def coupling(mask: masks.Mask) -> MixtureCDFCoupling:
        return MixtureCDFCoupling(
            num_features,
            mask=mask,
            context_features=context_features,
            hidden=hidden,
            activation=activation,
            dtype=dtype,
            precision=precision,
            kernel_metadata=kernel_metadata,
            **mixtures,
        )

    def marginal() -> MixtureCDFMarginal:
        return MixtureCDFMarginal(num_features, **mixtures)

    def block() -> Iterator[nnx.Module]:
        mask = masks.half(num_features)
        if num_features == 1:
            yield coupling(mask) if context_features else marginal()
            # A fixed map between blocks: two couplings in a row would be one block.
            if context_features:
                yield rotation()
            return
        yield rotation()
        yield coupling(mask)
        yield coupling(masks.complement(mask))

    def rotation() -> HouseholderRotation:
        return HouseholderRotation(
            num_features,
            num_reflections=num_reflections,
            param_dtype=param_dtype,
            vectors_metadata=vectors_metadata,
            rngs=rngs,
        )

    first = _next_to_the_data(
        num_features,
        param_dtype,
        tails=tails,
        marginal=marginal if marginals else None,
        whiten=whiten,
        radial=radial,
        clusters=clusters,
    )
    return _flow(
        first,
        block,
        num_blocks,
        scan_blocks=scan_blocks,
        context_features=context_features,
    )


def diagonal_flow(
    num_features: int,
    num_blocks: int,
    *,
    num_components: int = 8,
    family: Family = "gaussian",
    num_reflections: int | None = None,
    anchor_weight: float = ANCHOR_WEIGHT,
    tails: bool = False,
    marginals: bool = False,
    whiten: bool = False,
    radial: bool = False,
    clusters: int = 0,
    param_dtype: Any = jnp.float32,
    bias_metadata: dict[str, Any] | None = None,
    vectors_metadata: dict[str, Any] | None = None,
    scan_blocks: bool | None = None,
    rngs: nnx.Rngs,
) -> GaussianizationFlow:
    """Blocks of a rotation and a marginal map: RBIG as a trainable flow.

    Laparra, Camps-Valls and Malo, Iterative Gaussianization, 2011; Meng et al.,
    Gaussianization flows, 2020. Arguments, result and errors as `coupling_flow`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.diagonal_flow(2, 3, rngs=nnx.Rngs(0))
      >>> print(flow.log_prob(jnp.zeros(2)).shape)
      ()
    """
    num_features = whole("num_features", num_features)

    def marginal() -> MixtureCDFMarginal:
        return MixtureCDFMarginal(
            num_features,
            num_components=num_components,
            family=family,
            anchor_weight=anchor_weight,
            param_dtype=param_dtype,
            bias_metadata=bias_metadata,
        )

    def block() -> Iterator[nnx.Module]:
        if num_features > 1:
            yield HouseholderRotation(
                num_features,
                num_reflections=num_reflections,
                param_dtype=param_dtype,
                vectors_metadata=vectors_metadata,
                rngs=rngs,
            )
        yield marginal()

    first = _next_to_the_data(
        num_features,
        param_dtype,
        tails=tails,
        marginal=marginal if marginals else None,
        whiten=whiten,
        radial=radial,
        clusters=clusters,
    )
    return _flow(first, block, num_blocks, scan_blocks=scan_blocks)


def _next_to_the_data(
    num_features: int,
    param_dtype: Any,
    *,
    tails: bool,
    marginal: Callable[[], MixtureCDFMarginal] | None,
    whiten: bool,
    radial: bool,
    clusters: int,
) -> list[nnx.Module]:
    clusters = whole("clusters", clusters, 0)
    sizes = {"num_features": num_features, "param_dtype": param_dtype}
    layers: list[nnx.Module] = [Standardize(**sizes)]
    if tails:
        layers.append(TailTransform(**sizes))
    if marginal is not None:
        layers.append(marginal())
    if whiten:
        layers.append(Whiten(**sizes))
    if radial:
        layers.append(RadialTransform(**sizes))
    if clusters:
        layers.append(ClusterTransform(num_components=clusters, **sizes))
    return layers


def _flow(
    first: list[nnx.Module],
    block: Callable[[], Iterator[nnx.Module]],
    num_blocks: int,
    *,
    scan_blocks: bool | None,
    context_features: int | None = None,
) -> GaussianizationFlow:
    num_blocks = whole("num_blocks", num_blocks)
    blocks = [list(block()) for _ in range(num_blocks)]
    if scan_blocks is None:
        scan_blocks = num_blocks > FEW_BLOCKS
    if scan_blocks:
        layers = [ScannedBlocks(blocks)]
    else:
        layers = [layer for block in blocks for layer in block]
    return GaussianizationFlow([*first, *layers], context_features=context_features)
