"""A scientist's table: fit a density to columns of numbers, score rows, draw new ones.

The breast-cancer measurements of scikit-learn, four of the thirty columns. Nothing is assumed
about them; the density is judged on rows that took no part in the fit, beside a Gaussian.

Run it: python examples/table_of_numbers.py (a minute of one core)
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.mixture import GaussianMixture

from trainers import FlowDensity

COLUMNS = ("mean radius", "mean texture", "mean smoothness", "mean area")


def main(steps=300):
    """Fits; returns the mean held-out log p of the flow and of a Gaussian, in nats."""
    table = load_breast_cancer()
    x = table.data[:, [list(table.feature_names).index(c) for c in COLUMNS]]
    order = np.random.default_rng(0).permutation(len(x))
    train, test = x[order[:450]], x[order[450:]]

    # The columns are rounded. `jitter` takes them for continuous, as the Gaussian does;
    # without it log p is of the mass of a row, in steps of the rounding.
    density = FlowDensity(num_steps=steps, jitter=0.03, random_state=0).fit(train)
    print(
        *(f"{c.name}: {c.kind_name}, {c.why}" for c in density.schema_.columns),
        sep="\n",
    )
    flow, gaussian = density.score(test), GaussianMixture(1).fit(train).score(test)
    print(f"held-out log p a row: flow {flow:.3f}, Gaussian {gaussian:.3f} nats")

    unusual = np.argsort(density.score_samples(test))[:3]
    print("least likely rows:\n", np.round(test[unusual], 3))
    print("new rows:\n", np.round(density.sample(3, random_state=1), 3))
    assert flow > gaussian
    return flow, gaussian


if __name__ == "__main__":
    main()
