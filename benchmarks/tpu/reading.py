"""What a compiled program says of itself: collectives, products, padding."""

import collections
import math
import re
from typing import NamedTuple

_COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute",
)  # fmt: skip
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(_COLLECTIVES)})(?:-start)?\(")
_CHAIN = re.compile(r"channel_id=(\d+).*chain_id=")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LOOP = re.compile(r" while\(.*condition=%?([\w.-]+).*body=%?([\w.-]+)")
_OPERATION = re.compile(r" = .*?[\])}] ([a-z][\w-]*)\(")
_COUNTS = {"parameter", "get-tuple-element", "constant", "compare", "copy", "bitcast"}
_ARRAY = re.compile(r"(pred|[a-z]+\d+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_WIDTH = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4}


class Collectives(NamedTuple):
    """Of a program; a training loop's own steps count as no loop."""

    count: dict[str, int]
    bytes: int  # of their results
    in_open_loops: int  # that run until the data say so
    in_counted_loops: int


def computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of an HLO module."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name = head[1]
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def collectives(text: str, *, steps: bool) -> Collectives:
    """Counts the collectives of a compiled program.

    Args:
      text: HLO after all optimisations.
      steps: the outermost loop is that over training steps.
    """
    bodies = computations(text)
    entry = next(re.finditer(r"^ENTRY %?([\w.-]+)", text, re.MULTILINE))[1]
    count: collections.Counter[str] = collections.Counter()
    sums = collections.Counter()
    seen, chains = set(), set()

    def visit(name, depth, open_loop):
        if (name, depth > steps, open_loop) in seen or name not in bodies:
            return
        seen.add((name, depth > steps, open_loop))
        for line in bodies[name]:
            found = _COLLECTIVE.search(line)
            # One that goes on beside several fusions is written in each of them.
            chain = _CHAIN.search(line)
            if found and not (chain and (found[2], chain[1]) in chains):
                if chain:
                    chains.add((found[2], chain[1]))
                count[found[2]] += 1
                sums["bytes"] += _bytes(found[1])
                sums["open"] += open_loop
                sums["counted"] += depth > steps and not open_loop
            loop = _LOOP.search(line)
            if loop:
                own = depth >= steps and not _counts(bodies[loop[1]])
                for part in loop.groups():
                    visit(part, depth + 1, open_loop or own)
                continue
            branches = _BRANCHES.search(line)
            called = _CALLED.findall(line)
            if branches:
                called += [n.strip(" %") for n in branches[1].split(",")]
            for part in called:
                visit(part, depth, open_loop)

    visit(entry, 0, False)
    return Collectives(dict(count), sums["bytes"], sums["open"], sums["counted"])


def _counts(condition: list[str]) -> bool:
    """Whether a loop's condition compares a number of turns, and looks at no data."""
    found = (_OPERATION.search(line) for line in condition)
    return {operation[1] for operation in found if operation} <= _COUNTS


def precisions(stablehlo: str) -> dict[str, int]:
    """How many products there are of each precision, before the compiler."""
    found: collections.Counter[str] = collections.Counter()
    for line in stablehlo.splitlines():
        if "stablehlo.dot_general" in line:
            given = re.search(r"precision = \[(\w+)", line)
            found[given[1] if given else "DEFAULT"] += 1
    return dict(found)


def padding(text: str) -> float:
    """The share of the floats that programs compute to fill tiles, 8 × 128 as a rule."""
    real = filled = 0
    for line in text.splitlines():
        _, _, right = line.partition(" = ")
        array = _ARRAY.match(right)
        if not array or not array[1].startswith(("f", "bf")) or not array[4]:
            continue
        if re.search(r"\} (parameter|constant|bitcast|get-tuple-element)\(", right):
            continue
        tile = re.match(r"T\(([\d,]+)\)", array[4])
        if tile is None:
            continue
        shape = [int(n) for n in array[2].split(",") if n]
        order = [int(n) for n in array[3].split(",") if n]
        tiles = [int(n) for n in tile[1].split(",")]
        size = math.prod(shape)
        if size <= 1:
            continue
        padded = shape.copy()
        for axis, unit in zip(order, reversed(tiles), strict=False):
            padded[axis] = -(-shape[axis] // unit) * unit
        real += size
        filled += math.prod(padded)
    return 1 - real / filled if filled else 0.0


def _bytes(shapes: str) -> int:
    total = 0
    for kind, shape, *_ in _ARRAY.findall(shapes):
        total += _WIDTH.get(kind, 4) * math.prod(int(n) for n in shape.split(",") if n)
    return total
