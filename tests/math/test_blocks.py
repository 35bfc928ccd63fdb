import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rbig_nnx.math import blocks
from rbig_nnx.math.blocks import in_blocks

ROWS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def function(x, context):
    total = jnp.sum(x, axis=-1) if context is None else jnp.sum(x + context, axis=-1)
    return 2.0 * x, total


@pytest.mark.parametrize("num_blocks", [1, 4, 13])
@pytest.mark.parametrize("n", [3, 5, 13, 64])
@pytest.mark.parametrize("context", [None, 2 * ROWS], ids=["bare", "context"])
def test_every_row_once(n, context, num_blocks):
    x, c = jax.tree.map(lambda a: jnp.asarray(a[:n]), (ROWS, context))
    run = functools.partial(in_blocks, function, num_blocks=num_blocks)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        jax.jit(run)(x, c),
        function(x, c),
    )


def test_rows_that_fill_a_block_have_no_part_in_gradients():
    def log_sum(scale, num_blocks):
        x = jnp.arange(1.0, 6.0)  # a row of zeros would have no logarithm
        return jnp.sum(
            in_blocks(lambda x: jnp.log(scale * x), x, num_blocks=num_blocks)
        )

    assert jax.grad(log_sum)(2.0, 2) == jax.grad(log_sum)(2.0, 1) == 2.5


def test_devices_keep_their_rows():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    axis = jax.sharding.PartitionSpec("data")
    x = jax.device_put(ROWS, jax.sharding.NamedSharding(mesh, axis))
    program = jax.jit(lambda x: in_blocks(function, x, None, num_blocks=4))
    found = program(x)
    jax.tree.map(np.testing.assert_allclose, found, function(jnp.asarray(ROWS), None))
    text = program.lower(x).compile().as_text()
    assert not any(
        message in text for message in ("all-gather", "all-to-all", "permute")
    )


def test_memory_is_that_of_one_block(monkeypatch):
    monkeypatch.setattr(blocks, "_ROWS", 5)

    def wide(x):
        return jnp.sum(jnp.sin(2.0 * x @ jnp.ones((3, 1_000))), axis=-1)

    def used(n):
        program = jax.jit(lambda x: in_blocks(wide, x))
        compiled = program.lower(jnp.ones((n, 3))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Rows and results, once more each; all at once it would take 20 MB.
    assert used(5_000) < used(50) + 2 * 5_000 * (3 + 1) * 4
