"""Seconds, measured fairly: interleaved, warm, medians, compilation apart."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def compile_seconds(function: Callable, *args: Any) -> tuple[Callable, float]:
    """Traces and compiles `function` for these arguments; the program and the seconds."""
    jax.clear_caches()
    began = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    return program, time.perf_counter() - began


_ROUNDS = 9
_PATIENCE = {"cpu": 30.0}  # seconds, by backend
_PATIENCE_ELSEWHERE = 2.0
_SETTLED = 0.1  # quartiles no further apart than this share of the median
_NEAR = 1.35  # times the fastest handover: the cores are still near each other


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 0.2,
    patience: float | None = None,
) -> dict[str, float]:
    """Median seconds a call, A B A B …, so that a busy moment hits everyone.

    Nine rounds, and nine more while somebody's times are far apart, for a while: what
    else runs on the machine slows a program on all cores more than one on one core, and
    should not decide the median. Nor do rounds count in which the cores were further apart than
    before in this process (see `_handover`), if there are nine others.

    Args:
      calls: by name; each is called once before.
      seconds: nine rounds call each as often as fits into so long, at least once a round.
      patience: seconds after which what there is must do; None: half a minute of a CPU,
        two seconds of an accelerator, which nobody else uses.
    """
    counts = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        counts[name] = max(int(seconds / max(_timed(call), 1e-6) / _ROUNDS), 1)
    rounds: list[dict[str, float]] = []
    handovers: list[float] = []
    if patience is None:
        patience = _PATIENCE.get(jax.default_backend(), _PATIENCE_ELSEWHERE)
    until = time.perf_counter() + patience
    while True:
        for _ in range(_ROUNDS):
            before = _handover()
            rounds.append({name: _timed(c, counts[name]) for name, c in calls.items()})
            handovers.append(max(before, _handover()))
        near = [r for r, h in zip(rounds, handovers, strict=True) if _is_near(h)]
        chosen = near if len(near) >= _ROUNDS else rounds
        times = {name: [r[name] for r in chosen] for name in calls}
        done = chosen is near and all(map(_settled, times.values()))
        if done or time.perf_counter() > until:
            return {name: statistics.median(values) for name, values in times.items()}


def _timed(call: Callable[[], Any], count: int = 1) -> float:
    """Seconds a call."""
    began = time.perf_counter()
    for _ in range(count):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / count


def _settled(times: list[float]) -> bool:
    low, median, high = statistics.quantiles(times, n=4)
    return high - low <= _SETTLED * median


_fastest_handover = float("inf")


def _handover() -> float:
    """Seconds in which every core reads what another has just written.

    A virtual machine's cores may be on one chip or on two, and move for seconds at a time: a
    line of the cache then takes 300 ns instead of 50 from one to the other, and what shares
    small arrays takes twice the time, while the cores compute as fast as ever. An accelerator
    has no such moods: 0.
    """
    global _fastest_handover
    if jax.default_backend() != "cpu":
        return 0.0
    seconds = min(_timed(_reversals()) for _ in range(3))
    _fastest_handover = min(_fastest_handover, seconds)
    return seconds


def _is_near(handover: float) -> bool:
    return handover <= _NEAR * _fastest_handover


@functools.cache
def _reversals() -> Callable[[], jax.Array]:
    def reverse(_, a):
        return jnp.flip(jnp.sin(a) * jnp.exp(-a * a))

    a = jnp.arange(131_072.0)  # half a megabyte, which a core's own cache holds
    program = jax.jit(lambda a: jax.lax.fori_loop(0, 10, reverse, a)).lower(a).compile()
    return functools.partial(program, a)
