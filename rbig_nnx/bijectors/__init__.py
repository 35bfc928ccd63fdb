"""Distrax bijectors, data to latent, thin over `rbig_nnx.math`.

Example:
  >>> import jax.numpy as jnp
  >>> from rbig_nnx.bijectors import Householder
  >>> turn = Householder(jnp.array([[1.0, 1.0]]))
  >>> bool(jnp.allclose(turn.forward(jnp.array([2.0, 0.0])), jnp.array([0.0, -2.0]), atol=1e-6))
  True
"""

from rbig_nnx.bijectors.cluster_gaussianization import (
    ClusterGaussianization as ClusterGaussianization,
)
from rbig_nnx.bijectors.coupling import Coupling as Coupling
from rbig_nnx.bijectors.householder import Householder as Householder
from rbig_nnx.bijectors.linear import Linear as Linear
from rbig_nnx.bijectors.mixture_gaussianization import (
    MixtureGaussianization as MixtureGaussianization,
)
from rbig_nnx.bijectors.radial_gaussianization import (
    RadialGaussianization as RadialGaussianization,
)
from rbig_nnx.bijectors.tail_gaussianization import (
    TailGaussianization as TailGaussianization,
)
