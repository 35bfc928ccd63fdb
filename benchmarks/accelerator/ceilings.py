"""What the card does at best, measured: bytes a second through memory, products a second."""

import functools

import jax
import jax.numpy as jnp

from benchmarks.timing import compile_seconds, interleaved

PRECISIONS = {"float32": "highest", "TF32": "tensorfloat32", "bfloat16": "bfloat16"}


def ceilings(*, quick: bool) -> dict[str, float]:
    """Bytes a second of a large copy; operations a second of a square product."""
    size = 512 if quick else 8_192
    a = jax.random.normal(jax.random.key(0), (4 * size, size))
    square = a[:size]
    programs = {"bytes": compile_seconds(lambda a: a + 1, a)[0]}
    operands = {"bytes": (a,)}
    for name, precision in PRECISIONS.items():
        x = square.astype(jnp.bfloat16) if name == "bfloat16" else square
        product = functools.partial(jnp.matmul, precision=precision)
        programs[name] = compile_seconds(product, x, x)[0]
        operands[name] = (x, x)
    calls = {
        name: functools.partial(program, *operands[name])
        for name, program in programs.items()
    }
    seconds = interleaved(calls, patience=0.0 if quick else None)
    moved = {"bytes": 2 * a.nbytes}
    return {name: moved.get(name, 2 * size**3) / s for name, s in seconds.items()}
