import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.bijectors import (
    ClusterGaussianization,
    Coupling,
    Householder,
    Linear,
    MixtureGaussianization,
    RadialGaussianization,
    TailGaussianization,
)
from rbig_nnx.math.clusters import ClusterParams
from rbig_nnx.math.params import MixtureParams
from rbig_nnx.math.tails.columns import TailParams
from rbig_nnx.math.tails.radius import RadialParams
from tests.contracts import check_bijector
from tests.math.test_mixture import random_params
from tests.slow import slow


def coupling(mask, **options):
    moved = mask.count(False)
    bias = random_params(1, (moved,), 4).pack()
    passive = mask.count(True)
    kernel = 0.3 * jax.random.normal(jax.random.key(0), (passive, bias.size))

    def conditioner(x):
        return MixtureParams.unpack(x @ kernel + bias, 4)

    return Coupling(mask, conditioner, lambda p: MixtureGaussianization(p, **options))


def clustered():
    keys = jax.random.split(jax.random.key(3), 4)
    shapes = (4,), (4, 3), (4, 3, 3), (4, 3)
    return ClusterParams(*map(jax.random.normal, keys, shapes))


BIJECTORS = {
    "marginal": lambda: MixtureGaussianization(random_params(0, (3,), 5)),
    "marginal, one component": lambda: MixtureGaussianization(
        random_params(0, (3,), 1)
    ),
    "marginal, no anchor": lambda: MixtureGaussianization(
        random_params(0, (3,), 5), anchor_weight=0.0
    ),
    "logistic": lambda: MixtureGaussianization(
        random_params(0, (3,), 5), family="logistic"
    ),
    "householder": lambda: Householder(jax.random.normal(jax.random.key(0), (3, 3))),
    "linear": lambda: Linear(
        jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]]),
        jnp.array([[0.5, 0.0, -1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]),
        jnp.zeros(()),
    ),
    "householder, one": lambda: Householder(jnp.array([[1.0, 2.0, 3.0]])),
    "coupling": lambda: coupling((True, True, False)),
    "coupling, scattered mask": lambda: coupling((True, False, True)),
    "coupling, moves all": lambda: coupling((False, False, False)),
    "coupling, logistic": lambda: coupling((False, True, False), family="logistic"),
    "tails": lambda: TailGaussianization(
        TailParams(*jnp.float32([[0, 1, -1], [0, 1, -1], [0, 0.2, 2], [0, 0, 0.7]]))
    ),
    "radial": lambda: RadialGaussianization(RadialParams(*jnp.float32([0.4, 0.3]))),
    "clusters": lambda: ClusterGaussianization(clustered()),
    "chain": lambda: distrax.Chain(
        [coupling((True, False, True)), Householder(jnp.eye(3))]
    ),
}


# Others take another way through the same code.
_FIRST = (
    *("marginal", "logistic", "householder", "linear", "coupling", "tails", "radial"),
    *("clusters", "chain"),
)


@pytest.mark.parametrize("name", [n if n in _FIRST else slow(n) for n in BIJECTORS])
def test_contract(name):
    x = jax.random.normal(jax.random.key(1), (6, 3))
    check_bijector(BIJECTORS[name](), x)


def test_coupling_passes_what_the_mask_says():
    x = jax.random.normal(jax.random.key(1), (6, 3))
    y = coupling((True, False, True)).forward(x)
    np.testing.assert_array_equal(y[:, [0, 2]], x[:, [0, 2]])
    assert np.all(y[:, 1] != x[:, 1])


def test_new_parameter_values_do_not_recompile():
    traces = []

    @jax.jit
    def forward(bijector, x):
        traces.append(1)
        return bijector.forward(x)

    x = jnp.zeros((2, 3))
    for seed in range(3):
        forward(MixtureGaussianization(random_params(seed, (3,), 5)), x)
    assert len(traces) == 1
