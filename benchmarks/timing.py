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


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int = 9, seconds: float = 0.2
) -> dict[str, float]:
    """Median seconds a call, A B A B …, so that a busy moment hits everyone.

    Args:
      calls: by name; each is called once before.
      repeats: rounds.
      seconds: a round calls each as often as fits into so long, at least once.
    """
    counts = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        began = time.perf_counter()
        jax.block_until_ready(call())
        once = time.perf_counter() - began
        counts[name] = max(int(seconds / max(once, 1e-6) / repeats), 1)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(counts[name]):
                result = call()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - began) / counts[name])
    return {name: statistics.median(values) for name, values in times.items()}
