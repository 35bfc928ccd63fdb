"""A VAE whose prior is a flow, warm-started on the codes of a VAE that has learned.

A VAE pays for every difference between its codes and its prior. So one is trained with the
prior N(0, I); then a flow takes that prior's place, fitted to the codes of the training rows
before its first step, and all of it is trained on. The other keeps N(0, I) and gets as many
steps. The digits are counts of 0 to 16 in 64 pixels, modelled as binomial: nats are of a mass.

Run it: python examples/vae_prior.py (two minutes of one core)
Reaches, in nats per held-out digit (three seeds): -99.50 ± 0.72 with the flow and -101.93 ±
0.60 with N(0, I), a difference of 2.43 ± 0.24.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.special import gammaln
from sklearn.datasets import load_digits

import rbig_nnx as rn
from trainers import TrainConfig, fit

PIXELS, LEVELS = 64, 16


class StandardNormal(nnx.Module):
    """The usual prior."""

    def log_prob(self, z):
        """log N(z; 0, I) in nats."""
        return jax.scipy.stats.norm.logpdf(z).sum(-1)


class VAE(nnx.Module):
    """Encoder, decoder and a prior: any module with a `log_prob`."""

    def __init__(self, num_codes, prior, *, rngs: nnx.Rngs):
        self.encoder = nnx.Sequential(
            nnx.Linear(PIXELS, 128, rngs=rngs),
            nnx.relu,
            nnx.Linear(128, 2 * num_codes, rngs=rngs),
        )
        self.decoder = nnx.Sequential(
            nnx.Linear(num_codes, 128, rngs=rngs),
            nnx.relu,
            nnx.Linear(128, PIXELS, rngs=rngs),
        )
        self.prior = prior

    def encode(self, x, key):
        """A code of each row and its log density under the encoder."""
        mean, log_std = jnp.split(self.encoder(x / LEVELS - 0.5), 2, axis=-1)
        noise = jax.random.normal(key, mean.shape)
        log_q = jax.scipy.stats.norm.logpdf(noise) - log_std
        return mean + jnp.exp(log_std) * noise, log_q.sum(-1)

    def bound(self, x, key):
        """A draw of the evidence lower bound of each row, nats."""
        z, log_q = self.encode(x, key)
        logits = self.decoder(z)
        log_x = x * nnx.log_sigmoid(logits) + (LEVELS - x) * nnx.log_sigmoid(-logits)
        ways = gammaln(LEVELS + 1) - gammaln(x + 1) - gammaln(LEVELS - x + 1)
        return (log_x + ways).sum(-1) + self.prior.log_prob(z) - log_q


def loss_fn(model, batch, key):
    """Minus the bound."""
    return -model.bound(batch, key)


def held_out(model, x, key, num_draws=64):
    """Means over rows of the bound and of the tighter one of many draws, nats."""
    keys = jax.random.split(key, num_draws)
    draws = jax.jit(jax.vmap(lambda key: model.bound(x, key)))(keys)
    tight = jax.nn.logsumexp(draws, axis=0) - np.log(num_draws)
    return float(draws.mean()), float(tight.mean())


def run(seed, steps, num_codes):
    """The scores of every model on held-out digits."""
    x, key = load_digits().data, jax.random.key(seed)
    order = np.random.default_rng(seed).permutation(len(x))
    train, valid, test = np.split(x[order], [1_200, 1_400])
    config = TrainConfig(num_steps=steps, jitter=0, patience=0, seed=seed)

    def trained(model):
        return fit(model, train, valid, config=config, loss_fn=loss_fn).model

    rngs = nnx.Rngs(seed)
    first = trained(VAE(num_codes, StandardNormal(), rngs=rngs))
    swapped = nnx.clone(first)
    swapped.prior = rn.coupling_flow(num_codes, 2, hidden=(32,), rngs=rngs)
    codes, _ = first.encode(train, key)
    warm, _ = rn.warm_start(swapped, codes, key=key)
    models = {
        "N(0, I)": first,
        "N(0, I), trained on": trained(first),
        "flow, warm start": warm,
        "flow, trained on": trained(warm),
    }
    return {name: held_out(model, test, key) for name, model in models.items()}


def main(steps=700, num_codes=8, seeds=3):
    """Prints the table; returns held-out bounds in nats by prior, [seeds, 2]."""
    runs = [run(seed, steps, num_codes) for seed in range(seeds)]
    scores = {name: np.array([r[name] for r in runs]) for name in runs[0]}
    gain = scores["flow, trained on"] - scores["N(0, I), trained on"]
    print(f"nats per held-out digit, mean ± standard error of {seeds} seeds")
    print(f"{'prior':<22}{'bound':>16}{'of 64 draws':>18}")
    for name, values in (scores | {"difference": gain}).items():
        mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(seeds)
        cells = (f"{m:.2f} ± {e:.2f}" for m, e in zip(mean, error, strict=True))
        print(f"{name:<22}" + "".join(f"{cell:>17}" for cell in cells))
    if steps >= 700:
        assert gain.mean(0).min() > 0
    return scores


if __name__ == "__main__":
    main()
