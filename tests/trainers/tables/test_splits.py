import numpy as np
import pytest

from trainers.tables import InputError, split_rows


def test_split_covers_every_row_once():
    parts = split_rows(1001, seed=3, fractions=(0.8, 0.1, 0.1))
    assert [len(part) for part in parts] == [801, 100, 100]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1001))
    again = split_rows(1001, seed=3, fractions=(0.8, 0.1, 0.1))
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part, same)
    assert not np.array_equal(
        parts[0], split_rows(1001, seed=4, fractions=(0.8, 0.1, 0.1))[0]
    )


def test_split_errors():
    with pytest.raises(InputError, match="must be positive and add to 1"):
        split_rows(10, seed=0, fractions=(0.8, 0.1))
    with pytest.raises(InputError, match=r"got 1 rows in parts of \[0, 1\]"):
        split_rows(1, seed=0, fractions=(0.9, 0.1))
