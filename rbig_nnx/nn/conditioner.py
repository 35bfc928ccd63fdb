"""The network that reads the passive features and predicts mixtures."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rbig_nnx.math.params import whole
from rbig_nnx.nn.network import (
    LECUN_NORMAL,
    MLP,
    OUTPUT_KERNEL_INIT,
    Activated,
    affine,
    applied,
    compute_dtype,
    has_usual_options,
    is_plain,
    looked_at,
    widths_of,
    zeros,
)

# In standard deviations of a Gaussianized feature: where a conditioner fades to its bias. A
# point far outside the data meets the mixtures that were fitted to all rows, not what a
# network extrapolates, and the tails of stacked layers do not compound.
FADE_AT = 4.0
# The same in standard deviations of the context. Further out: a column that is 1 in one of a
# thousand rows and 0 in the others has a 1 that lies at 32, and must be read.
FADE_CONTEXT_AT = 32.0


class Conditioner(Activated):
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
      precision: of the products, of the trunk's too where it does not say: "highest", "high"
        or "default", which rounds float32 to bfloat16 on TPUs and to TF32 on GPUs.
      param_dtype: storage dtype.
      kernel_init: initialiser of the trunk's kernels.
      output_kernel_init: initialiser of the output kernel.
      bias_init: initialiser of the output bias.
      kernel_metadata: metadata of every kernel, for instance its sharding.
      bias_metadata: metadata of every bias.
      rngs: source of the initial kernels.

    Raises:
      ValueError: if it would read nothing, or for a precision that JAX does not know.

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
        precision: Any = "highest",
        param_dtype: Any = jnp.float32,
        kernel_init: nnx.Initializer = LECUN_NORMAL,
        output_kernel_init: nnx.Initializer = OUTPUT_KERNEL_INIT,
        bias_init: nnx.Initializer = zeros,
        kernel_metadata: dict[str, Any] | None = None,
        bias_metadata: dict[str, Any] | None = None,
        rngs: nnx.Rngs,
    ):
        total = whole("in_features", in_features, 0)
        total += whole("context_features", context_features, 0)
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
        self.hidden = None if trunk is not None else widths_of(hidden)
        self.activation = activation
        self.precision = _precision_name(precision)
        if trunk is None:
            trunk = MLP(
                total,
                self.hidden,
                activation=activation,
                kernel_init=kernel_init,
                **options,
            )
        self.trunk = trunk
        self.out = nnx.Linear(
            _width(trunk, total, param_dtype),
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
        with jax.default_matmul_precision(self.precision):
            return self._output(self.trunk(inputs.T).T, fade, x.dtype).T

    def _output(
        self, hidden: Float[Array, " h *b"], fade: Float[Array, "*b"], dtype: Any
    ) -> Array:
        if not is_plain(self.out):
            return applied(self.out, hidden * fade).astype(dtype)

        def plainly(hidden, fade):
            return affine(self.out, hidden * fade, dtype)

        if compute_dtype(self.out, hidden) != dtype:
            return plainly(hidden, fade)
        one_product = functools.partial(
            _one_product, self.precision, self.out.kernel[...], self.out.bias[...]
        )
        return jax.lax.platform_dependent(
            hidden, fade, cpu=one_product, default=plainly
        )

    def output(self, name: str) -> nnx.Variable:
        """The variable "kernel" or "bias" of the output layer, or of what `nnx.LoRA` wraps.

        Raises:
          ValueError: if another layer took its place that has none.
        """
        wrapped = getattr(self.out, "base_module", None)
        found = getattr(self.out if wrapped is None else wrapped, name, None)
        if isinstance(found, nnx.Variable) and hasattr(found.get_value(), "shape"):
            return found
        raise ValueError(
            f"the output layer must hold a {name} to be read or fitted; got"
            f" {type(self.out).__name__}, which holds none. Warm-start the flow first, then"
            " exchange its layers."
        )

    def linear_layers(self) -> list[nnx.Linear] | None:
        """The default trunk's layers and the output's; None where others took their place."""
        if type(self) is not Conditioner or type(self.trunk) is not MLP:
            return None
        if self.trunk.activation is not self.activation:
            return None
        layers = [*self.trunk.layers, self.out]
        usual = all(map(has_usual_options, layers))
        alike = usual and all(layer.dtype == self.out.dtype for layer in layers)
        return layers if alike else None

    def make_constant(self, bias: Float[Array, " o"]) -> None:
        """Zeroes the output kernel and writes the bias: the output ignores the input.

        Raises:
          ValueError: if the bias does not have the output's shape, or the output layer is
            one that adds to its bias where its kernel is zero.
        """
        own = self.output("bias")
        if bias.shape != own.shape:
            raise ValueError(f"`bias` must have shape {own.shape}; got {bias.shape}.")
        if not is_plain(self.out):
            self._check_constant(bias)
        _make_constant(self.output("kernel"), own, bias)

    def _check_constant(self, bias: Float[Array, " o"]) -> None:
        copy = nnx.clone(self)
        kernel = copy.output("kernel")
        _make_constant(kernel, copy.output("bias"), bias)
        emitted = looked_at(copy.out, jnp.ones((1, kernel.shape[0]), kernel.dtype))[0]
        if not np.allclose(emitted, bias, rtol=1e-2, atol=1e-2):
            raise ValueError(
                "the output layer must emit its bias where its kernel is zero; got"
                f" {type(self.out).__name__}, which adds to it. Warm-start the flow first,"
                " then exchange its layers."
            )


def _make_constant(kernel: nnx.Variable, bias: nnx.Variable, value: Array) -> None:
    kernel[...] = zeros(None, kernel.shape, kernel.dtype)
    bias[...] = value.astype(bias.dtype)


def _precision_name(precision: Any) -> str:
    """In JAX's word for it, which can be written as JSON."""
    try:
        return jax.lax.Precision(precision).name.lower()
    except ValueError:
        raise ValueError(
            "`precision` must be one of 'highest', 'high' and 'default'; got"
            f" {precision!r}. For bfloat16 throughout use dtype=jnp.bfloat16."
        ) from None


def _width(trunk: nnx.Module, in_features: int, dtype: Any) -> int:
    """Of what the trunk gives. A copy is asked: it may count, draw or sow."""
    graphdef, state = nnx.split(trunk)

    def call(state, x):
        return looked_at(nnx.merge(graphdef, state, copy=True), x)

    x = jax.ShapeDtypeStruct((1, in_features), dtype)
    return jax.eval_shape(call, state, x).shape[-1]


def _fade(x: Float[Array, " p *b"], half_at: float) -> Float[Array, "*b"]:
    """1 within the data to half at `half_at` and 0 beyond: of 4, 0.9999 at 1.3, 0.004 at 8.

    Where the power would overflow it is 1e-32: times what a trunk makes of x, still little.
    """
    ratio = jnp.minimum(jnp.abs(x) / half_at, 1e4)
    return 1 / (1 + jnp.sum(ratio**8, axis=0))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _one_product(
    precision: str,
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
    return jnp.tensordot(
        kernel.T, jnp.concatenate([x * fade, ones]), axes=1, precision=precision
    )


@_one_product.defjvp
def _one_product_jvp(precision, primals, tangents):
    """Without the row: products for the gradient with one row more take twice as long."""
    product = functools.partial(jnp.tensordot, axes=1, precision=precision)
    kernel, _, x, fade = primals
    dkernel, dbias, dx, dfade = tangents
    # A product, so that the gradient is one: a sum over a leading axis is slow on CPUs.
    dfade = product(jnp.ones((len(x), 1), x.dtype), dfade[None])
    moved = product(kernel.T, dx * fade + x * dfade)
    moved += product(dkernel.T, x * fade)
    dbias = dbias.reshape(-1, *[1] * (x.ndim - 1))
    return _one_product(precision, *primals), moved + dbias
