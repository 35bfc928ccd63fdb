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
    from benchmarks import naive as peer

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
    from benchmarks import naive as peer

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


class _SplineCoupling(nnx.Module):
    """A conditioner for Distrax's own spline coupling."""

    def __init__(self, num_features, *, rngs):
        self.mlp = nnx.Sequential(
            nnx.Linear(num_features, WIDTH, rngs=rngs),
            nnx.relu,
            nnx.Linear(WIDTH, WIDTH, rngs=rngs),
            nnx.relu,
            nnx.Linear(WIDTH, num_features * (3 * NUM_BINS + 1), rngs=rngs),
        )

    def bijector(self, mask):
        def spline(params):
            return distrax.RationalQuadraticSpline(
                params, range_min=-5.0, range_max=5.0
            )

        def conditioner(x):
            return self.mlp(x).reshape(*x.shape, 3 * NUM_BINS + 1)

        return distrax.MaskedCoupling(mask, conditioner, spline)


class _SplineFlow(nnx.Module):
    def __init__(self, num_features, num_layers, *, rngs):
        self.layers = nnx.List(
            [_SplineCoupling(num_features, rngs=rngs) for _ in range(num_layers)]
        )
        self.num_features = num_features

    def distribution(self):
        features = jnp.arange(self.num_features)
        layers = [
            layer.bijector(features % 2 == i % 2) for i, layer in enumerate(self.layers)
        ]
        base = distrax.MultivariateNormalDiag(jnp.zeros(self.num_features))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))


def distrax_spline(num_features: int, num_blocks: int) -> Entrant:
    """Distrax's masked spline coupling with NNX conditioners, two layers a block."""
    flow = _SplineFlow(num_features, 2 * num_blocks, rngs=nnx.Rngs(0))
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
