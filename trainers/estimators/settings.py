"""The settings that follow the table: what the estimators and the command use by default.

Without JAX, so that a command line is read at once. The rules come from tables whose density
is known and from two large real ones: docs/settings.md has the measurements.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainers.config import TrainConfig

VALID_ROWS = 20_000  # that choose, at most: they tell a mean to about .01 nats
EVALUATIONS = 40  # in a run, at most
WORTH = 100  # steps, for which another run is worth it


class _Size(NamedTuple):
    """What suits tables of fewer rows than `below`."""

    below: float
    num_blocks: int
    hidden: tuple[int, ...]
    num_steps: int  # at the least
    decays: tuple[float, ...]


FEW_ROWS = 1_000  # rows, below which too few are held out to see that a run overfits
_SIZES = (
    _Size(FEW_ROWS, 4, (16,), 200, (3.0, 30.0, 300.0)),
    _Size(5_000, 2, (32, 32), 1_000, (0.3, 3.0, 30.0)),
    _Size(math.inf, 4, (64, 64), 1_000, (0.3, 3.0, 30.0)),
)
_ROWS_A_COLUMN = 10  # fewer of few rows cannot tell what more than one block finds
_ROWS_A_COMPONENT, _COMPONENTS = 25, 8
_DISPATCH = TrainConfig().steps_per_dispatch
_MOST_STEPS = 5_000  # of a run, without a budget
# Of a run under a budget, at most: many rows go on gaining, fewer overfit before.
_EPOCHS, _EPOCHS_OF_MANY, _MANY_FOR_EPOCHS = 300, 1_000, 50_000
_PATIENCE = 0.25  # of a run without a gain end it: its averages turn once
# Where there are so many rows and seconds, larger batches buy more than more steps.
_MANY_ROWS, _MANY_SECONDS, _LARGE_BATCH = 200_000, 120.0, 2_048
_WEAK, _LONG = 0.03, 10_000  # the first decay, of many rows and so many steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """The flow and its start.

    Attributes:
      num_blocks: (rotation, coupling, coupling) blocks.
      num_components: of each feature's mixture.
      hidden: widths of the conditioners.
      family: "gaussian" or "logistic".
      rotation: of the warm start.
      tails: whether heavy tails are taken off before the blocks; None for what held-out
        rows of the start prefer.
      marginals: whether each column has a mixture of its own there; None as for tails.
      whiten: whether linear dependence is; None for where there are no clusters.
      radial: whether a random scale that all features share is, behind whitening; None as
        for tails.
      clusters: components of a mixture with full covariances that is taken off before the
        blocks; 0 for none, None as for tails, of fewer than 5,000 rows.
    """

    num_blocks: int = 4
    num_components: int = 8
    hidden: tuple[int, ...] = (64, 64)
    family: str = "gaussian"
    rotation: str = "auto"
    tails: bool | None = None
    marginals: bool | None = None
    whiten: bool | None = None
    radial: bool | None = None
    clusters: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a table is fitted with.

    Attributes:
      architecture: the flow and its start.
      train: of the first run, which has the first of the decays.
      decays: strengths, one run after another from the same start, while the runs overfit
        and the rows that choose gain.
      total_steps: of all runs together; None where each has its own.
      only_overfitted: whether a run must overfit for another one.
    """

    architecture: Architecture
    train: TrainConfig
    decays: tuple[float, ...]
    total_steps: int | None = None
    only_overfitted: bool = True

    def values(self) -> dict[str, Any]:
        """What the function decides, by name."""
        both = vars(self.architecture) | vars(self.train)
        return {name: both[name] for name in DECIDED}

    def told(self, names: Mapping[str, str], form: str) -> str:
        """One line, of what could be typed.

        Args:
          names: of the settings, as they are typed.
          form: of one of them: "{}={}".
        """
        words = [form.format(names[n], _typed(v)) for n, v in self.values().items()]
        others = ", ".join(f"{decay:g}" for decay in self.decays[1:])
        if others:
            where = "runs overfit and " if self.only_overfitted else ""
            words.append(f"(then {others}, while {where}held-out rows gain)")
        if self.total_steps is not None:
            words.append(f"(each run; {self.total_steps:,} steps of all runs)")
        return f"settings: {' '.join(words)}"


class Budget(NamedTuple):
    """What a fit may take: a time, or so many steps of all runs, or what suits the rows."""

    seconds: float | None = None
    steps: int | None = None


_SUITED = Budget()


def left_for_training(budget: Budget, left: float, words: str) -> list[str]:
    """A line where a start took more than half of a time, of which `left` seconds are."""
    if budget.seconds is None or left >= budget.seconds / 2:
        return []
    return [
        f"Of {words} the start left {max(left, 0):.0f} s for training: give more time, or"
        " steps, to train further."
    ]


DECIDED = (
    *("num_blocks", "num_components", "hidden", "num_steps", "batch_size"),
    *("eval_every", "patience", "jitter", "ema_decay", "weight_decay"),
)


def settings_for(
    num_rows: int,
    num_columns: int,
    *,
    asked: Mapping[str, Any],
    budget: Budget = _SUITED,
) -> Settings:
    """The settings for a table.

    Args:
      num_rows: that are fitted.
      num_columns: as they are encoded.
      asked: what is not decided here, by the names of `Architecture` and `TrainConfig`.
      budget: of a time also the steps that it allows, once they are known.
    """
    if any(budget) and "num_steps" in asked:
        raise ValueError("`budget` must be None where `num_steps` is given.")
    size = next(size for size in _SIZES if num_rows < size.below)
    seconds, total = budget
    long = (total or 0) >= _LONG if seconds is None else seconds >= _MANY_SECONDS
    large = num_rows >= _MANY_ROWS and long
    scarce = num_rows < _ROWS_A_COLUMN * num_columns
    chosen: dict[str, Any] = {
        "num_blocks": 1 if scarce and num_rows < FEW_ROWS else size.num_blocks,
        "num_components": min(max(num_rows // _ROWS_A_COMPONENT, 1), _COMPONENTS),
        "hidden": size.hidden,
        "batch_size": _LARGE_BATCH if large else 512,
    } | dict(asked)
    least = size.num_steps
    if not any(budget):
        most = max(_MOST_STEPS, least)
        steps = min(max(round(10 * math.sqrt(num_rows)), least), most)
    else:
        epochs = _EPOCHS if num_rows < _MANY_FOR_EPOCHS else _EPOCHS_OF_MANY
        most = max(epochs * num_rows // chosen["batch_size"], least)
        steps = most if total is None else min(total, most)
    steps = chosen.setdefault("num_steps", steps)
    # Where time is short nothing compiles anew: a dispatch has the length that was timed.
    short = seconds is not None and total == steps
    shortest = _DISPATCH if short else min(steps // 20, _DISPATCH)
    every = min(max(steps // EVALUATIONS, shortest, 1), steps)
    every = chosen.setdefault("eval_every", every)
    weak = num_rows >= _MANY_ROWS and steps >= _LONG
    decays = (_WEAK, *size.decays) if weak else size.decays
    # Steps that were asked for are all taken.
    patience = 0 if "num_steps" in asked else max(round(_PATIENCE * steps / every), 2)
    own = {
        "weight_decay": decays[0],
        "patience": patience,
        "ema_decay": min(max(1 - 10 / steps, 0.9), 0.999),
    } | chosen
    flow = {
        f.name: own.pop(f.name)
        for f in dataclasses.fields(Architecture)
        if f.name in own
    }
    flow["num_components"] = max(1, min(flow["num_components"], num_rows // 4))
    if (clusters := flow.get("clusters") or 0) >= num_rows:
        raise ValueError(
            f"`clusters` must be fewer than the {num_rows} rows that are fitted; got"
            f" {clusters}."
        )
    flow["hidden"] = tuple(flow["hidden"])
    alone = "weight_decay" in asked or steps < WORTH
    return Settings(
        architecture=Architecture(**flow),
        train=TrainConfig(**own),
        decays=(own["weight_decay"],) if alone else decays,
        total_steps=total,
        only_overfitted=num_rows >= FEW_ROWS,
    )


def budget_of(budget: str | float | None) -> Budget:
    """A budget as it is typed: 90, "90s", "7m", "1.5h", "1h30m", or "3000 steps".

    Raises:
      ValueError: another form, or nothing at all.
    """
    if budget is None:
        return Budget()
    text = str(budget).strip().lower()
    steps = re.fullmatch(r"(\d+) ?steps?", text)
    if steps and int(steps[1]):
        return Budget(steps=int(steps[1]))
    form = r"(?=.)(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?"
    found = re.fullmatch(form, text)
    try:
        hours, minutes, seconds = (float(part or 0) for part in found.groups())
    except (AttributeError, ValueError):
        hours = minutes = seconds = 0.0
    total = 3_600 * hours + 60 * minutes + seconds
    if not total > 0:
        raise ValueError(
            "`budget` must be a time, as 90s, 7m or 1h30m, or steps of all runs, as"
            f" '3000 steps'; got {budget!r}."
        )
    return Budget(seconds=total)


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
