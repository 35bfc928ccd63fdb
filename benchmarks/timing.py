"""Seconds, measured fairly: interleaved, warm, medians, compilation apart."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def compile_seconds(function: Callable, *args: Any) -> tuple[Callable, float]:
    """Traces and compiles `function` for these arguments; the program and the seconds."""
    jax.clear_caches()
    began = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    return program, time.perf_counter() - began


_ROUNDS = 9
_PATIENCE = 30.0  # seconds
_SETTLED = 0.1  # quartiles no further apart than this share of the median


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, seconds: float = 0.2
) -> dict[str, float]:
    """Median seconds a call, A B A B …, so that a busy moment hits everyone.

    Nine rounds, and nine more while somebody's times are far apart, for half a minute: what
    else runs on the machine slows a program on all cores more than one on one core, and
    should not decide the median.

    Args:
      calls: by name; each is called once before.
      seconds: nine rounds call each as often as fits into so long, at least once a round.
    """
    counts = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        began = time.perf_counter()
        jax.block_until_ready(call())
        once = time.perf_counter() - began
        counts[name] = max(int(seconds / max(once, 1e-6) / _ROUNDS), 1)
    times: dict[str, list[float]] = {name: [] for name in calls}
    until = time.perf_counter() + _PATIENCE
    while True:
        for _ in range(_ROUNDS):
            for name, call in calls.items():
                began = time.perf_counter()
                for _ in range(counts[name]):
                    result = call()
                jax.block_until_ready(result)
                times[name].append((time.perf_counter() - began) / counts[name])
        if all(map(_settled, times.values())) or time.perf_counter() > until:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def _settled(times: list[float]) -> bool:
    low, median, high = statistics.quantiles(times, n=4)
    return high - low <= _SETTLED * median
