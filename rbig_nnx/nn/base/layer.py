"""What a layer of a flow is, and state that no optimiser touches."""

from typing import Any

import distrax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class Frozen(nnx.Variable):
    """A fixed quantity: standardisers, rotations that do not train.

    Not an `nnx.Param`, so `wrt=nnx.Param` passes it by, and so do weight decay and EMA. A
    rotation kept as a trainable matrix would drift off orthogonal and report log
    densities that are false.

    Example:
      >>> import jax
      >>> from flax import nnx
      >>> import rbig_nnx as rn
      >>> layer = rn.Standardize(2)
      >>> len(jax.tree.leaves(nnx.state(layer, rn.Frozen)))
      2
      >>> jax.tree.leaves(nnx.state(layer, nnx.Param))
      []
    """


def check_width(name: str, x: Any, num_features: int) -> None:
    """Raises ValueError for an array without so many features on its last axis."""
    shape = jnp.shape(x)
    if shape[-1:] != (num_features,):
        raise ValueError(
            f"`{name}` must have {num_features} features on its last axis; got shape"
            f" {shape}."
        )


class Layer(nnx.Module):
    """A module that builds a bijector on vectors, data to latent, when asked.

    Example:
      >>> import jax.numpy as jnp
      >>> import rbig_nnx as rn
      >>> y, log_det = rn.Standardize(2)(jnp.ones((3, 2)))
      >>> print(y.shape, log_det.shape)
      (3, 2) (3,)
    """

    def bijector(self, context: Array | None = None) -> distrax.Bijector:
        """The layer at the current parameters, given the context."""
        raise NotImplementedError

    def __call__(
        self, x: Float[Array, "*b d"], context: Array | None = None
    ) -> tuple[Float[Array, "*b d"], Float[Array, "*b"]]:
        """y = f(x) and log|det J(f)(x)| in nats, data to latent.

        Raises:
          ValueError: for a wrong width.
        """
        if width := getattr(self, "num_features", None):
            check_width("x", x, width)
        return as_bijector(self, context).forward_and_log_det(x)


def as_bijector(layer: Any, context: Array | None) -> distrax.Bijector:
    """The layer as a bijector: its own `bijector(context)`, or itself if it is one.

    Raises:
      TypeError: if it is neither.
    """
    if isinstance(layer, distrax.Bijector):
        return layer
    if callable(getattr(layer, "bijector", None)):
        if hasattr(layer, "_nnx_tabulate_id"):
            # `nnx.tabulate` wraps methods to print what they give, and cannot print this.
            return type(layer).bijector.__wrapped__(layer, context)
        return layer.bijector(context)
    raise TypeError(
        "a layer must be a distrax.Bijector or have a method `bijector(context)` that"
        f" returns one; got {type(layer).__name__}."
    )
