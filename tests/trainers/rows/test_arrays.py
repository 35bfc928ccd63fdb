"""Arrays of every type: by value, or refused by name."""

import decimal

import jax
import numpy as np
import pytest

from trainers.rows import memory
from trainers.rows.arrays import as_floats, as_leaf

pd = pytest.importorskip("pandas")
_RNG = np.random.default_rng(0)
BIG = np.rint(3e9 + 1e9 * _RNG.normal(size=(50, 2)))
SMALL = np.rint(100 * _RNG.random((50, 2)))

FORMS = {
    "int64": (BIG, lambda x: x.astype(np.int64)),
    "uint64": (BIG * 3e9, lambda x: x.astype(np.uint64)),
    "int8": (SMALL, lambda x: x.astype(np.int8)),
    "bool": (np.float64(SMALL > 50), lambda x: x > 0),
    "float16": (SMALL, lambda x: x.astype(np.float16)),
    "longdouble": (BIG, lambda x: x.astype(np.longdouble)),
    "big-endian floats": (BIG, lambda x: x.astype(">f8")),
    "big-endian integers": (BIG, lambda x: x.astype(">i8")),
    "bfloat16": (SMALL // 2, lambda x: x.astype(jax.numpy.bfloat16.dtype)),
    "lists": (BIG, lambda x: x.astype(int).tolist()),
    "Fortran order": (BIG, np.asfortranarray),
    "Decimal": (BIG, lambda x: np.vectorize(decimal.Decimal, otypes=[object])(x)),
    "objects": (BIG, lambda x: x.astype(int).astype(object)),
    "a data frame": (BIG, lambda x: pd.DataFrame(x.astype(int))),
    "nullable integers": (SMALL, lambda x: pd.DataFrame(x).astype("Int64")),
    "a jax.Array": (SMALL, jax.numpy.asarray),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_type_gives_what_float64_gives(form):
    x, make = FORMS[form]
    found = as_floats(make(x), "x", fine=True)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, np.float32(x))


@pytest.mark.x64
def test_with_64_bit_types_float32_stays_and_the_rest_is_float64():
    assert as_floats(np.float32(BIG), "x").dtype == np.float32
    for form in ("int64", "float16", "longdouble", "bool"):
        x, make = FORMS[form]
        found = as_floats(make(x), "x")
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, x)


WORDS = np.array([[float(i), "q"] for i in range(5)], object)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (WORDS, "column 1 of `x` .*'q'"),
        (WORDS.tolist(), "column 1 of `x` .*'q'"),
        ([[0, "1.5"], [1, "2"]], r"column 1 of `x` .*'1.5'.*astype\(float\)"),
        (np.array([["1", "2"]]), r"column 0 of `x` .*astype\(float\)"),
        (pd.DataFrame(WORDS, columns=["a", "b"]), r"`x` must hold.* column 1 \('b'\)"),
        (pd.DataFrame({"d": pd.to_datetime(["2024-01-01"])}), r"column 0 \('d'\)"),
        (
            np.array([["2024-01-01"]], "datetime64[D]"),
            "`x` must hold numbers; got Date",
        ),
        (np.ones((2, 2), complex), r"`x` must hold real numbers; .*x\.real"),
        (np.ma.masked_equal([[1.0, 2.0], [3.0, 4.0]], 3), "1 of 2 rows.*is row 1"),
        ([[1, None], [2, 3]], "1 of 2 rows.*is row 0"),
        ([[1, 2], [3]], "`x` must have rows of one length"),
        (np.array([[1e300, 1.0]]), "finite in float32"),
        (np.ones(3), r"shape \(3,\). Use x\[:, None\]"),
        (np.empty((0, 2), object), "at least one of each"),
    ],
)
def test_what_is_no_table_of_numbers_is_named(x, message):
    with pytest.raises(ValueError, match=message):
        as_floats(x, "x")


def test_labels_stay_integers_where_they_fit():
    rows = {"label": np.arange(5), "byte": np.arange(5, dtype=np.uint8)}
    found = memory.as_rows(rows)
    assert (found["label"].dtype, found["byte"].dtype) == (np.int32, np.uint8)
    message = r"`x_train\['label'\]` must fit int32, .*int64 from 0 to 4000000000"
    with pytest.raises(ValueError, match=message):
        memory.as_rows(rows | {"label": np.arange(5) * 10**9})
    with pytest.raises(ValueError, match=r"`x_train\[1\]` must fit uint32"):
        memory.as_rows((np.ones((1, 2)), np.array([2**63], np.uint64)))


def test_what_is_a_float_in_training_is_one_in_every_set():
    train = memory.as_rows((np.ones((4, 2)), np.arange(4)))
    x, label = memory.as_rows(
        (BIG.astype(np.int64), np.arange(50)), name="monitor['a']", like=train
    )
    np.testing.assert_array_equal(x, np.float32(BIG))
    assert label.dtype == np.int32


def test_other_arrays_keep_their_floats():
    assert as_leaf(np.ones(3, np.float16), "x").dtype == np.float16
    assert as_leaf(np.ones(3, np.longdouble), "x").dtype == np.float32
    assert as_leaf(np.ones(3, ">f4"), "x").dtype == np.dtype("=f4")


def spread(offset, scale=1.0, n=3_000):
    return np.c_[_RNG.normal(size=n), offset + scale * _RNG.normal(size=n)]


@pytest.mark.parametrize(
    "x",
    [
        spread(1e7),
        spread(1.7e9, 1e4),
        spread(1e7).astype(np.float32),
        np.rint(spread(1e12, 1e3)).astype(np.int64),
        np.where(np.arange(3_000) == 7, 0, spread(1e7).T).T,  # one row hides nothing
        np.c_[np.ones(3_000), 1e9 + (np.arange(3_000) % 20 == 0)],  # hardly ever moves
    ],
)
def test_columns_that_float32_holds_too_coarsely_are_named(x):
    message = r"got column 1 \(from 0\), about .* in steps of .* `rbig-nnx fit`"
    with pytest.raises(ValueError, match=message):
        memory.as_rows(x, fine=True)
    with pytest.raises(ValueError, match="of `context` must vary by more"):
        memory.with_context(np.ones((len(x), 1)), x, fine=True)


@pytest.mark.parametrize(
    "x",
    [
        spread(1e4),
        spread(0.0, 1e-12),
        spread(1e30, 1e30),
        np.c_[np.arange(3_000), np.full(3_000, 1e9)],  # constant, as a bias may be
        np.c_[np.arange(3_000), np.arange(3_000) == 5],
        2_000 + np.arange(3_000)[:, None] % 24,  # years
    ],
)
def test_columns_that_float32_holds_pass(x):
    memory.as_rows(x, fine=True)
