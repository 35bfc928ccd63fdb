import numpy as np
import pytest

from trainers.tables import InputError, check_rows
from trainers.tables.checks import printable

X = np.array([[1.5, -2.0], [3.25, 1e-7], [0.1, 12345678.0]], np.float32)


def test_check_rows_passes_good_rows():
    checked = check_rows(X.astype(np.float64))
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, X)
    assert check_rows([1, 2, 3]).shape == (3, 1)
    assert check_rows(np.ones((1, 2)), num_features=2).shape == (1, 2)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X, {"num_features": 3}, "`x` must have the model's 3 columns, got 2"),
        (
            X[None],
            {},
            r"`x` must have rows and columns, \[n, d\], got shape \(1, 3, 2\)",
        ),
        (X[:1], {}, r"at least 2 rows and one column, got shape \(1, 2\)"),
        (X[:0], {"num_features": 2}, "at least 1 rows"),
        (
            np.array([[1, 2], [1, 3]]),
            {"name": "data"},
            "`data` must vary .* columns 0 ",
        ),
        (np.where(X == 1.5, np.nan, X), {}, "in 1 of 3 rows, the first is row 0 "),
        (X.astype(object), {}, "got dtype object"),
    ],
)
def test_check_rows_refuses(x, options, message):
    with pytest.raises(InputError, match=message):
        check_rows(x, **options)


def test_what_is_printed_of_other_peoples_names():
    assert printable("a\nb\x1b[31mü") == "a\\nb\\x1b[31mü"
    assert printable("x" * 300) == "x" * 200 + "…"
