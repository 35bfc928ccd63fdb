"""The networks that conditioners consist of: this package's own, and any other module."""

import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from rbig_nnx.math.params import whole

# One program for each shape: a first model is built in less time than by single operations.
_jitted = functools.partial(jax.jit, static_argnums=(1, 2))
LECUN_NORMAL = _jitted(nnx.initializers.lecun_normal())
# A tenth of the usual standard deviation: stacked maps of untrained mixtures are otherwise
# so steep in places that float32 cannot invert them.
OUTPUT_KERNEL_INIT = _jitted(
    nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
)

# By the names that files give them: no other attribute of `jax.nn` is fetched for a file.
ACTIVATIONS: dict[str, Callable] = {
    function.__name__: function
    for function in (
        *(jax.nn.celu, jax.nn.elu, jax.nn.gelu, jax.nn.hard_sigmoid, jax.nn.hard_silu),
        *(jax.nn.hard_tanh, jax.nn.identity, jax.nn.leaky_relu, jax.nn.log_sigmoid),
        *(jax.nn.mish, jax.nn.relu, jax.nn.relu6, jax.nn.selu, jax.nn.sigmoid),
        *(jax.nn.silu, jax.nn.soft_sign, jax.nn.softplus, jax.nn.sparse_plus),
        *(jax.nn.squareplus, jax.nn.tanh),
    )
}


def zeros(key: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """An initialiser of biases."""
    del key
    return jnp.array(np.zeros(shape, dtype))  # from the host: nothing to compile


class Activated(nnx.Module):
    """A module with an `activation`, which is pickled by name if it is of `jax.nn`.

    `pickle` looks for functions like `jax.nn.relu` where they are not.
    """

    activation: Callable[[Array], Array]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        name = jax_nn_name(self.activation)
        return state | {"activation": name or self.activation}

    def __setstate__(self, state: dict[str, Any]) -> None:
        found = state["activation"]
        found = ACTIVATIONS[found] if isinstance(found, str) else found
        super().__setstate__(state | {"activation": found})


def jax_nn_name(activation: Callable) -> str | None:
    """The name of an activation of `jax.nn`, else None."""
    name = getattr(activation, "__name__", "")
    return name if ACTIVATIONS.get(name) is activation else None


class MLP(Activated):
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
        widths = (whole("in_features", in_features), *widths_of(hidden))
        self.activation = activation
        self.layers = nnx.List(
            [
                nnx.Linear(
                    a,
                    b,
                    dtype=dtype,
                    param_dtype=param_dtype,
                    kernel_init=kernel_init,
                    bias_init=zeros,
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
            features = self.activation(applied(layer, features))
        return features.T


def widths_of(hidden: Any) -> tuple[int, ...]:
    """Widths of layers as Python has them; raises a ValueError for what is none."""
    if not np.iterable(hidden):
        raise ValueError(f"`hidden` must be widths, as (64, 64); got {hidden!r}.")
    return tuple(whole("hidden", width) for width in hidden)


def looked_at(module: nnx.Module, x: Array) -> Array:
    """What the module, a copy, gives; without the warning that nobody captures its values."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return module(x)


# What `affine` computes is what a layer of these options does, and of no other type.
_PLAIN = {
    name: option.default
    for name, option in inspect.signature(nnx.Linear.__init__).parameters.items()
    if name
    in (
        "use_bias",
        "precision",
        "dot_general",
        "promote_dtype",
        "preferred_element_type",
    )
}


def is_plain(layer: Any) -> bool:
    """Whether the layer's kernel and bias are all that there is to it."""
    return has_usual_options(layer) and isinstance(layer.kernel.get_value(), jax.Array)


def has_usual_options(layer: Any) -> bool:
    """Whether the layer is an `nnx.Linear` as its constructor makes it by default."""
    return type(layer) is nnx.Linear and all(
        getattr(layer, name) is value for name, value in _PLAIN.items()
    )


def applied(layer: Any, x: Float[Array, " i *b"]) -> Float[Array, " o *b"]:
    """The layer applied to features that lead."""
    return affine(layer, x) if is_plain(layer) else layer(x.T).T


def compute_dtype(layer: nnx.Linear, x: Array) -> Any:
    """Of the layer's product."""
    return layer.dtype or jnp.result_type(x, layer.kernel[...])


def affine(
    layer: nnx.Linear, x: Float[Array, " i *b"], dtype: Any = None
) -> Float[Array, " o *b"]:
    """kernelᵀ x in the layer's compute dtype, plus the bias in `dtype`, unrounded.

    Features lead, as in the mixtures that follow and in their cotangents: on CPUs a product
    of mixed layouts has a third of the speed.
    """
    compute = compute_dtype(layer, x)
    kernel = layer.kernel[...].astype(compute)
    product = jnp.tensordot(kernel.T, x.astype(compute), axes=1)
    product = product.astype(dtype or compute)
    bias = layer.bias[...].astype(product.dtype)
    return product + bias.reshape(-1, *[1] * (x.ndim - 1))
