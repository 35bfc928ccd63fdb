"""What the evaluations of a run measured, and which of them was the best."""

from collections.abc import Mapping

import numpy as np


class History:
    """One record for each evaluation.

    Args:
      validated: the scores have a set named "valid", which decides. Without one there is
        no choice to make: the last evaluation counts as the best.
    """

    def __init__(self, *, validated: bool):
        self._validated = validated
        self._records: list[dict[str, float]] = []
        self._best = 0

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
        self._records.append(
            {"step": step, **scores, **valid, **empty, **measured}
            | {"bad_steps": bad_steps, "seconds": seconds}
        )
        if not self._validated or self._is_better(len(self._records) - 1):
            self._best = len(self._records) - 1

    @property
    def best_step(self) -> int:
        """The step of the best evaluation."""
        return self._records[self._best]["step"]

    def evaluations_since_best(self) -> int:
        """How many came after the best one."""
        return len(self._records) - 1 - self._best

    def score_at(self, step: int) -> float:
        """The deciding score of the evaluation at `step`."""
        name = "valid" if self._validated else "train"
        return next(r[name] for r in self._records if r["step"] == step)

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

    def _is_better(self, index: int) -> bool:
        new, best = self._records[index]["valid"], self._records[self._best]["valid"]
        return bool(np.isfinite(new)) and not new <= best
