"""Layers before the blocks: for heavy tails of features, of the radius, and for clusters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import distrax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rbig_nnx.bijectors import (
    ClusterGaussianization,
    RadialGaussianization,
    TailGaussianization,
)
from rbig_nnx.math.arrays import at_least_float32
from rbig_nnx.math.clusters import ANCHOR_WEIGHT, ClusterParams
from rbig_nnx.math.params import checked_options, limit_scales, whole
from rbig_nnx.math.tails.columns import TailParams
from rbig_nnx.math.tails.radius import RadialParams
from rbig_nnx.nn.base.layer import Frozen, Layer
from rbig_nnx.nn.marginal import no_scale_limit


class TailTransform(Layer):
    """z_j = sign(t_j) √(log(1 + λ t_j²) / λ), t_j = (x_j − location_j) / scale_j.

    λ is the tail index of the feature on t_j's side: tails that fall like |x|^(−1/λ), as
    Student's t with ν = 1/λ degrees of freedom has them, become Gaussian before any other
    layer sees them. Networks train badly behind heavy tails, wherever else the flow makes up
    for them (Hickling and Prangle, Flexible tails for normalizing flows, 2025); the map is
    that of `rbig_nnx.math.tails.columns`. Place it after `Standardize`, before the first
    rotation.

    It is the identity, exactly, until `warm_start` fits it by maximum likelihood, and stays
    so in features where rows that were not fitted gain nothing by it. All four parameters of
    a feature train: location and log scale relative to the fitted ones, which are fixed, so
    that a step moves a feature's body by a share of its width, however narrow it is beside
    the outliers that rule the standardiser. A tail index is the absolute value of what is
    stored, which has a derivative at 0 also.

    Args:
      num_features: d.
      param_dtype: dtype of the parameters, [d] each.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.TailTransform(2)
      >>> print(layer.bijector().forward(jnp.array([1.0, 1e4])))
      [1.e+00 1.e+04]
      >>> layer.right_tail[...] = jnp.array([0.0, 0.5])
      >>> print(layer.bijector().forward(jnp.array([1.0, 1e4])).round(2))
      [1.   5.95]
    """

    def __init__(
        self,
        num_features: int,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        self.num_features = num_features = whole("num_features", num_features)
        zeros = np.zeros(num_features, param_dtype)
        fixed = np.zeros(num_features, at_least_float32(param_dtype))
        self.centre = Frozen(jnp.array(fixed))
        self.log_spread = Frozen(jnp.array(fixed))
        self.location = nnx.Param(jnp.array(zeros))
        self.log_scale = nnx.Param(jnp.array(zeros))
        self.left_tail = nnx.Param(jnp.array(zeros))
        self.right_tail = nnx.Param(jnp.array(zeros))

    def tail_params(self) -> TailParams:
        """Location, log scale and the tail indices, each [d]."""
        spread = jnp.exp(self.log_spread[...])
        return TailParams(
            location=self.centre[...] + spread * self.location[...],
            log_scale=self.log_spread[...] + self.log_scale[...],
            left=_index(self.left_tail[...]),
            right=_index(self.right_tail[...]),
        )

    def set_tails(self, params: TailParams) -> None:
        """Writes tail indices, each [d], and location and log scale as the fixed ones."""
        own = self.centre, self.log_spread, self.left_tail, self.right_tail
        _write(own, params)
        for relative in (self.location, self.log_scale):
            relative[...] = jnp.zeros_like(relative[...])

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The map at the current parameters."""
        del context
        return distrax.Block(TailGaussianization(self.tail_params()), 1)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}


class RadialTransform(Layer):
    """y = t √(log(1 + λ |t|²) / λ) / |t|, t = x / scale.

    Where all features share one random scale, as those of a multivariate Student's t do, maps
    of single features and rotations leave them dependent; the radius |x| of whitened rows
    carries what they share, and here it becomes that of normal rows (Lyu and Simoncelli,
    Nonlinear extraction of independent components of natural images using radial
    Gaussianization, 2009); the map is that of `rbig_nnx.math.tails.radius`. Place it after
    `Whiten`, which then finds the shape of the rows by their likelihood behind this layer.

    It is the identity, exactly, until `warm_start` fits it by maximum likelihood, and stays so
    where rows that were not fitted gain nothing by it. Log scale and tail index train; the
    index is the absolute value of what is stored, which has a derivative at 0 also.

    Args:
      num_features: d.
      param_dtype: dtype of the two parameters.
      rngs: unused; every layer takes it.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> layer = rn.RadialTransform(2)
      >>> print(layer.bijector().forward(jnp.array([3.0, 4e4])))
      [3.e+00 4.e+04]
      >>> layer.tail[...] = jnp.array(0.5)
      >>> print(layer.bijector().forward(jnp.array([3e4, 4e4])).round(1))
      [3.9 5.2]
    """

    def __init__(
        self,
        num_features: int,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        self.num_features = whole("num_features", num_features)
        self.log_scale = nnx.Param(jnp.zeros((), param_dtype))
        self.tail = nnx.Param(jnp.zeros((), param_dtype))

    def radial_params(self) -> RadialParams:
        """Log scale and tail index."""
        return RadialParams(self.log_scale[...], _index(self.tail[...]))

    def set_radial(self, params: RadialParams) -> None:
        """Writes log scale and tail index."""
        _write((self.log_scale, self.tail), params)

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The map at the current parameters."""
        del context
        return RadialGaussianization(self.radial_params())

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {"num_features": self.num_features}


class ClusterTransform(Layer):
    """z_i = Φ⁻¹(F(x_i | x_1 … x_{i−1})), F of a mixture of K Gaussians with full covariances.

    Rows that come in clusters differ from independent ones in all features at once, which no
    map of single features sees, and rotations of few rows do not find. A mixture of Gaussians
    does, and this layer makes it standard normal exactly (Rosenblatt, Remarks on a
    multivariate transformation, 1952): a flow of it alone has the mixture's density. What
    follows starts from there. Place it before the blocks, behind `Whiten` if there is one.

    It is the identity up to rounding until `warm_start` fits it by expectation maximisation,
    with as many components, at most K, as rows that were not fitted prefer, and stays so where
    they gain nothing. All parameters train. The forward map takes all features at once; the
    inverse, which samples, one after the other.

    Args:
      num_features: d.
      num_components: K, beside the fixed anchor.
      anchor_weight: weight of the fixed N(0, I) component.
      param_dtype: dtype of the parameters.
      rngs: unused; every layer takes it.

    Raises:
      ValueError: for `num_components` < 1 or an anchor outside [0, 1).

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> x = jax.random.normal(jax.random.key(0), (500, 2)) * 0.2
      >>> x = x + jnp.where(jnp.arange(500)[:, None] % 2, 1.0, -1.0)
      >>> flow = rn.GaussianizationFlow([rn.Standardize(2), rn.ClusterTransform(2)])
      >>> warm, report = rn.warm_start(flow, x, key=jax.random.key(1))
      >>> print(report.layers[1].action)
      2 clusters of at most 8
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_components: int = 8,
        anchor_weight: float = ANCHOR_WEIGHT,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        options = checked_options(num_components, "gaussian", anchor_weight)
        self.num_components, self.anchor_weight = options
        self.num_features = whole("num_features", num_features)
        k, d = self.num_components, self.num_features
        zeros = jnp.zeros
        self.logits = nnx.Param(zeros(k, param_dtype))
        self.offsets = nnx.Param(zeros((k, d), param_dtype))
        self.slopes = nnx.Param(zeros((k, d, d), param_dtype))
        self.log_scales = nnx.Param(zeros((k, d), param_dtype))
        self.max_log_scale = no_scale_limit(d, param_dtype)

    def cluster_params(self) -> ClusterParams:
        """The mixture: weights [K], offsets and log scales [K, d], slopes [K, d, d]."""
        return ClusterParams(
            self.logits[...],
            self.offsets[...],
            self.slopes[...],
            limit_scales(self.log_scales[...], self.max_log_scale[...]),
        )

    def set_clusters(self, params: ClusterParams) -> None:
        """Writes a mixture, and limits later scales."""
        own = self.logits, self.offsets, self.slopes, self.log_scales
        _write(own, params)
        widest = jnp.maximum(jnp.max(self.log_scales[...], axis=0), 0)
        self.max_log_scale[...] = widest

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The map at the current parameters."""
        del context
        return ClusterGaussianization(
            self.cluster_params(), anchor_weight=self.anchor_weight
        )

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-able."""
        return {
            "num_features": self.num_features,
            "num_components": self.num_components,
            "anchor_weight": self.anchor_weight,
        }


def _write(variables: Sequence[nnx.Variable], params: NamedTuple) -> None:
    """Writes parameters, all or none, where they are kept."""
    kept = [variable.shape for variable in variables]
    given = [jnp.shape(value) for value in params]
    if given != kept:
        raise ValueError(
            f"`params` must have the layer's shapes, {kept}; got {given}. They follow its"
            " number of features, and of components."
        )
    for variable, value in zip(variables, params, strict=True):
        variable[...] = jnp.asarray(value, variable.dtype)


def _index(stored: Array) -> Array:
    # Not `abs`, whose derivative at 0 is 0: an index that starts there would stay.
    return jnp.where(stored < 0, -stored, stored)
