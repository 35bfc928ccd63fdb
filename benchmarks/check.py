"""Compares the ratios of a run with the committed ones: a guard, not a timed test."""

from typing import Any

TOLERANCE = 0.75  # a ratio that fell below this share of the committed one is reported


def identity(row: dict[str, Any]) -> tuple:
    """What makes two rows the same measurement."""
    keys = ("what", "d", "batch", "blocks", "rows", "devices")
    return tuple(row.get(key) for key in keys)


def fallen(committed: list[dict], measured: list[dict]) -> list[str]:
    """One line for every ratio that fell, and for rows that are in neither run's plan."""
    now = {identity(row): row.get("ratio", {}) for row in measured}
    lines = []
    for row in committed:
        for peer, before in row.get("ratio", {}).items():
            after = now.get(identity(row), {}).get(peer)
            if after is not None and after < TOLERANCE * before:
                lines.append(
                    f"{row['what']} {identity(row)[1:]}: {before:.2f} -> {after:.2f}"
                    f" against {peer}"
                )
    return lines
