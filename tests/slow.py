"""Cases that the default run leaves out."""

import pytest


def slow(*values):
    """A case of `pytest.mark.parametrize` that is marked slow."""
    return pytest.param(*values, marks=pytest.mark.slow)
