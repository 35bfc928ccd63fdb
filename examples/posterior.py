"""Simulation-based inference: a conditional flow as posterior, held against the exact one.

The simulator draws a mean μ and a scale σ from a prior, and five observations from N(μ, σ²).
A flow over (μ, log σ), conditional on the observations' mean and log standard deviation,
learns the posterior from draws alone. Here it is known: normal-inverse-gamma. Calibration: the
rank of the true parameter among draws from its posterior is uniform (Talts et al., Validating
Bayesian inference algorithms with simulation-based calibration, 2018).

Run it: python examples/posterior.py (45 seconds of one core)
Reaches, in nats on 2,000 held-out pairs (one seed): 0.013 ± 0.004 below the exact posterior,
1.574 before training, when it does not read its context yet. The ranks are uniform as far as
2,000 can tell: p = 0.51 and 0.84.
"""

import jax
import numpy as np
from flax import nnx
from scipy import stats

import rbig_nnx as rn
from trainers import TrainConfig, fit

# σ² ~ InvGamma(SHAPE, SCALE), μ | σ² ~ N(0, σ² / WEIGHT)
SHAPE, SCALE, WEIGHT, NUM_OBSERVED = 3.0, 2.0, 0.5, 5


def simulate(n, seed):
    """Parameters (μ, log σ), [n, 2], and what is observed, [n, 2]."""
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(SCALE / rng.gamma(SHAPE, size=n))
    mu = sigma / np.sqrt(WEIGHT) * rng.normal(size=n)
    seen = mu[:, None] + sigma[:, None] * rng.normal(size=(n, NUM_OBSERVED))
    parameters = np.stack([mu, np.log(sigma)], axis=1)
    return parameters, np.stack([seen.mean(1), np.log(seen.std(1))], axis=1)


def exact(observed):
    """The posterior's parameters: of σ² shape and scale, of μ location and weight."""
    mean, variance = observed[:, 0], np.exp(2 * observed[:, 1])
    weight = WEIGHT + NUM_OBSERVED
    between = WEIGHT * NUM_OBSERVED / weight * mean**2
    scale = SCALE + 0.5 * (NUM_OBSERVED * variance + between)
    return SHAPE + NUM_OBSERVED / 2, scale, NUM_OBSERVED * mean / weight, weight


def exact_log_prob(parameters, observed):
    """log p(μ, log σ | observed) in nats."""
    shape, scale, location, weight = exact(observed)
    mu, log_sigma = parameters.T
    variance = np.exp(2 * log_sigma)
    log_p = stats.invgamma.logpdf(variance, shape, scale=scale) + np.log(2 * variance)
    return log_p + stats.norm.logpdf(mu, location, np.sqrt(variance / weight))


def main(steps=1_000, num_train=10_000):
    """Prints the comparison; returns held-out log p by model, and the ranks' p-values."""
    train, valid, test = simulate(num_train, 0), simulate(1_000, 1), simulate(2_000, 2)
    flow = rn.coupling_flow(2, 2, context_features=2, hidden=(32, 32), rngs=nnx.Rngs(0))
    warm, _ = rn.warm_start(flow, train[0], context=train[1], key=jax.random.key(0))
    result = fit(
        warm,
        train[0],
        valid[0],
        context=train[1],
        context_valid=valid[1],
        config=TrainConfig(num_steps=steps),
    )
    truth = exact_log_prob(*test)
    scores = {"exact posterior": truth.mean()}
    for name, model in {"warm start": warm, "trained": result.model}.items():
        log_p = np.asarray(model.log_prob(*test))
        scores[name] = log_p.mean()
        gap, error = (truth - log_p).mean(), (truth - log_p).std() / np.sqrt(len(truth))
        print(
            f"{name:<11} log p {scores[name]:7.3f}, below the exact by {gap:.3f} ± {error:.3f}"
        )

    # [99, n, 2] draws, 99 of each posterior; the rank of the truth is one of 0, …, 99.
    draws = result.model.sample(jax.random.key(1), 99, test[1])
    ranks = np.sum(np.asarray(draws) < test[0], axis=0)
    p_values = []
    for name, rank in zip(("μ", "log σ"), ranks.T, strict=True):
        counts = np.bincount(rank // 10, minlength=10)
        p_values.append(float(stats.chisquare(counts).pvalue))
        print(f"ranks of {name:<6} in tenths: {counts}, χ² test p = {p_values[-1]:.2f}")
    assert scores["warm start"] < scores["trained"] < scores["exact posterior"] + 0.01
    return scores, p_values


if __name__ == "__main__":
    main()
