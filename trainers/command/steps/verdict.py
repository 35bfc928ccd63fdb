"""The verdict on a fit: scores of test rows with their standard errors, and what they say.

Everything is in nats per row. Pure functions of arrays and of the report, which is JSON;
without JAX, so that a report is printed at once.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rich.table import Table

GAUSSIAN, START, TRAINED = "Gaussian", "flow, warm start", "flow, trained"
_SURE = 2  # standard errors from which a difference is told from chance
_NAMED = 12  # columns, beyond which their number stands for them
_FEW = 100  # test rows, below which more of them are recommended


def mixture_name(num_components: int) -> str:
    """What the mixture is called in the table."""
    plural = "" if num_components == 1 else "s"
    return f"Gaussian mixture, {num_components} component{plural}"


def judged(log_prob: Mapping[str, np.ndarray], mixture: str) -> dict[str, Any]:
    """The part of a report that judges.

    Args:
      log_prob: log p of the same test rows by model, [n] each.
      mixture: the name of the one that the others are compared with.

    Returns:
      JSON: `held_out_log_prob`, the mean by model; `standard_error`, of each mean;
      `over_mixture`, mean and standard error of the paired difference.
    """
    means, errors, over = {}, {}, {}
    for name, values in log_prob.items():
        means[name], errors[name] = mean_and_error(values)
        if name != mixture:
            with np.errstate(invalid="ignore"):
                mean, error = mean_and_error(values - log_prob[mixture])
            over[name] = {"mean": mean, "standard_error": error}
    return {
        "held_out_log_prob": means,
        "standard_error": errors,
        "over_mixture": over,
    }


def mean_and_error(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and its standard error; None for what is not finite."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):
        mean = values.mean()
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return finite(mean), finite(error)


def score_table(report: Mapping[str, Any]) -> Table:
    """log p of the test rows, one line for each model."""
    table = Table(title=f"log p of {report['rows']['test']:,} test rows, nats per row")
    table.add_column("model", no_wrap=True)
    table.add_column("log p ± error", justify="right", no_wrap=True)
    table.add_column("over the mixture", justify="right", no_wrap=True)
    for name, mean in report["held_out_log_prob"].items():
        over = report["over_mixture"].get(name)
        step = f", step {report['best_step']}" if name == TRAINED else ""
        difference = (
            shown(over["mean"], over["standard_error"], sign=True) if over else ""
        )
        table.add_row(
            name + step, shown(mean, report["standard_error"][name]), difference
        )
    return table


def sentences(report: Mapping[str, Any]) -> list[str]:
    """What the scores say, the verdict first."""
    n = report["rows"]["test"]
    over = report["over_mixture"][TRAINED]
    mean, error = over["mean"], over["standard_error"]
    name = next(m for m in report["held_out_log_prob"] if m.startswith("Gaussian m"))
    mixture = f"the Gaussian mixture of {name.split(', ')[1]}"
    lines = []
    if mean is None or error is None:
        lines.append(
            f"On {n} test rows the flow and {mixture} cannot be compared: a row has no"
            " finite log p."
        )
    elif abs(mean) < _SURE * error:
        lines.append(
            f"On {n:,} test rows the flow is not distinguishable from {mixture}:"
            f" {shown(mean, error, sign=True)} nats per row, less than two standard errors."
        )
        if n < _FEW:
            lines.append("More test rows tell more: a larger file, or --test-fraction.")
    else:
        lines.append(
            f"On {n:,} test rows the flow is {'better' if mean > 0 else 'worse'} than"
            f" {mixture}, by {shown(abs(mean), error)} nats per row."
        )
    at_the_end = report.get("stop_reason") == "completed" and (
        report["best_step"] >= report.get("last_step", np.inf)
    )
    if mean is not None and error is not None and mean < -_SURE * error:
        lines.append(_what_to_try(report))
    if "choice" in report:
        lines.append(report["choice"])
    if report["best_step"] == 0:
        lines.append(
            "Training did not improve on the warm start by the valid rows: step 0, the"
            " start itself, is returned."
        )
    elif at_the_end:
        lines.append(
            "The valid rows still scored higher at the last step; a larger"
            " --train.num-steps or --budget may go further."
        )
    return lines


def units(columns: Iterable[Mapping[str, Any]]) -> str:
    """Of what log p is: density or mass, by column; of many their number."""
    by_unit: dict[str, list[str]] = {}
    for column in columns:
        if column["log_p"]:
            by_unit.setdefault(column["log_p"], []).append(column["column"])
    parts = []
    for unit, names in by_unit.items():
        few = len(names) <= _NAMED
        parts.append(
            f"{unit} of {', '.join(names) if few else f'{len(names)} columns'}"
        )
    return f"log p in nats per row: {'; '.join(parts)}."


def shown(mean: float | None, error: float | None, *, sign: bool = False) -> str:
    """A figure with its standard error, as -1.234 ± 0.021; one row has none."""
    if mean is None:
        return "not finite"
    figure = f"{mean:+.4f}" if sign else f"{mean:.4f}"
    return figure if error is None else f"{figure} ± {error:.4f}"


def _what_to_try(report: Mapping[str, Any]) -> str:
    """Where the mixture is ahead."""
    few = report["rows"]["train"] < 200 * max(len(report["columns"]), 1)
    if few:
        return (
            "The mixture is ahead: the rows are few for a flow. Try --num-components 1,"
            " --num-blocks 1 or a larger --train.jitter, or take the mixture."
        )
    return (
        "The mixture is ahead. Try --num-components 16, --num-blocks 8, a longer"
        " --budget, or other --kinds of columns."
    )


def finite(value: float) -> float | None:
    """The value, or None, which JSON has in place of what is not finite."""
    return float(value) if np.isfinite(value) else None
