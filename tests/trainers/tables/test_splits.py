import numpy as np
import pytest

from trainers.tables.checks import InputError
from trainers.tables.splits import split_rows


def test_parts_have_their_least_rows_at_the_cost_of_the_first():
    options = {"seed": 0, "fractions": (0.8, 0.1, 0.1)}
    sizes = [len(p) for p in split_rows(9, least=(5, 1, 2), **options)]
    assert sizes == [6, 1, 2]
    assert [len(part) for part in split_rows(3, **options)] == [1, 1, 1]
    with pytest.raises(InputError, match=r"at least 8; got 7 rows in parts of"):
        split_rows(7, least=(5, 1, 2), **options)


def test_the_first_part_has_every_level():
    letters = np.array(["u", "v"] * 20)
    letters[11] = "w"
    numbers = np.zeros(40, int)
    numbers[31] = 1
    for seed in range(10):
        parts = split_rows(
            40, seed=seed, fractions=(0.5, 0.5), levels=(letters, numbers)
        )
        assert {11, 31} <= set(parts[0].tolist())
        assert [len(part) for part in parts] == [20, 20]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(40))


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
