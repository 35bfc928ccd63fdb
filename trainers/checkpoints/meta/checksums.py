"""Checksums of arrays, whatever devices and processes they are spread over."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PART = 1 << 20  # words that a checksum takes at a time: its temporaries are small


def checksum(array: Any) -> int:
    """32 bits of an array's bit pattern, whatever devices and processes it is spread over.

    The sum over all words of a mix of word and position (the finaliser of MurmurHash3):
    a sum has no order, so each device adds up its own part.
    """
    if is_held_together(array) and not array.is_fully_replicated:
        return int(jax.jit(lambda a: _mixed(_words_on_device(a), jnp))(array))
    array = np.ascontiguousarray(on_host(array))
    words = array.reshape(-1).view(f"u{_word_size(array)}")
    parts = (
        int(_mixed(words[i : i + _PART].astype(np.uint32), np, start=i))
        for i in range(0, len(words), _PART)
    )
    return sum(parts) % 2**32


def is_held_together(array) -> bool:
    """Whether other processes hold parts of an array, or will."""
    if isinstance(array, jax.ShapeDtypeStruct):
        sharding = array.sharding
        return sharding is not None and not sharding.is_fully_addressable
    return isinstance(array, jax.Array) and not array.is_fully_addressable


def on_host(array) -> np.ndarray:
    """The whole array, without the copy that JAX would keep with it."""
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    whole = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        whole[shard.index] = shard.data
    return whole


def _word_size(array) -> int:
    return min(array.dtype.itemsize, 4)


def _words_on_device(array: jax.Array) -> jax.Array:
    if array.dtype == bool:
        return array.astype(jnp.uint32)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.stack([array.real, array.imag], axis=-1)
    word = jnp.dtype(f"u{_word_size(array)}")
    return jax.lax.bitcast_convert_type(array, word).astype(jnp.uint32)


def _mixed(words, xp, start=0):
    constant = xp.uint32
    position = xp.arange(words.size, dtype=xp.uint32).reshape(words.shape)
    position = position + constant(start % 2**32) if start else position
    mix = words ^ (position * constant(0x9E3779B9))
    mix = (mix ^ (mix >> constant(16))) * constant(0x85EBCA6B)
    mix = (mix ^ (mix >> constant(13))) * constant(0xC2B2AE35)
    return xp.sum(mix ^ (mix >> constant(16)), dtype=xp.uint32)
