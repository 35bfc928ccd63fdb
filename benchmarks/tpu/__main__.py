"""`python -m benchmarks.tpu`: programs compiled for slices of TPUs, where there are none."""

import dataclasses
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

# Read when libtpu is loaded; no chip is looked for.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "JAX_PLATFORMS": "cpu",
}

import tyro
from rich.console import Console

from benchmarks import report
from benchmarks.models.programs import NAIVE, OURS
from benchmarks.tpu import chips, programs, reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tpu:
    """Compiles for TPUs; writes benchmarks/results/tpu row by row, and goes on there."""

    slices: tuple[str, ...] = tuple(chips.SLICES)
    only: tuple[str, ...] = ()  # programs; empty for all
    anew: bool = False  # compile again what is in the results
    out: pathlib.Path = report.RESULTS / "tpu"


_NOTE = (
    "Nothing ran. Counts are the compiler's: the body of a loop once, so of EM and of sampling"
    " one turn. Bounds are each of products, memory and links alone at its published peak."
)


def plan(name: str, size: programs.Size) -> dict[str, Callable[[], Any]]:
    """The programs of a slice by title, each lowered when it is called."""
    mesh = chips.mesh_of(name)
    split = functools.partial(chips.mesh_of, name, model=2)
    train = functools.partial(programs.training_step, size=size)
    found = {
        "training step": lambda: train(mesh),
        "training step, strata": lambda: train(mesh, strata=True),
        "training step, kernels over 2": lambda: train(
            split(), partition=programs.KERNELS
        ),
        "training step, FSDP": lambda: train(mesh, partition="data"),
        "EM of a block": lambda: programs.expectation_maximisation(mesh, size),
        "sampling": lambda: programs.sampling(mesh, size),
        "sampling, each chip alone": lambda: programs.sampling_apart(mesh, size),
        f"plain step, {OURS}": lambda: programs.plain_step(mesh, size, OURS),
        f"plain step, {NAIVE}": lambda: programs.plain_step(mesh, size, NAIVE),
    }
    if chips.SLICES[name].shape != (8,):  # elsewhere the shorter list
        for title in list(found):
            if title.startswith("plain") or "FSDP" in title:
                del found[title]
    return found


def row_of(name: str, title: str, lower: Callable[[], Any]) -> report.Row:
    """Compiles a program, and reads what it says of itself."""
    lowered = lower()
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    text = compiled.as_text()
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    sent = reading.collectives(text, steps=title.startswith("training"))
    flops, moved = cost.get("flops", 0.0), cost.get("bytes accessed", 0.0)
    share = reading.padding(text)
    return {
        "what": f"{name}: {chips.SLICES[name].topology}",
        "program": title,
        "compile_seconds": seconds,
        "MB a chip": {
            "arguments": memory.argument_size_in_bytes / 1e6,
            "temporary": memory.temp_size_in_bytes / 1e6,
        },
        "Mflop": flops / 1e6,
        "of it padding, Mflop": share / (1 - share) * flops / 1e6,
        "MB accessed": moved / 1e6,
        "collectives": ", ".join(f"{n} {k}" for k, n in sent.count.items()) or "none",
        "kB sent": sent.bytes / 1e3,
        "in loops": {"open": sent.in_open_loops, "counted": sent.in_counted_loops},
        "products": ", ".join(
            f"{n} {k}" for k, n in reading.precisions(lowered.as_text()).items()
        ),
        "bound, µs": chips.bound(name, flops=flops, moved=moved, sent=sent.bytes),
    }


def main(settings: Tpu) -> int:
    """Compiles what the results do not have yet; returns 2 for an unknown slice."""
    console = Console(soft_wrap=True)
    if unknown := set(settings.slices) - set(chips.SLICES):
        console.print(f"no slice {sorted(unknown)}; there are {list(chips.SLICES)}")
        return 2
    path = settings.out.with_suffix(".json")
    rows = report.load(path) if path.exists() else []
    environment = report.environment() | {
        "device": "compiled for TPUs on a CPU",
        "note": _NOTE,
    }
    for name in settings.slices:
        for title, lower in plan(name, programs.Size()).items():
            if settings.only and title not in settings.only:
                continue
            what = f"{name}: {chips.SLICES[name].topology}"
            own = [r for r in rows if (r["what"], r["program"]) == (what, title)]
            if own and not settings.anew:
                continue
            rows = [row for row in rows if row not in own]
            rows.append(row_of(name, title, lower))
            report.write(settings.out, environment, rows)
            console.print(f"{what}, {title}: {rows[-1]['compile_seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Tpu, prog="python -m benchmarks.tpu")))
