"""Programs of every size, compiled side by side, then measured in turn."""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.accelerator.ceilings import PRECISIONS
from benchmarks.models import entrants, programs
from benchmarks.models.programs import NAIVE, NUM_BLOCKS, OURS
from benchmarks.report import Row
from benchmarks.timing import interleaved

TF32, BFLOAT16 = "TF32", "bfloat16"
PEERS = tuple(entrants.ENTRANTS)
# What the same models do with shorter products. Only ours has a type for its networks.
SHORTER = (f"{OURS} {TF32}", f"{NAIVE} {TF32}", f"{OURS} {BFLOAT16}")
# Our conditioners say their products' precision themselves.
_OURS = {TF32: {"precision": "default"}, BFLOAT16: {"dtype": jnp.bfloat16}}


class Size(NamedTuple):
    """A row of a table."""

    d: int
    batch: int
    names: Sequence[str]


class _Program(NamedTuple):
    call: Callable[[], Any]
    flops: float | None
    bytes: float | None


Make = Callable[[entrants.Entrant, jax.Array], programs.Program]


@functools.lru_cache(maxsize=8)
def _rows(d: int, batch: int) -> jax.Array:
    """On the device."""
    return jnp.asarray(programs.rows_of(batch, d))


@functools.cache
def _entrant(name: str, d: int) -> tuple[entrants.Entrant, str]:
    """An entrant, and the precision of its products."""
    for precision in (TF32, BFLOAT16):
        if name.endswith(precision):
            base = name.removesuffix(precision).rstrip()
            options = _OURS[precision] if base == OURS else {}
            entrant = entrants.ENTRANTS[base](d, NUM_BLOCKS, **options)
            return entrant, precision
    return entrants.ENTRANTS[name](d, NUM_BLOCKS), "float32"


def measured(
    what: str,
    make: Make,
    sizes: Sequence[Size],
    *,
    ceilings: Mapping[str, float],
    patience: float | None = None,
) -> list[Row]:
    """A row for each size, with shares of the card's memory and products.

    The shares are by XLA's counts, and of programs without loops.

    Args:
      what: the table's title.
      make: a function and its arguments, for an entrant and rows.
      sizes: of the rows.
      ceilings: of `benchmarks.accelerator.ceilings`.
      patience: see `benchmarks.timing.interleaved`.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [
            {
                n: pool.submit(*_lowered(make, n, size))
                for n in size.names
                if _imports(n)
            }
            for size in sizes
        ]
        found = [{n: _result(f) for n, f in row.items()} for row in futures]
    return [
        _row(what, size, compiled, ceilings, patience)
        for size, compiled in zip(sizes, found, strict=True)
    ]


@functools.cache
def _imports(name: str) -> bool:
    """Whether this entrant works with this machine's jax; said once where it does not."""
    try:
        _entrant(name, 2)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return False
    return True


def _lowered(make, name, size):
    """What a thread has to do; tracing holds Python's lock and is done before."""
    entrant, precision = _entrant(name, size.d)
    function, args = make(entrant, _rows(size.d, size.batch))
    with jax.default_matmul_precision(PRECISIONS[precision]):
        lowered = jax.jit(function).lower(*args)
    return _compiled, lowered, args


def _compiled(lowered, args) -> _Program:
    program = lowered.compile()
    # XLA counts the body of a loop once.
    loops = " while(" in program.as_text()
    cost = {} if loops else program.cost_analysis() or {}
    return _Program(
        functools.partial(program, *args),
        cost.get("flops"),
        cost.get("bytes accessed"),
    )


def _result(future) -> _Program | None:
    """None where the memory does not suffice."""
    try:
        program = future.result()
        jax.block_until_ready(program.call())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    return program


def _row(what, size, compiled, ceilings, patience) -> Row:
    fitting = {name: p for name, p in compiled.items() if p is not None}
    calls = {name: p.call for name, p in fitting.items()}
    seconds = interleaved(calls, seconds=0.1, patience=patience)
    row: Row = {"what": what, "d": size.d, "batch": size.batch}
    row["rows_per_second"] = {name: size.batch / s for name, s in seconds.items()}
    if OURS in seconds:
        ours = seconds[OURS]
        row["ratio"] = {n: s / ours for n, s in seconds.items() if n != OURS}
    counted = {n: p for n, p in fitting.items() if n in (OURS, NAIVE) and p.bytes}
    row["percent_of_bandwidth"] = {
        n: 100 * p.bytes / seconds[n] / ceilings["bytes"] for n, p in counted.items()
    }
    row["percent_of_operations"] = {
        n: 100 * p.flops / seconds[n] / ceilings["float32"] for n, p in counted.items()
    }
    missing = [name for name, p in compiled.items() if p is None]
    if missing:
        row["out of memory"] = ", ".join(missing)
    return row
