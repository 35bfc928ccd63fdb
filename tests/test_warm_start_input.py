"""What people hand to the warm start: numbers of any kind, and too little of them."""

import jax
import numpy as np
import pytest
from flax import nnx

import rbig_nnx as rn

KEY = jax.random.key(1)


def normal(n=300, d=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def flow_of(context_features=0, d=2, **options):
    options = {"num_components": 3, "hidden": (4,), **options}
    return rn.coupling_flow(
        d, 1, context_features=context_features, rngs=nnx.Rngs(0), **options
    )


def warm(x, key=KEY, *, flow=None, **options):
    context = options.get("context")
    flow = flow or flow_of(0 if context is None else np.shape(context)[1])
    return rn.warm_start(flow, x, key=key, **options)[0]


def leaves(model):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))


def assert_same(one, two):
    for a, b in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_integers_beyond_32_bits_are_taken_by_value():
    big = np.rint(3e9 + 1e9 * normal()).astype(np.int64)
    assert_same(warm(big), warm(big.astype(np.float64)))
    conditional = warm(normal(), context=big)
    assert_same(conditional, warm(normal(), context=big.astype(float).tolist()))
    np.testing.assert_allclose(
        conditional.standardize_context.mean[...], big.mean(0), rtol=1e-5
    )


def test_every_order_of_bytes_and_lists_of_weights_give_the_same_bits():
    x, weights = normal(), np.arange(300) % 3
    right = warm(x, weights=weights.astype(np.float32))
    assert_same(right, warm(x.astype(">f8"), weights=weights.tolist()))
    assert_same(right, warm(x.astype(object), weights=weights.astype(np.int64)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["x", "context"])
def test_a_column_that_float32_cannot_tell_apart_is_refused(name, dtype):
    far = (normal() + np.array([0, 1e7])).astype(dtype)
    far[0] = -9_999  # one row does not hide it
    message = rf"`{name}` must spread over 800 steps of float32.*columns \[1\] do not"
    given = {"x": (far, None), "context": (normal(), far)}[name]
    with pytest.raises(ValueError, match=f"{message}.*Centre and scale in float64"):
        warm(given[0], context=given[1])


@pytest.mark.parametrize(
    "column",
    [
        normal()[:, 0] + 1e4,
        normal()[:, 0] * 1e-30,
        1e9 * (1 + normal()[:, 0]),
        np.where(np.arange(300) % 20 == 0, normal()[:, 0] + 7, 7.0),
        np.arange(300) == 0,
    ],
    ids=["far", "tiny", "large", "spiked", "rare"],
)
def test_a_column_that_float32_holds_is_fitted(column):
    x = np.column_stack([normal()[:, 0], column])
    for seed in range(3):
        found = warm(x, jax.random.key(seed)).log_prob(x.astype(np.float32))
        assert np.isfinite(found).all()


def test_a_column_below_float32_is_refused():
    with pytest.raises(ValueError, match=r"columns \[1\]"):
        warm(normal() * [1, 1e-42])


@pytest.mark.slow
def test_a_value_of_one_row_only_is_fitted_under_every_key():
    x, context = normal(), np.eye(3)[np.arange(300) % 2]
    x[:, 1], context[0] = np.arange(300) == 0, [0, 0, 1]
    flow = flow_of(3)
    for seed in range(8):
        found = warm(x, jax.random.key(seed), flow=flow, context=context)
        # The scale is that of all rows, whichever the value fell to.
        scale = np.exp(found.layers[0].log_scale[...])
        np.testing.assert_allclose(scale, x.std(0), rtol=1e-4)
        scale = np.exp(found.standardize_context.log_scale[...])
        np.testing.assert_allclose(scale, context.std(0), rtol=1e-4)
        log_prob = found.log_prob(x, context)
        assert np.all(log_prob > -1e4), seed


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 5, 20])
def test_few_rows_are_fitted_under_every_key(n):
    x, flow = normal(n), flow_of()
    for seed in range(10):
        assert np.isfinite(warm(x, jax.random.key(seed), flow=flow).log_prob(x)).all()


def test_too_few_rows_are_refused_under_every_key():
    weights = np.r_[np.ones(3), np.zeros(297)]
    for seed in range(3):
        key = jax.random.key(seed)
        with pytest.raises(ValueError, match="got 3 rows and 3 components"):
            warm(normal(3), key)
        with pytest.raises(ValueError, match="got 3 rows of positive weight and 3"):
            warm(normal(), key, weights=weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": [[1.0]] * 300},
            r"`weights` must have one row per row.*\(300, 1\)",
        ),
        ({"weights": ["a"] * 300}, "`weights` must hold numbers; row 0"),
        ({"weights": [0] * 300}, "not all zero"),
        (
            {"context": normal()[:299]},
            r"`context` must have one row per row of `x`, 300",
        ),
        ({"context": normal().astype(str)}, "`context` must hold numbers; column 0, 1"),
        ({"holdout": "a"}, "`holdout` must be a number; got 'a'"),
        ({"holdout": [0.1]}, r"`holdout` must be a number; got \[0.1\]"),
        ({"smoothing": None}, "`smoothing` must be a number; got None"),
        ({"max_rows": 50.5}, "`max_rows` must be a whole number; got 50.5"),
    ],
)
def test_what_belongs_to_the_rows_is_checked(options, message):
    with pytest.raises(ValueError, match=message):
        warm(normal(), **options)


def test_words_are_named_by_their_column():
    with pytest.raises(ValueError, match="`x` must hold numbers; column 1"):
        warm([[row, "q"] for row in range(300)])
