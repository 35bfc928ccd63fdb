import decimal
import fractions
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from rbig_nnx.math.arrays import dtype_of, float_array

BIG = [[3_000_000_000, -1], [7, 2**62]]

KINDS = {
    "int64": np.array(BIG),
    "uint64": np.array([[2**64 - 1, 0], [1, 2**63]], np.uint64),
    "list of integers": BIG,
    "tuples": tuple(map(tuple, BIG)),
    "big-endian integers": np.array(BIG, ">i8"),
    "big-endian floats": np.array([[1.5, 2.5]], ">f8"),
    "booleans": np.array([[True, False]]),
    "half": np.array([[1.5, 6e4]], np.float16),
    "long double": np.array([[1.5, 1e30]], np.longdouble),
    "decimals": np.array([[decimal.Decimal("1.5"), decimal.Decimal(3)]]),
    "objects": np.array([[fractions.Fraction(1, 4), True], [np.float32(2), 10**25]]),
    "bfloat16": np.array([[1.5, 3.0]], ml_dtypes.bfloat16),
    "int4": np.array([[1, -3]], ml_dtypes.int4),
    "jax's arrays in a list": [jnp.ones(2), jnp.zeros(2)],
    "no rows": np.zeros((0, 2), np.int64),
    "a number": 3_000_000_000,
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_every_kind_of_number_gives_what_float64_gives(name, x64):
    objects = np.array(KINDS[name], object)
    exact = np.reshape([float(v) for v in objects.flat], objects.shape)
    with jax.enable_x64(x64):
        found = float_array(KINDS[name], "x")
        narrow = name in ("half", "bfloat16", "jax's arrays in a list") or not x64
        assert found.dtype == (jnp.float32 if narrow else jnp.float64)
        np.testing.assert_array_equal(found, exact.astype(found.dtype))


def test_what_is_jax_floats_stays_as_it_is():
    for x in (jnp.ones(2), jnp.ones(2, jnp.bfloat16)):
        assert float_array(x, "x") is x
    jax.jit(lambda x: float_array([x, x], "x"))(1.0)
    assert float_array(jnp.arange(2), "x").dtype == jnp.float32


def test_what_overflows_is_infinite_and_what_is_masked_is_missing():
    masked = np.ma.masked_array([1, 2], [False, True])
    np.testing.assert_array_equal(float_array(masked, "x"), [1.0, np.nan])
    np.testing.assert_array_equal(float_array([1e300, -1e300], "x"), [np.inf, -np.inf])


WORDS = {
    "a word": np.array([[0, "q"], [1, "r"]], object),
    "a word in a list": [[0, "q"]],
    "a number in words": np.array([[0, "2.5"]], object),
    "a hole": np.array([[0, None]], object),
    "a list": np.array([[0, [1]]], object),
    "a complex number": np.array([[0, 1j]], object),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_no_number_is_named_by_its_column(name):
    message = r"`x` must hold numbers; column 1 \(from 0\) holds .*x.astype\(float\)"
    with pytest.raises(ValueError, match=message):
        float_array(WORDS[name], "x")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.array([["1", "2"]]),
            r"`x` must hold numbers; column 0, 1 \(from 0\) holds",
        ),
        (np.array(["2024-01-01"], "M8[D]"), "`x` must hold numbers; column 0"),
        (np.array("a"), "`x` must hold numbers; column 0"),
        (np.array([], "U3"), "`x` must hold numbers; got dtype <U3"),
        (np.ones(2, complex), "`x` must be real; got dtype complex128"),
        (jnp.ones(2, complex), "`x` must be real; got dtype complex64"),
        (jax.random.key(0), "`x` must be real; got dtype key"),
        ([[1, 2], [3]], "rows of different lengths"),
    ],
)
def test_what_is_nowhere_a_number_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        float_array(x, "x")


def around(offset, n=500):
    return np.random.default_rng(0).normal([0, offset], size=(n, 2))


def test_a_column_that_rounding_destroys_is_named():
    spreads = np.ones(2)
    for x in (around(1e7), around(1e7).tolist(), around(1e7).astype(np.longdouble)):
        with pytest.warns(
            UserWarning, match=r"`x` is rounded.* in column 1 \(from 0\)"
        ):
            float_array(x, "x", spreads=lambda: spreads)
    whole = np.rint(around(0) * 9 + 1.7e9).astype(np.int64)
    with pytest.warns(UserWarning, match="in column 0, 1 "):
        float_array(whole, "x", spreads=lambda: spreads)


@pytest.mark.parametrize(
    ("x", "spreads"),
    [
        (around(1e3), 1.0),
        (around(1e7), 1e4),  # the model has wider columns
        (around(1e7).round(), 1e-3),  # float32 has these numbers
        (around(1e7).astype(np.float32), 1e-3),  # nothing to lose any more
        (around(1e7, n=1), 1e-3),  # nothing known of the spread
        (np.full((5, 2), 0.5), 1e-3),
        (np.array([[np.nan, 1e7], [np.inf, 1e300]]), 1e-3),
    ],
)
def test_nothing_is_said_of_rounding_that_is_small(x, spreads):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        float_array(x, "x", spreads=lambda: spreads)


@pytest.mark.x64
def test_nothing_is_rounded_with_64_bit_types():
    x = around(1e7)
    np.testing.assert_array_equal(float_array(x, "x", spreads=lambda: 0.0), x)


def test_the_dtype_of_a_tree():
    tree = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.arange(2), "c": "text"}
    assert dtype_of(tree) == jnp.float32
    with jax.enable_x64(True):
        assert dtype_of([tree, jnp.ones(2, jnp.float64)]) == jnp.float64
