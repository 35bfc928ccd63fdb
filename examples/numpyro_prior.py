"""NumPyro: a flow as prior, and NUTS in the flow's latent space (NeuTra).

A flow learns a density from draws, here two moons. As a prior in a NumPyro model it meets one
noisy measurement; the posterior is known by quadrature over the true density. NUTS moves badly
between the moons, and well in the latent space, where the same flow makes the prior N(0, I)
(Hoffman et al., NeuTra-lizing bad geometry, 2019).

Needs the extra `numpyro`: pip install "rbig-nnx[numpyro]".
Run it: python examples/numpyro_prior.py (75 seconds of one core)
Reaches, of 1,000 draws of a chain, 310 effective ones in the latent space and 50 outside of it.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import nnx
from numpyro.infer import MCMC, NUTS
from numpyro.infer.autoguide import AutoContinuous
from numpyro.infer.reparam import NeuTraReparam

import rbig_nnx as rn
from trainers import TrainConfig, fit
from trainers.moons import Moons

MEASURED, NOISE = np.array([0.0, 0.3]), 0.7


class FlowTransform(dist.transforms.Transform):
    """The map of a flow from N(0, I) to data: its inverse, in this package's words."""

    domain = codomain = dist.constraints.real_vector

    def __init__(self, flow):
        self.bijector = flow.bijector()

    def __call__(self, z):
        """Latent to data."""
        return self.bijector.inverse(z)

    def _inverse(self, x):
        return self.bijector.forward(x)

    def log_abs_det_jacobian(self, z, x, intermediates=None):  # noqa: ARG002
        """Of latent to data, nats; nothing is solved for again."""
        return -self.bijector.forward_log_det_jacobian(x)

    def tree_flatten(self):
        """The flow's parameters are what JAX sees."""
        return (self.bijector,), (("bijector",), {})


def flow_distribution(flow):
    """A flow as a NumPyro distribution."""
    latent = dist.Normal().expand([flow.num_features]).to_event(1)
    return dist.TransformedDistribution(latent, FlowTransform(flow))


class FlowGuide(AutoContinuous):
    """Any flow as the transport of `NeuTraReparam`."""

    def __init__(self, model, flow):
        self.flow = flow
        super().__init__(model)

    def get_transform(self, params):  # noqa: ARG002
        """The flow has its parameters already."""
        return FlowTransform(self.flow)

    def get_base_dist(self):
        """N(0, I)."""
        return flow_distribution(self.flow).base_dist

    def _get_posterior(self):
        return flow_distribution(self.flow)


def model(prior):
    """Where the measured point is."""
    x = numpyro.sample("x", prior)
    numpyro.sample("measured", dist.Normal(x, NOISE).to_event(1), obs=MEASURED)


def nuts(model, *args, num_draws, key):
    """Draws of one chain, by site."""
    sizes = {"num_warmup": num_draws, "num_samples": num_draws}
    mcmc = MCMC(NUTS(model), **sizes, progress_bar=False)
    mcmc.run(key, *args)
    return mcmc.get_samples()


def exact(moons, limit=3.0):
    """Mean and standard deviation of each coordinate, by quadrature."""
    line = np.linspace(-limit, limit, 301)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    log_p = moons.log_prob(points) - ((points - MEASURED) ** 2).sum(1) / (2 * NOISE**2)
    weights = np.exp(log_p - log_p.max())
    mean = np.average(points, axis=0, weights=weights)
    return mean, np.sqrt(np.average((points - mean) ** 2, axis=0, weights=weights))


def main(steps=500, num_draws=1_000):
    """Prints posteriors; returns draws [num_draws, 2] by sampler, and the exact moments."""
    moons = Moons()
    flow = rn.coupling_flow(2, 2, hidden=(32,), rngs=nnx.Rngs(0))
    warm, _ = rn.warm_start(flow, moons.train, key=jax.random.key(0))
    config = TrainConfig(num_steps=steps)
    flow = fit(warm, moons.train, config=config, progress=False).model
    prior, key = flow_distribution(flow), jax.random.key(1)

    guide = FlowGuide(model, flow)
    with numpyro.handlers.seed(rng_seed=0):
        guide(prior)
    neutra = NeuTraReparam(guide, params={})
    latent = nuts(neutra.reparam(model), prior, num_draws=num_draws, key=key)
    draws = {
        "NUTS on x": nuts(model, prior, num_draws=num_draws, key=key),
        "NUTS in the latent space": neutra.transform_sample(
            latent["auto_shared_latent"]
        ),
    }
    draws = {name: np.asarray(sites["x"]) for name, sites in draws.items()}

    mean, std = exact(moons)
    print(f"posterior from {num_draws} draws   mean           sd             effective")
    print(f"{'true density, quadrature':<28}{mean.round(2)!s:<15}{std.round(2)!s:<15}")
    for name, x in draws.items():
        effective = numpyro.diagnostics.effective_sample_size(x[None]).round()
        moments = f"{x.mean(0).round(2)!s:<15}{x.std(0).round(2)!s:<15}"
        print(f"{name:<28}{moments}{effective}")
    if num_draws >= 1_000:
        assert np.abs(draws["NUTS in the latent space"].mean(0) - mean).max() < 0.1
    return draws, (mean, std)


if __name__ == "__main__":
    main()
