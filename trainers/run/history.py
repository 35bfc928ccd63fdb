"""What the evaluations of a run measured, and which of them was the best."""

from collections.abc import Iterable, Mapping

import numpy as np

_COLUMNS = ("step", "train", "valid", "loss", "grad_norm", "bad_steps", "seconds")


def check_columns(
    sets: Iterable[str], values: Iterable[str], metrics: Iterable[str]
) -> None:
    """Checks that every column has a name of its own.

    Args:
      sets: that are scored, "train" and "valid" among them.
      values: that the loss function returns.
      metrics: of every set, under "SET/METRIC".

    Raises:
      ValueError: a name that is taken.
    """
    sets = list(sets)
    taken = {*_COLUMNS, *sets, *(f"{name}/{own}" for name in sets for own in metrics)}
    if wrong := sorted(taken.intersection(values)):
        raise ValueError(
            "`loss_fn` must name its values otherwise than the columns of the history,"
            f" {', '.join(sorted(taken))}; got {wrong[0]!r}. Rename it."
        )


def check_monitor(names: Iterable[str]) -> None:
    """Raises a `ValueError` where a further set has the name of another column."""
    if wrong := sorted({*_COLUMNS}.intersection(names)):
        raise ValueError(
            "`monitor` must name its sets otherwise than the columns of the history,"
            f" {', '.join(_COLUMNS)}; got {wrong[0]!r}. Rename it."
        )


class History:
    """One record for each evaluation.

    Args:
      validated: the scores have a set named "valid", which decides. Without one there is
        no choice to make: the last evaluation counts as the best.
      records: of the evaluations before, as from `records`.
    """

    def __init__(self, *, validated: bool, records: Iterable[Mapping[str, float]] = ()):
        self._validated = validated
        self._records: list[dict[str, float]] = []
        self._best = 0
        for record in records:
            self._append(dict(record))

    def add(
        self,
        *,
        step: int,
        scores: Mapping[str, float],
        measured: Mapping[str, float],
        bad_steps: int,
        seconds: float,
    ):
        """Appends an evaluation: scores by data set, and means over the steps before."""
        empty = {"loss": float("nan"), "grad_norm": float("nan")}
        valid = {} if self._validated else {"valid": float("nan")}
        self._append(
            {"step": step, **scores, **valid, **empty, **measured}
            | {"bad_steps": bad_steps, "seconds": seconds}
        )

    @property
    def records(self) -> list[dict[str, float]]:
        """One for each evaluation; JSON takes them and gives them back bit for bit."""
        return self._records

    @property
    def last_step(self) -> int:
        """The step of the last evaluation, -1 before the first."""
        return int(self._records[-1]["step"]) if self._records else -1

    @property
    def best_step(self) -> int:
        """The step of the best evaluation."""
        return int(self._records[self._best]["step"])

    @property
    def best_score(self) -> float | None:
        """The best validation score, or None without validation."""
        return self._records[self._best]["valid"] if self._validated else None

    def evaluations_since_best(self) -> int:
        """How many came after the best one."""
        return len(self._records) - 1 - self._best

    def last(self) -> dict[str, float]:
        """What the last evaluation measured, without gaps."""
        record = {k: v for k, v in self._records[-1].items() if k != "step"}
        return {k: v for k, v in record.items() if v == v}

    def arrays(self) -> dict[str, np.ndarray]:
        """Every quantity over the evaluations."""
        return {
            name: np.array([record[name] for record in self._records])
            for name in self._records[0]
        }

    def _append(self, record):
        self._records.append(record)
        if not self._validated or self._is_better(len(self._records) - 1):
            self._best = len(self._records) - 1

    def _is_better(self, index: int) -> bool:
        new, best = self._records[index]["valid"], self._records[self._best]["valid"]
        return bool(np.isfinite(new)) and not new <= best
