"""The network that reads the passive features and predicts mixtures."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

# In standard deviations of a Gaussianized feature: where a conditioner fades to its bias. A
# point far outside the data meets the mixtures that were fitted to all rows, not what a
# network extrapolates, and the tails of stacked layers do not compound.
FADE_AT = 4.0
# The same in standard deviations of the context. Further out: a column that is 1 in one of a
# thousand rows and 0 in the others has a 1 that lies at 32, and must be read.
FADE_CONTEXT_AT = 32.0

# One program for each shape: a first model is built in less time than by single operations.
_jitted = functools.partial(jax.jit, static_argnums=(1, 2))
LECUN_NORMAL = _jitted(nnx.initializers.lecun_normal())
# A tenth of the usual standard deviation: stacked maps of untrained mixtures are otherwise
# so steep in places that float32 cannot invert them.
OUTPUT_KERNEL_INIT = _jitted(
    nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
)


def _zeros(key: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    del key
    return jnp.array(np.zeros(shape, dtype))  # from the host: nothing to compile


class MLP(nnx.Module):
    """Dense layers with an activation after each: [..., in] to [..., hidden[-1]].

    Args:
      in_features: width of the input.
      hidden: widths of the layers, at least one.
      activation: a function of `jax.nn`.
      dtype: compute dtype; None promotes.
      param_dtype: storage dtype.
      kernel_init: initialiser of the kernels.
      kernel_metadata: metadata of every kernel, for instance its sharding.
      bias_metadata: metadata of every bias.
      rngs: source of the initial kernels.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: nnx.Initializer = LECUN_NORMAL,
        kernel_metadata: dict[str, Any] | None = None,
        bias_metadata: dict[str, Any] | None = None,
        rngs: nnx.Rngs,
    ):
        widths = (in_features, *hidden)
        self.activation = activation
        self.layers = nnx.List(
            [
                nnx.Linear(
                    a,
                    b,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    kernel_init=kernel_init,
                    bias_init=_zeros,
                    kernel_metadata=kernel_metadata or {},
                    bias_metadata=bias_metadata or {},
                    rngs=rngs,
                )
                for a, b in itertools.pairwise(widths)
            ]
        )

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        """The last layer's activations."""
        features = x.T
        for layer in self.layers:
            features = self.activation(_affine(layer, features))
        return features.T


class Conditioner(nnx.Module):
    """A trunk and an output layer: (passive features, context) to packed parameters.

    The trunk may be any NNX module from [..., in + context] to [..., h]; the output layer
    is always this module's own, so `make_constant` holds for every trunk. With the output
    kernel exactly zero the conditioner emits its bias whatever it reads.

    Args:
      in_features: passive features p.
      out_features: width of the output.
      context_features: width of the context c, read beside the features.
      hidden: widths of the default trunk; ignored if `trunk` is given.
      trunk: any `nnx.Module` from [..., p + c] to [..., h]; None for an `MLP`.
      activation: of the default trunk, a function of `jax.nn`.
      dtype: compute dtype; None promotes. The output is cast back to the input's dtype.
      param_dtype: storage dtype.
      kernel_init: initialiser of the trunk's kernels.
      output_kernel_init: initialiser of the output kernel.
      bias_init: initialiser of the output bias.
      kernel_metadata: metadata of every kernel, for instance its sharding.
      bias_metadata: metadata of every bias.
      rngs: source of the initial kernels.

    Raises:
      ValueError: if it would read nothing.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> conditioner = rn.Conditioner(2, 3, rngs=nnx.Rngs(0))
      >>> conditioner.make_constant(jnp.array([1.0, 2.0, 3.0]))
      >>> print(conditioner(jnp.array([[0.3, -7.0]])))
      [[1. 2. 3.]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        context_features: int = 0,
        hidden: Sequence[int] = (64, 64),
        trunk: nnx.Module | None = None,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: nnx.Initializer = LECUN_NORMAL,
        output_kernel_init: nnx.Initializer = OUTPUT_KERNEL_INIT,
        bias_init: nnx.Initializer = _zeros,
        kernel_metadata: dict[str, Any] | None = None,
        bias_metadata: dict[str, Any] | None = None,
        rngs: nnx.Rngs,
    ):
        total = in_features + context_features
        if total < 1:
            raise ValueError(
                "a conditioner must read at least one passive feature or a context; got"
                f" in_features={in_features}, context_features={context_features}. Use"
                " `MixtureCDFMarginal` for mixtures that depend on nothing."
            )
        options = {
            "dtype": dtype,
            "param_dtype": param_dtype,
            "kernel_metadata": kernel_metadata or {},
            "bias_metadata": bias_metadata or {},
            "rngs": rngs,
        }
        self.hidden = None if trunk is not None else tuple(hidden)
        self.activation = activation
        if trunk is None:
            trunk = MLP(
                total, hidden, activation=activation, kernel_init=kernel_init, **options
            )
        self.trunk = trunk
        probe = jax.ShapeDtypeStruct((1, total), param_dtype)
        width = jax.eval_shape(lambda x: trunk(x), probe).shape[-1]
        self.out = nnx.Linear(
            width,
            out_features,
            kernel_init=output_kernel_init,
            bias_init=bias_init,
            **options,
        )

    def __call__(
        self, x: Float[Array, "*b p"], context: Float[Array, "*c q"] | None = None
    ) -> Float[Array, "*b o"]:
        """The packed parameters, [..., out_features]."""
        inputs = features = x.T
        fade = _fade(features, FADE_AT)
        if context is not None:
            context = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
            context = context.T.astype(x.dtype)
            inputs = jnp.concatenate([inputs, context])
            fade = fade * _fade(context, FADE_CONTEXT_AT)
        return self._output(self.trunk(inputs.T).T, fade, x.dtype).T

    def _output(
        self, hidden: Float[Array, " h *b"], fade: Float[Array, "*b"], dtype: Any
    ) -> Array:
        def affine(hidden, fade):
            return _affine(self.out, hidden * fade, dtype)

        if _compute_dtype(self.out, hidden) != dtype:
            return affine(hidden, fade)
        one_product = functools.partial(
            _one_product, self.out.kernel[...], self.out.bias[...]
        )
        return jax.lax.platform_dependent(hidden, fade, cpu=one_product, default=affine)

    def make_constant(self, bias: Float[Array, " o"]) -> None:
        """Zeroes the output kernel and writes the bias: the output ignores the input.

        Raises:
          ValueError: if the bias does not have the output's shape.
        """
        if bias.shape != self.out.bias.shape:
            raise ValueError(
                f"`bias` must have shape {self.out.bias.shape}; got {bias.shape}."
            )
        kernel = self.out.kernel[...]
        self.out.kernel[...] = _zeros(None, kernel.shape, kernel.dtype)
        self.out.bias[...] = bias.astype(self.out.bias.dtype)


def _fade(x: Float[Array, " p *b"], half_at: float) -> Float[Array, "*b"]:
    """1 within the data to half at `half_at` and 0 beyond: of 4, 0.9999 at 1.3, 0.004 at 8.

    Where the power would overflow it is 1e-32: times what a trunk makes of x, still little.
    """
    ratio = jnp.minimum(jnp.abs(x) / half_at, 1e4)
    return 1 / (1 + jnp.sum(ratio**8, axis=0))


def _compute_dtype(layer: nnx.Linear, x: Array) -> Any:
    return layer.dtype or jnp.result_type(x, layer.kernel[...])


def _affine(
    layer: nnx.Linear, x: Float[Array, " i *b"], dtype: Any = None
) -> Float[Array, " o *b"]:
    """kernelᵀ x in the layer's compute dtype, plus the bias in `dtype`, unrounded.

    Features lead, as in the mixtures that follow and in their cotangents: on CPUs a product
    of mixed layouts has a third of the speed.
    """
    compute = _compute_dtype(layer, x)
    kernel = layer.kernel[...].astype(compute)
    product = jnp.tensordot(kernel.T, x.astype(compute), axes=1)
    product = product.astype(dtype or compute)
    bias = layer.bias[...].astype(product.dtype)
    return product + bias.reshape(-1, *[1] * (x.ndim - 1))


@jax.custom_jvp
def _one_product(
    kernel: Float[Array, "i o"],
    bias: Float[Array, " o"],
    x: Float[Array, " i *b"],
    fade: Float[Array, "*b"],
) -> Float[Array, " o *b"]:
    """kernelᵀ (x · fade) plus the bias, as a row of the kernel.

    So mixtures read what the product wrote; XLA would add a bias again for each of the
    kernels that read its sum. Not where products round to bfloat16: the bias holds the fitted
    mixtures.
    """
    kernel = jnp.concatenate([kernel, bias[None]])
    ones = jnp.ones((1, *x.shape[1:]), x.dtype)
    return jnp.tensordot(kernel.T, jnp.concatenate([x * fade, ones]), axes=1)


@_one_product.defjvp
def _one_product_jvp(primals, tangents):
    """Without the row: products for the gradient with one row more take twice as long."""
    kernel, _, x, fade = primals
    dkernel, dbias, dx, dfade = tangents
    # A product, so that the gradient is one: a sum over a leading axis is slow on CPUs.
    dfade = jnp.tensordot(jnp.ones((len(x), 1), x.dtype), dfade[None], axes=1)
    moved = jnp.tensordot(kernel.T, dx * fade + x * dfade, axes=1)
    moved += jnp.tensordot(dkernel.T, x * fade, axes=1)
    dbias = dbias.reshape(-1, *[1] * (x.ndim - 1))
    return _one_product(*primals), moved + dbias
