"""One checksum of an array, wherever it lies and however it is spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainers.checkpoints.meta import checksums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "complex64"])
def test_the_checksum_depends_on_values_and_order_only(dtype, key, monkeypatch):
    x = (4 * jax.random.normal(key, (8, 6))).astype(dtype)
    whole = checksums.checksum(np.asarray(x))
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    spread = jax.device_put(
        x, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("a", "b"))
    )
    assert checksums.checksum(spread) == whole
    on_devices = jax.jit(lambda a: checksums._mixed(checksums._words_on_device(a), jnp))
    assert int(on_devices(spread)) == whole
    changed = np.asarray(x).copy()
    changed[0, 0], changed[1, 1] = changed[1, 1], changed[0, 0]
    assert checksums.checksum(changed) != whole or changed[0, 0] == changed[1, 1]


def test_the_checksum_sees_every_single_bit():
    x = np.arange(4, dtype=np.float32)
    seen = {checksums.checksum(x)}
    for bit in range(128):
        flipped = bytearray(x.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        seen.add(checksums.checksum(np.frombuffer(bytes(flipped), np.float32)))
    assert len(seen) == 129
    signs = x.copy()
    signs[1:3] *= -1  # the highest bits of two words
    assert checksums.checksum(signs) not in seen


@pytest.mark.x64
def test_double_precision_has_one_checksum_everywhere():
    x = jnp.linspace(0.0, 1.0, 7)
    assert x.dtype == jnp.float64
    on_device = checksums._mixed(checksums._words_on_device(x), jnp)
    assert int(on_device) == checksums.checksum(x)
