"""What the files of a run may say, by declaration: its report, and what lies with its flow."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=2**53)]
Figures = dict[str, float | None]


class Over(Struct):
    """A difference to the mixture."""

    mean: float | None
    standard_error: float | None


class About(Struct):
    """A column, as `Schema.about` has it."""

    column: str
    kind: str
    why: str
    low: Any
    high: Any
    missing: Count
    log_p: str | None


class Report(Struct):
    """report.json."""

    file: str
    rows: dict[str, Count]
    columns: list[str]
    held_out_log_prob: Figures
    standard_error: Figures
    over_mixture: dict[str, Over]
    best_step: Count
    last_step: Count
    kinds: list[About]
    kinds_of_given: list[About]
    notes: list[str]
    settings: dict[str, Any]
    history: dict[str, list[float | None]]
    verdict: list[str]
    unit: str
    seconds: dict[str, float]
    versions: dict[str, str]
    decisions: list[str] = []  # which earlier reports have not
    path: str = ""
    digest: str = ""


class Kept(Struct):
    """What `rbig-nnx fit` keeps with its flow."""

    columns: list[str]
    is_named: bool
    width: Count
    na: list[str]
    probabilities: Annotated[list[float], Meta(min_length=2)]
    train_log_prob: Annotated[list[float], Meta(min_length=2)]


def check_report(report: Mapping[str, Any]) -> None:
    """Raises a `ValueError`, with the place of what is wrong."""
    found = msgspec.convert(report, Report)
    if "test" not in found.rows:
        raise ValueError("Object missing required field `test` - at `$.rows`")
    if found.standard_error.keys() != found.held_out_log_prob.keys():
        raise ValueError(
            "Expected the models of `held_out_log_prob` - at `$.standard_error`"
        )


def kept_of(about: Mapping[str, Any]) -> Kept:
    """What lies with a flow; raises a `ValueError` as well."""
    kept = msgspec.convert(about, Kept)
    if len(kept.probabilities) != len(kept.train_log_prob):
        raise ValueError("Expected as many as `probabilities` - at `$.train_log_prob`")
    return kept
