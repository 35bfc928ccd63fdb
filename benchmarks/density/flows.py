"""The flows that are compared, by name: each a function of rows, architecture and seed.

All have as many couplings, or autoregressive layers, with trunks of the same widths.
"""

import functools
from collections.abc import Callable

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import rbig_nnx as rn
from benchmarks.models.entrants import NUM_BINS
from benchmarks.models.programs import OURS
from trainers.estimators.encoded import EncodedTable
from trainers.estimators.settings import Architecture
from trainers.estimators.starts import start

Build = Callable[[EncodedTable, Architecture, int], rn.GaussianizationFlow]


def _warm(train: EncodedTable, architecture: Architecture, seed: int):
    """As `FlowDensity` starts."""
    return start(train, architecture, seed=seed)[0]


def _random(train: EncodedTable, architecture: Architecture, seed: int):
    """The same couplings with random kernels and rotations."""
    return rn.coupling_flow(
        train.rows.shape[1],
        architecture.num_blocks,
        num_components=architecture.num_components,
        hidden=architecture.hidden,
        rngs=nnx.Rngs(seed),
    )


def _identity(train: EncodedTable, architecture: Architecture, seed: int):
    """Output kernels of zero: couplings begin as the identity, as Glow's do."""
    flow = _random(train, architecture, seed)
    for layer in flow.layers:
        if isinstance(layer, rn.MixtureCDFCoupling):
            layer.conditioner.make_constant(layer.conditioner.out.bias[...])
    return flow


def _flowjax(kind: str, train: EncodedTable, architecture: Architecture, seed: int):
    """A flow of FlowJAX's."""
    import flowjax.bijections as bij
    from flowjax import flows
    from flowjax.distributions import Normal

    d, is_maf = train.rows.shape[1], kind == "MAF"
    make = flows.masked_autoregressive_flow if is_maf else flows.coupling_flow
    spline = bij.RationalQuadraticSpline(knots=NUM_BINS, interval=5)
    distribution = make(
        jax.random.key(seed),
        base_dist=Normal(jnp.zeros(d)),
        transformer=None if kind == "RealNVP" else spline,  # its default is affine
        flow_layers=2 * architecture.num_blocks,
        nn_width=architecture.hidden[0],
        nn_depth=len(architecture.hidden),
    )
    return rn.GaussianizationFlow([FlowJaxLayer(distribution.bijection, d)])


class FlowJaxLayer(nnx.Module):
    """A bijection of FlowJAX's, latent to data, as a layer.

    Args:
      bijection: its matrices become kernels, so that weight decay finds them.
      num_features: d.
    """

    def __init__(self, bijection, num_features: int):
        from benchmarks.models.naive import split

        params, join = split(bijection)
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        self.num_features = num_features
        self.arrays = nnx.List(
            [nnx.Dict({_name(path): nnx.Param(leaf)}) for path, leaf in leaves]
        )
        self.joined = lambda arrays: join(structure.unflatten(arrays))

    def bijector(self, context=None) -> distrax.Bijector:
        """Data to latent."""
        del context
        arrays = [array[...] for (array,) in (d.values() for d in self.arrays)]
        return _Inverse(self.joined(arrays))


def _name(path) -> str:
    return "kernel" if ".weight" in jax.tree_util.keystr(path) else "bias"


class _Inverse(distrax.Bijector):
    """FlowJAX's directions the other way round."""

    def __init__(self, bijection):
        super().__init__(event_ndims_in=1)
        self._bijection = bijection

    def forward_and_log_det(self, x):
        """Computes y = f(x) and log|det J(f)(x)|."""
        f = self._bijection.inverse_and_log_det
        return jnp.vectorize(f, signature="(d)->(d),()")(x)

    def inverse_and_log_det(self, y):
        """Computes x = f^{-1}(y) and log|det J(f^{-1})(y)|."""
        f = self._bijection.transform_and_log_det
        return jnp.vectorize(f, signature="(d)->(d),()")(y)


def _whitened(build: Build, train: EncodedTable, architecture: Architecture, seed: int):
    """Any of them behind the rows' whitening."""
    flow = build(train, architecture, seed)
    whiten = rn.Whiten(flow.num_features)
    whiten.set_covariance(np.cov(train.rows, rowvar=False))
    return rn.GaussianizationFlow([whiten, *flow.layers])


WARM, WHITENED = f"{OURS}, warm start", ", whitened"
STARTS: dict[str, Build] = {
    WARM: _warm,
    f"{OURS}, identity": _identity,
    f"{OURS}, random": _random,
    f"{OURS}{WHITENED}": functools.partial(_whitened, _random),
}
PEERS: dict[str, Build] = {
    name + behind: functools.partial(_whitened, build) if behind else build
    for name in ("RealNVP", "spline", "MAF")
    for build in (functools.partial(_flowjax, name),)
    for behind in ("", WHITENED)
}
FLOWS = STARTS | PEERS
