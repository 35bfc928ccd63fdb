"""The loop around the steps: evaluations, checkpoints, and the reasons to stop."""

import contextlib
import dataclasses
import os
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.checkpoint import CheckpointWriter
from trainers.config import TrainConfig
from trainers.history import History
from trainers.program import Program
from trainers.progress import ProgressBar
from trainers.writers import JsonlWriter, MultiWriter

_TITLES = {"valid": "held-out"}  # on the progress bar

# (step, model) -> None, called at every evaluation with the averaged model
Callback = Callable[[int, nnx.Module], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run gives back.

    Attributes:
      model: with the best parameters by validation, or the last without validation.
      history: arrays over the evaluations: `step`; `train`, `valid` and one for each
        name of `monitor`, minus the mean loss (for the default loss mean log p in
        nats); `loss`, its mean over the training steps since the evaluation before;
        `grad_norm`, likewise; `bad_steps`, skipped so far; `seconds` of training.
      best_step: of `model`.
      stop_reason: "completed", "early stop" or "non-finite".
      bad_steps: skipped because the loss or a gradient was not finite.
      compile_seconds: spent on compilation, before the first step.
      train_seconds: spent after it, evaluations included.
    """

    model: nnx.Module
    history: dict[str, np.ndarray]
    best_step: int
    stop_reason: str
    bad_steps: int
    compile_seconds: float
    train_seconds: float


class Loop:
    """One run of a program.

    Args:
      program: what happens on the device.
      config: settings.
      validated: whether the program scores a set named "valid".
    """

    def __init__(self, program: Program, config: TrainConfig, *, validated: bool):
        self._program, self._config = program, config
        self._history = History(validated=validated)

    def train(
        self,
        *,
        workdir: str | os.PathLike | None,
        writer: Any,
        callback: Callback | None,
    ) -> FitResult:
        """Steps, evaluations and checkpoints until one of the three reasons to stop."""
        program, config, history = self._program, self._config, self._history
        started = time.perf_counter()
        step, stop_reason, best, next_write = 0, None, None, config.checkpoint_every
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(ProgressBar(config.num_steps))
            checkpoints = workdir and stack.enter_context(CheckpointWriter(workdir))
            if jax.process_index() > 0:
                writer = None  # one process writes; all measure the same
            elif workdir:
                lines = JsonlWriter(pathlib.Path(workdir) / "metrics.jsonl")
                stack.enter_context(lines)
                writer = lines if writer is None else MultiWriter([lines, writer])
            measured: dict[str, float] = {}
            while True:
                scores = program.scores()
                history.add(
                    step=step,
                    scores=scores,
                    measured=measured,
                    bad_steps=int(program.state.bad_steps),
                    seconds=time.perf_counter() - started,
                )
                if history.best_step == step:
                    best = program.snapshot()
                bar.update(step, **{_TITLES.get(k, k): v for k, v in scores.items()})
                if writer is not None:
                    writer.write_scalars(step, history.last())
                if callback is not None:
                    callback(step, program.model(program.snapshot()))
                stop_reason = stop_reason or self._reason_to_stop(step)
                if checkpoints and (stop_reason or step >= next_write):
                    self._write(checkpoints, step, best)
                    next_write = step + config.checkpoint_every
                if stop_reason:
                    break
                step, measured, blocked = self._advance(step, bar)
                if blocked:
                    stop_reason = "non-finite"
            if writer is not None:
                writer.flush()
        if stop_reason == "non-finite":
            warnings.warn(
                f"training stopped at step {step}: the loss or its gradient was not"
                f" finite for {config.max_bad_steps} steps in a row. The result holds"
                " the last good parameters; lower `learning_rate` or look at the data.",
                RuntimeWarning,
                stacklevel=4,
            )
        return FitResult(
            model=program.model(best),
            history=history.arrays(),
            best_step=history.best_step,
            stop_reason=stop_reason,
            bad_steps=int(program.state.bad_steps),
            compile_seconds=program.compile_seconds,
            train_seconds=time.perf_counter() - started,
        )

    def _advance(self, step, bar):
        """Trains to the next evaluation, waiting only for the dispatch before."""
        config = self._config
        end = min(step + config.eval_every, config.num_steps)
        total = previous = None
        blocked = False
        while step < end and not blocked:
            count = min(self._program.steps_per_dispatch, end - step)
            launched = self._program.advance(step, count)
            step += count
            total = launched[0] if total is None else total.merge(launched[0])
            if previous is not None:
                blocked = self._is_blocked(previous, step - count, bar)
            previous = launched
        blocked = self._is_blocked(previous, step, bar) or blocked
        means = {name: float(value) for name, value in total.compute().items()}
        return step, means, blocked

    def _is_blocked(self, launched, step, bar) -> bool:
        metrics, streak = launched
        bar.update(step, loss=float(metrics.loss.compute()))
        return int(streak) >= self._config.max_bad_steps

    def _reason_to_stop(self, step: int) -> str | None:
        if step >= self._config.num_steps:
            return "completed"
        patience = self._config.patience
        if patience and self._history.evaluations_since_best() >= patience:
            return "early stop"
        return None

    def _write(self, checkpoints, step, best):
        for at, snapshot in (
            (self._history.best_step, best),
            (step, self._program.snapshot()),
        ):
            if at > checkpoints.latest_step:
                score = self._history.score_at(at)
                checkpoints.write(at, self._program.model(snapshot), score=score)
