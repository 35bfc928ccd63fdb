"""Training with one decay after another, of which held-out rows choose.

The decay that suits a table is no function of its rows and columns: .01 for two million rows
of household power, 30 for twenty thousand rows of rotated sources. So a flow is trained with
the weakest; where that overfits it is trained again, from the same start and by the same
compiled program, with about ten times the decay, while the held-out rows gain. A large table
does not overfit, and its one run costs what it did.
"""

import dataclasses
import math
import os
import time
from typing import Any

import rbig_nnx
from trainers.checkpoints.run import set_aside
from trainers.config import TrainConfig
from trainers.estimators.encoded import EncodedTable
from trainers.estimators.fitting import train_flow
from trainers.estimators.settings import EVALUATIONS, WORTH, Settings
from trainers.paths import located
from trainers.run.loop import FitResult

RUNGS = "rungs"  # folder of the runs after the first
START = "the warm start"  # the first candidate
_FLAT = 1e-3  # nats that a run may lose towards its end without counting as overfitted
_TRIAL = 0.01  # of the seconds, in which steps are timed
_RESERVE = 0.05  # of them, for what the trial does not show


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that may be returned.

    Attributes:
      name: what it is.
      log_prob: mean over the encoded rows that choose; NaN without such rows.
      result: the run that it comes from, with its model.
    """

    name: str
    log_prob: float
    result: FitResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """Candidates, and the best of them.

    Attributes:
      candidates: that were compared on the same rows, at least one.
      interrupted: whether a signal ended the last run: the same call goes on from there.
    """

    candidates: tuple[Candidate, ...]
    interrupted: bool = False

    @property
    def best(self) -> Candidate:
        """By the rows that choose; of equal ones the first."""
        return max(self.candidates, key=lambda candidate: candidate.log_prob)

    @property
    def runs(self) -> list[FitResult]:
        """All that were made."""
        return [c.result for c in self.candidates if c.name != START]

    def told(self) -> str:
        """One line."""
        best = self.best
        others = [
            f"{c.name} {c.log_prob:.4f}"
            for c in self.candidates
            if c is not best and (c.name == START or c.result.best_step)
        ]
        over = f", over {', '.join(others)}" if others else ""
        log_prob = f"{best.log_prob:.4f} of encoded rows"
        alone = best.name == START and self.runs and not others
        none = "; no step of training was ahead of it" if alone else ""
        return f"Chosen by the rows held out: {best.name}, {log_prob}{over}{none}."


def train_rungs(
    flow: rbig_nnx.GaussianizationFlow,
    train: EncodedTable,
    valid: EncodedTable | None,
    settings: Settings,
    *,
    workdir: str | os.PathLike | None = None,
    resume: bool = True,
    **options: Any,
) -> Chosen:
    """Trains a warm-started flow with one decay after another while that helps.

    Args:
      flow: the start of every run, and a candidate itself.
      train: rows to fit.
      valid: rows that choose; without them there is one run.
      settings: of the runs.
      workdir: of the first run; the others lie in folders within.
      resume: as of `trainers.fit`.
      options: of `train_flow`.
    """
    folder = None if workdir is None else located(workdir)
    if folder is not None and not resume:
        set_aside(folder / RUNGS)
    candidates: list[Candidate] = []
    left = settings.total_steps or math.inf
    for number, decay in enumerate(settings.decays, 1):
        config = dataclasses.replace(
            settings.train,
            weight_decay=decay,
            num_steps=int(min(settings.train.num_steps, left)),
        )
        place = (
            folder if number == 1 or folder is None else folder / RUNGS / str(number)
        )
        result = train_flow(
            flow, train, valid, config, workdir=place, resume=resume, **options
        )
        score = _best_score(result)
        if number == 1 and valid is not None:
            candidates.append(_start(flow, result))
        gains = not candidates or score > max(c.log_prob for c in candidates)
        name = f"weight decay {decay:g}, step {result.best_step}"
        candidates.append(Candidate(name=name, log_prob=score, result=result))
        if result.stop_reason == "interrupted":
            return Chosen(candidates=tuple(candidates), interrupted=True)
        left -= int(result.history["step"][-1])
        fits = settings.only_overfitted and not _is_overfitted(result)
        if valid is None or fits or left < WORTH or (number > 1 and not gains):
            break
    return Chosen(candidates=tuple(candidates))


def steps_within(
    seconds: float,
    flow: rbig_nnx.GaussianizationFlow,
    train: EncodedTable,
    valid: EncodedTable | None,
    config: TrainConfig,
    **options: Any,
) -> int:
    """How many steps, with their evaluations, fit into what the first of them leave.

    Compilation counts, and need not be done again.

    Args:
      seconds: from now on.
      flow: as of `train_rungs`, and so are the others.
      train: likewise.
      valid: likewise.
      config: of the runs, but for their length.
      options: likewise.
    """
    began = time.perf_counter()
    count = min(config.steps_per_dispatch, config.eval_every)

    def timed(steps: int) -> tuple[float, float]:
        """Seconds of one step and of one evaluation, without compilation."""
        short = dataclasses.replace(config, num_steps=2 * steps, eval_every=steps)
        taken = train_flow(flow, train, valid, short, **options).history["seconds"]
        scoring, _, _ = taken
        return max(taken[-1] - taken[-2] - scoring, 0.1 * scoring) / steps, scoring

    a_step, scoring = timed(count)
    # A moment may be twice as fast as the next minutes.
    longer = int(_TRIAL * seconds / (2 * a_step)) // count
    if longer > 1:
        a_step, scoring = timed(longer * count)
    left = (1 - _RESERVE) * (seconds - (time.perf_counter() - began))
    return max(int((left - EVALUATIONS * scoring) / a_step), 2 * count)


def _start(flow: rbig_nnx.GaussianizationFlow, result: FitResult) -> Candidate:
    """The flow before training, which a run scores first."""
    first = dataclasses.replace(result, model=flow, best_step=0)
    log_prob = float(result.history["valid"][0])
    return Candidate(name=START, log_prob=log_prob, result=first)


def _best_score(result: FitResult) -> float:
    steps = result.history["step"].tolist()
    return float(result.history["valid"][steps.index(result.best_step)])


def _is_overfitted(result: FitResult) -> bool:
    """Whether the rows that choose turned well before the end."""
    end = float(result.history["valid"][-1])
    return result.stop_reason == "early stop" or _best_score(result) - end > _FLAT
