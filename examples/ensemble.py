"""An ensemble of flows, and what its spread says about the error.

`nnx.vmap` makes the members as one module whose arrays have a leading axis. `warm_start`
fits each to a bootstrap sample of its own, and `fit` trains all in one call, with rows that
count 0, 1, 2, … times for each. The data are few rows of two moons, whose density
is known: so the spread of log p over the members stands beside the error of their mean.

Run it: python examples/ensemble.py (35 seconds of one core)
Reaches, in nats on 5,000 held-out rows (one seed): ensemble -1.603, a member -1.711, the
true density -1.337. The spread finds places without data (rank correlation 0.58 with the error
all over the square), not the larger errors among rows of the data (0.05).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import stats

import rbig_nnx as rn
from trainers import TrainConfig, fit
from trainers.moons import Moons


def build(rngs):
    """One member."""
    return rn.coupling_flow(2, 2, hidden=(32,), num_components=4, rngs=rngs)


class Ensemble(nnx.Module):
    """Flows of one structure, their arrays stacked, [members, ...]."""

    def __init__(self, members):
        self.members = members

    def log_probs(self, x):
        """log p under each member, [members, n]."""
        return jax.vmap(lambda flow: flow.log_prob(x))(self.members)

    def log_prob(self, x):
        """Of the mixture of all members, [n]."""
        values = self.log_probs(x)
        return jax.nn.logsumexp(values, axis=0) - np.log(len(values))


def loss_fn(model, batch, key):
    """Each member's loss, by its own counts of the rows."""
    del key
    x, counts = batch
    return -jnp.mean(counts * model.log_probs(x).T, axis=1)


def main(steps=300, num_members=5, num_rows=300):
    """Prints the table; returns its numbers by place, nats."""
    moons, rng = Moons(), np.random.default_rng(0)
    train, valid = (moons.sample(num_rows, random_state=i) for i in (1, 2))
    counts = rng.poisson(1.0, size=(num_rows, num_members)).astype(np.float32)
    members = nnx.vmap(build)(nnx.Rngs(0).split(num_members))
    members, _ = rn.warm_start(members, train, key=jax.random.key(0))
    result = fit(
        Ensemble(members),
        (train, counts),
        (valid, np.ones_like(counts)),
        config=TrainConfig(num_steps=steps, eval_every=25),
        loss_fn=loss_fn,
    )
    places = {
        "held-out rows": moons.sample(5_000, random_state=3),
        "points all over": rng.uniform(-2.5, 2.5, size=(5_000, 2)),
    }
    print(f"{num_rows} rows, {num_members} members; log p in nats, means")
    names = ("a member", "ensemble", "truth", "spread", "error", "rank corr.")
    print(" " * 16 + "".join(f"{name:>11}" for name in names))
    found = {}
    for name, x in places.items():
        truth = moons.log_prob(x)
        each = np.asarray(result.model.log_probs(x))
        together = np.asarray(result.model.log_prob(x))
        spread, error = each.std(0, ddof=1), np.abs(together - truth)
        found[name] = [v.mean() for v in (each, together, truth, spread, error)]
        found[name].append(stats.spearmanr(spread, error).statistic)
        cells = "".join(f"{value:>11.3f}" for value in found[name])
        print(f"{name:<16}{cells}")
    member, ensemble, limit = found["held-out rows"][:3]
    assert member < ensemble < limit
    return found


if __name__ == "__main__":
    main()
