"""Distrax bijectors, data to latent, thin over `rbig_nnx.math`."""

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
