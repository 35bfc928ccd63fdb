import numpy as np
import pytest

from tests import truth
from trainers.moons import Moons


def test_true_density_has_the_known_limit():
    moons = Moons()
    # Entropy 0.47704 in raw units; the training sample's own scale shifts it to 1.3215.
    values = [
        moons.log_prob(moons.sample(8_000, random_state=s)).mean() for s in range(5)
    ]
    truth.check_mean_over_seeds(values, -1.3215, tol=0.01)


def test_true_density_integrates_to_one():
    moons = Moons()
    axis = np.linspace(-3.5, 3.5, 300)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    total = np.exp(moons.log_prob(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


def test_training_sample_is_standardised():
    train = Moons(500).train
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-6)
