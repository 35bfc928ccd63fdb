"""What is compared: each entrant as pure functions of a parameter tree."""

from collections.abc import Callable
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
from flax import nnx

import rbig_nnx as rn

NUM_COMPONENTS, WIDTH, NUM_BINS = 8, 64, 8


class Entrant(NamedTuple):
    """A density with parameters, ready to be compiled."""

    params: Any
    log_prob: Callable[[Any, jax.Array], jax.Array]  # params, x [n, d] -> [n]
    sample: Callable[[Any, jax.Array, int], jax.Array]  # params, key, n -> [n, d]


def ours(num_features: int, num_blocks: int, *, hidden=(WIDTH, WIDTH), **options):
    """This library's coupling flow."""
    flow = rn.coupling_flow(
        num_features,
        num_blocks,
        num_components=NUM_COMPONENTS,
        hidden=hidden,
        rngs=nnx.Rngs(0),
        **options,
    )
    return of_flow(flow)


def of_flow(flow: rn.GaussianizationFlow) -> Entrant:
    """A given flow."""
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)

    def merged(params):
        return nnx.merge(graphdef, params, rest, copy=True)

    return Entrant(
        params,
        lambda params, x: merged(params).log_prob(x),
        lambda params, key, n: merged(params).sample(key, n),
    )


def naive(num_features: int, num_blocks: int) -> Entrant:
    """The same architecture, written naively in FlowJAX."""
    from benchmarks.models import naive as peer

    distribution = peer.flow(
        jax.random.key(0),
        num_features,
        num_blocks,
        num_components=NUM_COMPONENTS,
        width=WIDTH,
    )
    return _of_flowjax(distribution)


def flowjax_spline(num_features: int, num_blocks: int) -> Entrant:
    """FlowJAX's coupling flow with rational-quadratic splines, two layers a block."""
    import flowjax.bijections as bij
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow

    return _of_flowjax(
        coupling_flow(
            jax.random.key(0),
            base_dist=Normal(jnp.zeros(num_features)),
            transformer=bij.RationalQuadraticSpline(knots=NUM_BINS, interval=5),
            flow_layers=2 * num_blocks,
            nn_width=WIDTH,
            nn_depth=2,
        )
    )


def _of_flowjax(distribution) -> Entrant:
    from benchmarks.models import naive as peer

    params, join = peer.split(distribution)
    return Entrant(
        params,
        lambda params, x: join(params).log_prob(x),
        lambda params, key, n: join(params).sample(key, (n,)),
    )


def bijx_spline(num_features: int, num_blocks: int) -> Entrant:
    """bijx's coupling flow with rational-quadratic splines, two layers a block."""
    import bijx

    rngs = nnx.Rngs(0)
    chain = bijx.coupling_flow(
        num_features,
        lambda rngs: bijx.MonotoneRQSpline(NUM_BINS, (), rngs=rngs),
        n_coupling_layers=2 * num_blocks,
        width=WIDTH,
        depth=2,
        rngs=rngs,
    )
    base = bijx.IndependentNormal(event_shape=(num_features,), rngs=rngs)
    flow = bijx.Transformed(base, chain)
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)

    def merged(params):
        return nnx.merge(graphdef, params, rest, copy=True)

    return Entrant(
        params,
        lambda params, x: merged(params).log_density(x),
        lambda params, key, n: merged(params).sample((n,), rng=key)[0],
    )


class Transformer(NamedTuple):
    """What moves one feature: its number of parameters, and the bijector they make."""

    num_params: int
    bijector: Callable[[jax.Array], distrax.Bijector]


spline = Transformer(
    3 * NUM_BINS + 1,
    lambda params: distrax.RationalQuadraticSpline(
        params, range_min=-5.0, range_max=5.0
    ),
)
affine = Transformer(
    2,
    lambda params: distrax.ScalarAffine(
        shift=params[..., 0], log_scale=jnp.tanh(params[..., 1])
    ),
)


class CouplingFlow(nnx.Module):
    """Distrax's masked couplings with NNX conditioners, alternating masks.

    Args:
      num_features: d.
      num_layers: couplings.
      transformer: what moves one feature.
      rngs: source of the initial kernels.
    """

    def __init__(self, num_features, num_layers, transformer, *, rngs):
        self.conditioners = nnx.List(
            [
                nnx.Sequential(
                    nnx.Linear(num_features, WIDTH, rngs=rngs),
                    nnx.relu,
                    nnx.Linear(WIDTH, WIDTH, rngs=rngs),
                    nnx.relu,
                    nnx.Linear(WIDTH, num_features * transformer.num_params, rngs=rngs),
                )
                for _ in range(num_layers)
            ]
        )
        self.num_features, self.transformer = num_features, transformer

    def distribution(self) -> distrax.Distribution:
        """At the current parameters."""
        features = jnp.arange(self.num_features)

        def coupling(i, network):
            def conditioner(x):
                return network(x).reshape(*x.shape, self.transformer.num_params)

            return distrax.MaskedCoupling(
                features % 2 == i % 2, conditioner, self.transformer.bijector
            )

        layers = [coupling(i, network) for i, network in enumerate(self.conditioners)]
        base = distrax.MultivariateNormalDiag(jnp.zeros(self.num_features))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Nats, [...]."""
        return self.distribution().log_prob(x)


def distrax_spline(num_features: int, num_blocks: int) -> Entrant:
    """Distrax's masked spline coupling with NNX conditioners, two layers a block."""
    flow = CouplingFlow(num_features, 2 * num_blocks, spline, rngs=nnx.Rngs(0))
    graphdef, params, rest = nnx.split(flow, nnx.Param, ...)

    def merged(params):
        return nnx.merge(graphdef, params, rest, copy=True).distribution()

    return Entrant(
        params,
        lambda params, x: merged(params).log_prob(x),
        lambda params, key, n: merged(params).sample(seed=key, sample_shape=(n,)),
    )


ENTRANTS: dict[str, Callable[[int, int], Entrant]] = {
    "rbig-nnx": ours,
    "naive (FlowJAX)": naive,
    "FlowJAX spline": flowjax_spline,
    "bijx spline": bijx_spline,
    "Distrax spline": distrax_spline,
}
