"""The flow: layers from data to latent, and the density that they make.

Direction, everywhere in this package: `forward` maps data to latent, and the distribution
over data is `distrax.Transformed(base, Inverse(bijector))`. Log densities are in nats.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rbig_nnx.bijectors.density import Density
from rbig_nnx.math.arrays import Numbers, dtype_of, float_array
from rbig_nnx.math.params import whole
from rbig_nnx.math.probit import LOG_SQRT_2PI
from rbig_nnx.nn.base.layer import Layer, check_width
from rbig_nnx.nn.base.rounds import in_rounds
from rbig_nnx.nn.coupling import MixtureCDFCoupling
from rbig_nnx.nn.stack import LayerStack, ScannedBlocks
from rbig_nnx.nn.standardize import Bounded, Standardize


class GaussianizationFlow(nnx.Module):
    """A density over vectors: layers that map data to N(0, I), in order.

    log p(x) = log N(f(x); 0, I) + log|det J(f)(x)|, f = f_n ∘ … ∘ f_1.

    Args:
      layers: modules of this package, the user's own modules with a method
        `bijector(context)`, or modules that are themselves `distrax.Bijector`s on vectors.
      num_features: d; None to take it from the first layer that has `num_features`.
      context_features: width c of the context; None to take it from the layers.
      rngs: unused; every module takes it.

    Raises:
      ValueError: if there are no layers, layers disagree on d, or the couplings between
        two other layers together do not move every feature exactly once.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> rngs = nnx.Rngs(0)
      >>> flow = rn.GaussianizationFlow(
      ...     [rn.Standardize(2), rn.HouseholderRotation(2, rngs=rngs),
      ...      rn.MixtureCDFMarginal(2)])
      >>> x = flow.sample(jax.random.key(0), 5)
      >>> print(x.shape, flow.log_prob(x).shape)
      (5, 2) (5,)
    """

    def __init__(
        self,
        layers: Sequence[Any],
        *,
        num_features: int | None = None,
        context_features: int | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs
        if len(layers) == 0:
            raise ValueError("`layers` must hold at least one layer; got none.")
        parts = _written_out(layers)
        widths = [w for la in parts if (w := getattr(la, "num_features", None))]
        if num_features is None and not widths:
            raise ValueError(
                "`num_features` must be given when no layer has an attribute of that name."
            )
        num_features = widths[0] if num_features is None else num_features
        num_features = whole("num_features", num_features)
        if any(w != num_features for w in widths):
            raise ValueError(
                f"`layers` must agree on the number of features, {num_features}; got"
                f" layers of {widths}."
            )
        contexts = {c for la in parts if (c := getattr(la, "context_features", 0))}
        if context_features is None:
            context_features = max(contexts, default=0)
        context_features = whole("context_features", context_features, 0)
        if contexts - {context_features}:
            raise ValueError(
                f"`layers` must agree on the context's width, {context_features}; got"
                f" layers of {sorted(contexts)}."
            )
        check_cover(parts)
        self.num_features = num_features
        self.context_features = context_features
        self.layers = nnx.List(list(layers))
        # Conditioners read the context at the scale of the features.
        self.standardize_context = (
            Standardize(context_features, param_dtype=dtype_of(parts))
            if context_features
            else None
        )

    def bijector(self, context: Numbers | None = None) -> distrax.Bijector:
        """The map data → latent, given the context [..., c]."""
        if context is not None:
            context = float_array(context, "context")
        first, layers = self.layers[0], list(self.layers)
        if isinstance(first, Layer) and not isinstance(first, Standardize):
            layers = [distrax.Block(Bounded(), 1), *layers]
        return LayerStack(layers, context, self.standardize_context)

    def distribution(self, context: Numbers | None = None) -> distrax.Transformed:
        """The density over data as a Distrax distribution.

        A pytree, which goes in and out of `jax.jit`, `vmap` and `scan`. A second call of the
        same shapes is not traced again.

        Args:
          context: [..., c] if the flow is conditional: one density for each, so that the
            distribution's `batch_shape` is [...]; else None.
        """
        context = self._check_context(context)
        batch = () if context is None else context.shape[:-1]
        zeros = jnp.zeros((*batch, self.num_features), dtype_of(self.layers))
        return Density(self.bijector(context), zeros)

    def __call__(
        self, x: Numbers, context: Numbers | None = None
    ) -> Float[Array, "*b"]:
        """log p(x) in nats, as `log_prob`: a flow among modules that are called."""
        return self.log_prob(x, context)

    def forward_and_log_det(
        self, x: Numbers, context: Numbers | None = None
    ) -> tuple[Array, Array]:
        """Computes z = f(x) and log|det J(f)(x)|: data to latent, nats."""
        x, context = self._check("x", x, context)
        return in_rounds(self, lambda f, x: f.forward_and_log_det(x), x, context)

    def inverse_and_log_det(
        self, z: Numbers, context: Numbers | None = None
    ) -> tuple[Array, Array]:
        """Computes x = f^{-1}(z) and log|det J(f^{-1})(z)|: latent to data, nats."""
        z, context = self._check("z", z, context)
        return in_rounds(self, lambda f, z: f.inverse_and_log_det(z), z, context)

    def log_prob(
        self, x: Numbers, context: Numbers | None = None
    ) -> Float[Array, "*b"]:
        """log p(x) in nats; −inf beyond 1e18 standard deviations, where squares overflow.

        NumPy's numbers of any type are taken by value, and become float32 or, with 64-bit
        types on, keep float64; a warning names a column of x that float32 cannot tell
        apart.

        Args:
          x: points, [..., d].
          context: [..., c] if the flow is conditional, else None; what leads broadcasts.

        Returns:
          Log densities, [...].

        Raises:
          ValueError: for a wrong width, what is no real number, a context missing or not
            wanted.
        """
        return in_rounds(self, _log_prob, *self._check("x", x, context))

    def sample(
        self, key: Array, shape: int | tuple[int, ...], context: Numbers | None = None
    ) -> Float[Array, "*s d"]:
        """Samples of the given shape, as many for each context.

        Args:
          key: JAX key.
          shape: an int or a tuple of them; () for one sample for each context.
          context: [..., c] if the flow is conditional, else None.

        Returns:
          Points, [*shape, ..., d].
        """
        return self.sample_and_log_prob(key, shape, context)[0]

    def sample_and_log_prob(
        self, key: Array, shape: int | tuple[int, ...], context: Numbers | None = None
    ) -> tuple[Float[Array, "*s d"], Float[Array, "*s"]]:
        """Samples [*shape, ..., d] and their log densities in nats; see `sample`."""
        shape = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        if any(isinstance(n, int | np.integer) and n < 0 for n in shape):
            raise ValueError(f"`shape` must have sizes of at least 0; got {shape}.")
        context = self._check_context(context)
        batch = () if context is None else context.shape[:-1]
        dtype = dtype_of(self.layers)
        z = jax.random.normal(key, (*shape, *batch, self.num_features), dtype)
        x, log_det = self.inverse_and_log_det(z, context)
        return x, _log_normal(z) - log_det

    def _check(self, name: str, x: Any, context: Any) -> tuple[Array, Array | None]:
        x = float_array(x, name, spreads=lambda: _spreads(self.layers[0]))
        check_width(name, x, self.num_features)
        context = self._check_context(context)
        if context is not None:
            leading = x.shape[:-1], context.shape[:-1]
            if not _broadcast(*leading):
                raise ValueError(
                    f"`context` must have the leading shape of `{name}`, {leading[0]}, or"
                    f" one that broadcasts with it; got {leading[1]}."
                )
        return x, context

    def _check_context(self, context: Any) -> Array | None:
        spreads = functools.partial(_spreads, self.standardize_context)
        return check_context(self, context, spreads)


def _log_prob(bijector: distrax.Bijector, x: Array) -> Array:
    z, log_det = bijector.forward_and_log_det(x)
    return log_det + _log_normal(z)


def _log_normal(z: Array) -> Array:
    return -0.5 * jnp.sum(z * z, axis=-1) - z.shape[-1] * LOG_SQRT_2PI


def _broadcast(*shapes: tuple[int, ...]) -> bool:
    sizes = itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1)
    return all(a == b or 1 in (a, b) for a, b in sizes)


def _spreads(layer: Any) -> Any:
    """What a standardiser takes for the spread of each column; of others nothing is known."""
    log_scale = layer.log_scale[...] if isinstance(layer, Standardize) else 0.0
    return 0.0 if isinstance(log_scale, jax.core.Tracer) else np.exp(log_scale)


def check_context(
    flow: GaussianizationFlow, context: Any, spreads: Callable[[], Any] | None = None
) -> Array | None:
    """The context as a floating array; `spreads` as in `float_array`.

    Raises:
      ValueError: if it is missing, not wanted, or of another width than the flow's.
    """
    wanted = flow.context_features
    if context is None:
        if wanted:
            raise ValueError(
                f"`context` must be given: the flow is conditional on {wanted} features."
            )
        return None
    context = float_array(context, "context", spreads=spreads)
    if not wanted:
        raise ValueError(
            f"`context` must be None: the flow is not conditional; got shape"
            f" {context.shape}. Build it with context_features={context.shape[-1]}."
        )
    check_width("context", context, wanted)
    return context


def check_cover(layers: Sequence[Any]) -> None:
    """Refuses couplings that, between two other layers, do not move each feature once.

    Raises:
      ValueError: naming the layers and the features moved twice or never.
    """
    block: list[tuple[int, MixtureCDFCoupling]] = []
    for i, layer in enumerate([*layers, None]):
        if isinstance(layer, MixtureCDFCoupling):
            block.append((i, layer))
            continue
        if block:
            moved = np.sum([~np.asarray(c.mask) for _, c in block], axis=0)
            if np.any(moved != 1):
                raise ValueError(
                    "the couplings of one block must together move every feature exactly"
                    f" once; layers {[i for i, _ in block]} move features"
                    f" {np.flatnonzero(moved > 1).tolist()} more than once and"
                    f" {np.flatnonzero(moved == 0).tolist()} never. Use complementary"
                    " masks, and put a rotation between blocks."
                )
        block = []


def _written_out(layers: Sequence[Any]) -> list[Any]:
    """The layers, those of scanned blocks as often as they are applied."""
    return [
        part
        for layer in layers
        for part in (
            list(layer.layers) * layer.num_blocks
            if isinstance(layer, ScannedBlocks)
            else [layer]
        )
    ]


def find_flows(model: nnx.Module) -> list[tuple[tuple, GaussianizationFlow]]:
    """The flows in a model with their paths; the model itself if it is one."""
    if isinstance(model, GaussianizationFlow):
        return [((), model)]
    return [
        (path, module)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, GaussianizationFlow)
    ]


def output_kernel_magnitudes(model: nnx.Module) -> tuple[float, ...]:
    """max|W| of each coupling's output kernel, in order: zeros exactly at a warm start.

    Args:
      model: a flow, or any module that contains flows. Of an ensemble, whose variables are
        stacked, each is the largest of all members.

    Example:
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> flow = rn.coupling_flow(2, 3, rngs=nnx.Rngs(0))
      >>> print(len(rn.output_kernel_magnitudes(flow)))
      6
    """
    return tuple(
        float(largest)
        for _, flow in find_flows(model)
        for outer in flow.layers
        for block in zip(*_kernel_magnitudes(outer), strict=True)
        for largest in block
    )


def _kernel_magnitudes(outer: Any) -> list[Array]:
    """Of each coupling in a layer, a number for each of the blocks that it is stacked in."""
    scanned = isinstance(outer, ScannedBlocks)
    found = []
    for layer in outer.layers if scanned else [outer]:
        if isinstance(layer, MixtureCDFCoupling):
            kernel = layer.conditioner.output("kernel")[...]
            blocks = kernel.ndim - 3 if scanned else None  # members lie before
            axes = tuple(i for i in range(kernel.ndim) if i != blocks)
            found.append(jnp.atleast_1d(jnp.max(jnp.abs(kernel), axis=axes)))
    return found
