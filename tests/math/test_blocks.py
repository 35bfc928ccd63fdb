import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.math import blocks
from rbig_nnx.math.blocks import in_blocks

ROWS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def function(shared, x, context):
    total = jnp.sum(x, axis=-1) if context is None else jnp.sum(x + context, axis=-1)
    return shared * x, total


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 5)


@pytest.mark.parametrize("n", [3, 5, 13, 64])
@pytest.mark.parametrize("context", [None, 2 * ROWS], ids=["bare", "context"])
@pytest.mark.usefixtures("small_blocks")
def test_every_row_once(n, context):
    x, c = jax.tree.map(lambda a: jnp.asarray(a[:n]), (ROWS, context))
    found = jax.jit(lambda x, c: in_blocks(function, 2.0, x, c))(x, c)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        found,
        function(2.0, x, c),
    )


@pytest.mark.usefixtures("small_blocks")
def test_memory_is_that_of_one_block():
    def wide(shared, x):
        return jnp.sum(jnp.sin(shared * x @ jnp.ones((3, 1_000))), axis=-1)

    def used(n):
        program = jax.jit(lambda x: in_blocks(wide, 2.0, x))
        compiled = program.lower(jnp.ones((n, 3))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert used(5_000) < used(50) + 100_000  # all at once it would take 20 MB
