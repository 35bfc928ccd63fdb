"""Results as JSON and as Markdown tables, with what they were measured on."""

import json
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax

Row = dict[str, Any]
RESULTS = pathlib.Path(__file__).parent / "results"

PACKAGES = ("jax", "flax", "distrax", "flowjax", "bijx", "equinox", "scikit-learn")


def environment() -> dict[str, Any]:
    """Commit, versions and device."""
    device = jax.devices()[0]
    return {
        "commit": os.environ.get("RBIG_NNX_COMMIT") or _commit(),
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
        "num_devices": jax.device_count(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a peer that is then left out
        return "none"


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    except FileNotFoundError:  # a copy of the files on a machine without git
        return "unknown"


def write(path: pathlib.Path, environment: dict[str, Any], rows: list[dict]):
    """Writes `path` with suffix .json, and the tables beside it with suffix .md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"environment": environment, "rows": rows}
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(environment, rows))


def load(path: pathlib.Path) -> list[dict]:
    """The rows of a results file, each with the commit that was measured."""
    document = json.loads(path.read_text())
    commit = document["environment"]["commit"]
    return [{"commit": commit} | row for row in document["rows"]]


def merged(stem: pathlib.Path, rows: list[Row], *, only: Sequence[str]) -> list[Row]:
    """With `--only`, the rows of the other sections stay, with the commit they are of."""
    path = stem.with_suffix(".json")
    if not only or not path.exists():
        return rows
    measured = {_subject(row) for row in rows}
    return [row for row in load(path) if _subject(row) not in measured] + rows


def _subject(row):
    return tuple(row.get(key) for key in ("what", "table", "level", "d"))


_NOTE = (
    "Medians of interleaved calls, float32. A ratio is the other's time, or memory, over"
    " ours: above 1 we are ahead."
)


def markdown(environment: dict[str, Any], rows: list[dict]) -> str:
    """One table for each kind of row."""
    versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items())
    lines = [
        "<!-- written by `make bench`; do not edit -->",
        "",
        f"Commit {environment['commit']}, {environment['device']}"
        f" ({environment['num_devices']} devices), Python {environment['python']};"
        f" {versions}.",
        environment.get("note", _NOTE),
    ]
    kinds = dict.fromkeys(row["what"] for row in rows)
    for kind in kinds:
        own = [_flat(row) for row in rows if row["what"] == kind]
        columns = list(dict.fromkeys(name for row in own for name in row))
        lines += ["", f"### {kind}", ""]
        commits = dict.fromkeys(
            row.get("commit", environment["commit"])
            for row in rows
            if row["what"] == kind
        )
        if list(commits) != [environment["commit"]]:
            lines += [f"Measured at commit {', then '.join(commits)}.", ""]
        lines.append("| " + " | ".join(columns) + " |")
        lines.append("|" + " ---: |" * len(columns))
        for row in own:
            lines.append("| " + " | ".join(_text(row.get(c)) for c in columns) + " |")
    return "\n".join(lines) + "\n"


def _flat(row: dict) -> dict:
    flat = {}
    for name, value in row.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(inner, list):
                    flat[f"{_TITLES.get(name, name)} {key}"] = inner
        elif name not in ("what", "commit"):
            flat[_TITLES.get(name, name)] = value
    return flat


_TITLES = {
    "ratio": "ratio to",
    "rows_per_second": "rows/s",
    "compile_seconds": "compile s",
    "bytes_a_row": "bytes/row",
    "gflops": "networks, 1e9 operations/s",
    "ns_a_component": "mixtures, ns a component",
    "train_log_prob": "train log p",
    "log_prob": "log p",
    "seeds_ahead_of": "seeds ahead of",
    "seconds": "s",
    "percent_of_bandwidth": "% of bandwidth",
    "percent_of_operations": "% of float32 products",
    "seconds_warm": "s, second call",
}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "not reached"
        if abs(value) >= 1_000:
            return f"{value:,.0f}"
        return f"{value:.3g}"
    return str(value)
