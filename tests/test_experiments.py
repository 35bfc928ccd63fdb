"""The numbers that the project promises, on held-out data; slow ones before a release."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

import rbig_nnx as rn
from trainers import TrainConfig, fit
from trainers.command.demo import CLUSTERED, RANDOM, WARM, Demo, run
from trainers.moons import Moons


def total_probability(flow, half_width=5.0, num=801):
    axis = np.linspace(-half_width, half_width, num)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    return np.exp(np.float64(flow.log_prob(grid))).sum() * (axis[1] - axis[0]) ** 2


def orthogonality_error(flow):
    return max(
        float(jnp.max(jnp.abs(q @ q.T - jnp.eye(flow.num_features))))
        for layer in flow.layers
        if isinstance(layer, rn.HouseholderRotation)
        for q in [layer.bijector().forward(jnp.eye(flow.num_features))]
    )


@pytest.mark.slow
def test_plain_pca_warm_start_of_the_reference_configuration():
    moons = Moons()
    flow = rn.coupling_flow(2, 4, rngs=nnx.Rngs(0))
    warm, _ = rn.warm_start(flow, moons.train, key=jax.random.key(0), holdout=0.0)
    assert warm.log_prob(moons.train).mean() >= -1.93
    assert warm.log_prob(moons.sample(50_000, random_state=1)).mean() >= -1.93


@pytest.mark.slow
def test_density_integrates_to_one_before_and_after_training():
    moons = Moons()
    flow = rn.coupling_flow(2, 4, rngs=nnx.Rngs(0))
    warm, _ = rn.warm_start(flow, moons.train, key=jax.random.key(0))
    config = TrainConfig(num_steps=200, eval_every=200)
    result = fit(warm, moons.train, config=config)
    for model in (warm, result.model):
        assert total_probability(model) == pytest.approx(1, abs=1e-3)
    assert orthogonality_error(result.model) <= 1e-5
    assert min(rn.output_kernel_magnitudes(result.model)) > 0


def log_prob_ratios(flow, radius, num_directions=64):
    """log p over the standard normal's, in many directions at a distance from the mean."""
    d = flow.num_features
    directions = np.random.default_rng(5).normal(size=(num_directions, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = -d / 2 * np.log(2 * np.pi) - radius**2 / 2
    x = (radius * directions).astype(np.float32)
    return np.asarray(flow.log_prob(x)) / expected


GAUSSIANS = [(d, seed) for d in (2, 4) for seed in range(4)]


def started_on_a_gaussian(num_features, num_rows, seed):
    x = np.random.default_rng(seed).normal(size=(num_rows, num_features))
    x = x.astype(np.float32)
    flow = rn.coupling_flow(num_features, 4, rngs=nnx.Rngs(seed))
    return rn.warm_start(flow, x, key=jax.random.key(seed))[0], x


def check_tails(flow):
    for radius, factor in ((6, 2.0), (10, 1.5), (20, 1.5), (50, 1.5)):
        ratios = log_prob_ratios(flow, radius)
        assert ratios.max() <= factor, (radius, ratios)
        assert ratios.min() >= 1 / factor, (radius, ratios)


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [3_000, 12_000])
@pytest.mark.parametrize(("num_features", "seed"), GAUSSIANS)
def test_tails_of_a_start_on_a_gaussian(num_features, seed, num_rows):
    check_tails(started_on_a_gaussian(num_features, num_rows, seed)[0])


# With nothing to stop by, 1,000 steps overfit 3,000 rows: three of these beyond the bounds.
OVERFITTED = pytest.mark.xfail(
    strict=True, reason="ratios of 1.54 and 1.51 at 10, 2.01 at 6; see docs/design.md"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_features", "seed", "num_rows", "num_steps"),
    [
        (2, 1, 3_000, 300),
        *((2, seed, 3_000, 1_000) for seed in (0, 1, 3)),
        pytest.param(2, 2, 3_000, 1_000, marks=OVERFITTED),
        pytest.param(4, 1, 3_000, 1_000, marks=OVERFITTED),
        pytest.param(4, 0, 3_000, 1_000, marks=OVERFITTED),
        *((d, seed, 12_000, 1_000) for d, seed in GAUSSIANS),
    ],
)
def test_tails_of_a_flow_trained_on_a_gaussian(num_features, seed, num_rows, num_steps):
    warm, x = started_on_a_gaussian(num_features, num_rows, seed)
    config = TrainConfig(num_steps=num_steps, eval_every=num_steps, seed=seed)
    check_tails(fit(warm, x, config=config).model)


@pytest.mark.slow
def test_two_moons_over_five_seeds(tmp_path):
    summary = run(Demo(out=tmp_path), Console(quiet=True))
    warm, clustered, random = (summary[s] for s in (WARM, CLUSTERED, RANDOM))
    assert warm["gap"] <= 0.030
    assert warm["kernels_zero_before"]
    assert not warm["kernels_zero_after"]
    assert clustered["init_held_out"] >= warm["init_held_out"] + 0.5
    assert clustered["curve"][0] >= random["curve"][-1] - 0.02  # before any step
    assert summary["warm_ahead_at_every_evaluation"], (warm["curve"], random["curve"])


@pytest.mark.slow
def test_diagonal_flow_of_eight_blocks():
    moons = Moons(5_000, noise=0.05)
    fresh = moons.sample(50_000, random_state=1)
    flow = rn.diagonal_flow(2, 8, rngs=nnx.Rngs(0))
    plain, _ = rn.warm_start(flow, moons.train, key=jax.random.key(0), holdout=0.0)
    assert plain.log_prob(moons.train).mean() >= -1.79
    valid = moons.sample(3_000, random_state=2)
    trained = fit(plain, moons.train, valid, config=TrainConfig()).model
    assert trained.log_prob(fresh).mean() > plain.log_prob(fresh).mean()
