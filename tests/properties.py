"""Properties by hypothesis, one way for all: no deadline, nothing kept between runs."""

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.slow import slow

SEEDS = st.integers(0, 2**32 - 1)


def holds(num_examples, **given):
    """Tries what it decorates on so many examples."""

    def tried(property_):
        settings = hypothesis.settings(
            deadline=None, derandomize=True, database=None, max_examples=num_examples
        )
        settings(hypothesis.given(**given)(property_))()

    return tried


def examples(few, many):
    """How many a test tries, by default and where it is slow."""
    return pytest.mark.parametrize("num_examples", [few, slow(many)])
