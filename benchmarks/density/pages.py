"""Markdown from the records, and its place in the pages that show it."""

import math
import pathlib
import re
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.density import summary
from benchmarks.density.fits import CHEAP, DEFAULTS, GAUSSIAN, KERNELS, MIXTURE
from benchmarks.density.flows import FLOWS
from benchmarks.density.summary import Group, Mean
from benchmarks.report import Row


def blocks(environment: dict[str, Any], records: Sequence[Row]) -> dict[str, str]:
    """The parts of a page that the records have something for, by name."""
    races, few = summary.races(records), summary.few_rows(records)
    found = {
        "said" if races else "rows-said": _said(environment),
        "races": "\n\n".join(map(_race, races)),
        "seconds": "\n\n".join(map(_seconds, races)),
        "rows": _few_rows(few) if few else "",
    }
    return {name: block for name, block in found.items() if block}


def page(blocks: dict[str, str]) -> str:
    """All of them."""
    head = "<!-- written by `make bench-density`; do not edit -->"
    return "\n\n".join([head, *blocks.values()]) + "\n"


def insert(path: pathlib.Path, blocks: dict[str, str]):
    """Writes each block between its markers, `<!-- density:races -->` and `<!-- / -->`."""
    text = path.read_text()
    for name, block in blocks.items():
        begin, end = f"<!-- density:{name} -->", "<!-- / -->"
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        new = f"{begin}\n{block}\n{end}"
        text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
    path.write_text(text)


def _said(environment) -> str:
    note = f" {environment['note']}" if environment["note"] else ""
    cores = environment["cores"]
    return (
        f"The {environment['form']} form, commit {environment['commit']},"
        f" {environment['device']}, {cores} core{'s' * (cores > 1)}.{note} Held-out nats a row,"
        " mean ± standard error over seeds (of one seed without); a column's best is bold."
    )


def _race(group: Group) -> str:
    """Log p after equal seconds and after equal steps."""
    limits = [
        ({name: limit}, f"{limit:,g} {unit}")
        for name, unit in (("seconds", group.second), ("steps", "steps"))
        for limit in group.limits(name)
    ]
    there = {r["model"] for r in group.records}
    models = [m for m in (*CHEAP, *FLOWS) if m in there]
    columns = []
    for limit, _ in limits:
        found = [group.of(m) if m in CHEAP else group.of(m, **limit) for m in models]
        columns.append(_marked([summary.log_prob(rows) for rows in found]))
    first, _ = limits[0]
    mixture = group.of(MIXTURE)
    columns.append(
        [
            ""
            if m in CHEAP
            else _shown(summary.over(group.of(m, **first), mixture), sign="+")
            for m in models
        ]
    )
    titles = [title for _, title in limits]
    head = [_title(group), *titles, f"over the mixture, {titles[0]}"]
    return _table(head, [models, *columns])


def _seconds(group: Group) -> str:
    """When the curves pass the mixture and the spline."""
    tables, s = [], group.second
    for limit in group.limits("seconds"):
        levels = summary.levels(group, limit)
        lines = []
        for model in FLOWS:
            rows = group.of(model, seconds=limit)
            if rows:
                ends = [r["curve"][-1] for r in rows.values()]
                taken, steps = (statistics.median(e[i] for e in ends) for i in (0, 1))
                passed = [summary.seconds_to(rows, level) for level in levels.values()]
                lines.append(
                    [model, f"{taken:.0f}", f"{steps:,.0f}", *map(_second, passed)]
                )
        head = [
            _title(group),
            f"{s} in all",
            "steps",
            *(f"{s} to the {n}" for n in levels),
        ]
        tables.append(_table(head, list(zip(*lines, strict=True))))
    return "\n\n".join(tables)


def _few_rows(found: Sequence[Group]) -> str:
    """`FlowDensity` beside what is cheap."""
    lines = []
    for group in found:
        ours, mixture = group.of(DEFAULTS), group.of(MIXTURE)
        models = (DEFAULTS, MIXTURE, GAUSSIAN, KERNELS)
        means = _marked([summary.log_prob(group.of(m)) for m in models], error=False)
        truths = [r["truth"] for r in ours.values() if r["truth"] is not None]
        truth = f"{statistics.fmean(truths):.2f}" if truths else ""
        difference = _shown(summary.over(ours, mixture), sign="+", digits=3)
        lines.append([_title(group), difference, *means, truth])
    head = ["table", "ours over mixture", "ours", "mixture", "Gaussian", "kernels"]
    columns = zip([*head, "truth"], zip(*lines, strict=True), strict=True)
    filled = [(name, column) for name, column in columns if any(column)]
    return _table(*zip(*filled, strict=True))


def _title(group: Group) -> str:
    seeds = f", {group.num_seeds} seeds" if group.num_seeds > 1 else ", 1 seed"
    return f"{group.table}, {group.num_rows:,} rows{seeds}"


def _table(head: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *zip(*columns, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _marked(means: Sequence[Mean | None], *, error: bool = True) -> list[str]:
    """The best is bold."""
    best = max((m.value for m in means if m is not None), default=math.nan)
    return [
        f"**{_shown(m, error=error)}**"
        if m and m.value == best
        else _shown(m, error=error)
        for m in means
    ]


def _shown(
    mean: Mean | None, *, error: bool = True, sign: str = "", digits: int = 2
) -> str:
    if mean is None:
        return ""
    value = f"{mean.value:{sign}.{digits}f}"
    if math.isnan(mean.error) or not error:
        return value
    return f"{value} ± {mean.error:.{digits}f}"


def _second(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f}" if math.isfinite(seconds) else "never"
