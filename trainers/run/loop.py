"""The loop around the steps: evaluations, checkpoints, and the reasons to stop."""

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.checkpoints.run import RunCheckpoints
from trainers.config import TrainConfig
from trainers.paths import located
from trainers.placement import sharding
from trainers.run.history import History
from trainers.run.interrupt import Interrupt
from trainers.run.metrics import Averages, TrainMetrics
from trainers.run.program import Program
from trainers.run.progress import Progress
from trainers.run.writers import JsonlWriter, MultiWriter
from trainers.tables.checks import InputError

# (step, model) -> None, called at every evaluation with the averaged model
Callback = Callable[[int, nnx.Module], None]
_FAR = 50.0  # nats below Gaussians, from which a model was never fitted to its rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run gives back.

    Attributes:
      model: with the best parameters by validation, or the last without validation.
      history: arrays over the evaluations: `step`; `train`, `valid` and one for each
        name of `monitor`, minus the mean loss (for the default loss mean log p in
        nats); `loss`, its mean over the training steps since the evaluation before;
        `grad_norm`, likewise; `bad_steps`, skipped so far; `seconds` of training. Values
        of the loss function are means like `loss`, each under its name; `metrics` are
        columns like `valid/NAME`.
      best_step: of `model`.
      stop_reason: "completed", "early stop", "non-finite", or "interrupted" by SIGTERM or
        Ctrl-C: the same call with the same `workdir` goes on.
      bad_steps: skipped because the loss or a gradient was not finite.
      compile_seconds: spent on compilation, before the first step.
      train_seconds: spent after it, evaluations included, over all starts of the run.

    Example:
      >>> import jax
      >>> import rbig_nnx as rn
      >>> from flax import nnx
      >>> from trainers import TrainConfig, fit
      >>> x = jax.random.normal(jax.random.key(0), (64, 2))
      >>> flow = rn.diagonal_flow(2, 1, num_components=2, rngs=nnx.Rngs(0))
      >>> config = TrainConfig(num_steps=2, eval_every=1)
      >>> result = fit(flow, x, config=config, progress=False)
      >>> print(result.stop_reason, result.best_step, result.history["step"].tolist())
      completed 2 [0, 1, 2]
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
      source: of the data, where that is more than a function of the step: an object with
        `get_state()`, JSON, and `set_state(state)`.
    """

    def __init__(
        self,
        program: Program,
        config: TrainConfig,
        *,
        validated: bool,
        source: Any = None,
    ):
        self._program, self._config, self._source = program, config, source
        self._validated = validated
        self._history = History(validated=validated)
        self._started = time.perf_counter()
        self._step, self._stop_reason = 0, None
        self._best = program.snapshot()
        self._measured = self._nothing()  # since the last evaluation
        self._streak = np.int32(0)  # of the last dispatch, not looked at yet

    def train(
        self,
        *,
        workdir: str | os.PathLike | None,
        checkpoints: RunCheckpoints | None = None,
        writer: Any,
        callback: Callback | None,
        progress: Progress,
    ) -> FitResult:
        """Steps, evaluations and checkpoints until there is a reason to stop.

        Args:
          workdir: folder for `metrics.jsonl`, or None.
          checkpoints: of this run, or None. The newest of them is where it goes on.
          writer: gets what each evaluation measured.
          callback: called at each evaluation.
          progress: is told of steps and evaluations.

        Raises:
          InputError: a score that decides is NaN, or none of them is finite.
        """
        with contextlib.ExitStack() as stack:
            interrupt = None
            if checkpoints:
                stack.enter_context(checkpoints)
                self._resume(checkpoints)
                interrupt = stack.enter_context(Interrupt())
            if jax.process_index() > 0:
                writer = None  # one process writes; all measure the same
            elif workdir:
                path = located(workdir) / "metrics.jsonl"
                # What comes after this step is measured again, and written the same.
                lines = JsonlWriter(path, up_to=self._history.last_step)
                stack.enter_context(lines)
                writer = lines if writer is None else MultiWriter([lines, writer])
            steps = self._config.num_steps
            progress.phase("training", total=steps, done=self._step)
            while True:
                if self._is_evaluation_due():
                    scores, metrics = self._scores(checkpoints, writer)
                    self._evaluate(scores, metrics, progress, writer, callback)
                interrupted = interrupt and interrupt.requested()
                if checkpoints:
                    now = self._stop_reason or interrupted
                    self._save(checkpoints, now=now, writer=writer)
                if self._stop_reason or interrupted:
                    break
                self._dispatch()
                progress.advance(self._step)
            if writer is not None:
                writer.flush()
        return self._result()

    def _is_evaluation_due(self) -> bool:
        if self._history.last_step == self._step:
            return False
        if self._stop_reason or self._step >= self._config.num_steps:
            return True
        return self._step % self._config.eval_every == 0

    def _dispatch(self):
        """Launches steps up to the next evaluation, and waits for the launch before."""
        every, start = self._config.eval_every, self._step
        end = min((start // every + 1) * every, self._config.num_steps)
        count = min(self._program.steps_per_dispatch, end - start)
        metrics, streak = self._program.advance(start, count)
        self._step += count
        self._measured = self._measured.merge(metrics)
        before, self._streak = self._streak, streak
        self._look_at(before)

    def _look_at(self, streak):
        if int(streak) >= self._config.max_bad_steps:
            self._stop_reason = "non-finite"

    def _scores(self, checkpoints, writer) -> tuple[dict[str, float], dict[str, float]]:
        """Of the program; raises where one that decides is NaN."""
        self._look_at(self._streak)
        scores, metrics = self._program.scores()
        # Where the steps themselves fail, that is the news, and the best model comes back.
        if self._stop_reason != "non-finite":
            told = self._about_scores(scores)
            if told is not None:
                if checkpoints and self._history.records:
                    self._save(
                        checkpoints, now=True, writer=writer
                    )  # the best model so far
                    told += " The best model until then is in the checkpoints."
                raise InputError(told)
        return scores, metrics

    def _about_scores(self, scores) -> str | None:
        """What is wrong with scores that cannot stand; others are warned of."""
        first = not self._history.records
        if first:
            self._warn_of_start(scores["train"])
        for name, score in scores.items():
            if name == "train" or not (np.isnan(score) or (first and score == -np.inf)):
                continue
            told = self._about_score(name, score)
            if np.isnan(score) and (first or name == "valid"):
                return told
            if first or not np.isnan(self._history.records[-1][name]):
                warnings.warn(told, RuntimeWarning, stacklevel=6)
        return None

    def _warn_of_start(self, score: float):
        """Says so where the model has not been fitted to such rows at all."""
        plain = self._program.plain_score
        if plain is not None and score < plain - _FAR:
            warnings.warn(
                f"`x_train` lies far from the model: at step 0 mean log p is {score:.4g},"
                f" where a Gaussian for each column has {plain:.4g}. Fit the flow to the"
                " rows first, with rbig_nnx.warm_start(model, x_train), or standardise"
                " them; a fitted Standardize is the first layer of what is warm-started.",
                UserWarning,
                stacklevel=7,
            )

    def _about_score(self, name: str, score: float) -> str:
        argument = "x_valid" if name == "valid" else f"monitor[{name!r}]"
        row = self._program.first_bad(name)
        where = "" if row is None else f", and row {row} (from 0) is the first such"
        return (
            f"`{argument}` must have a finite score (mean log p, or minus the mean loss);"
            f" at step {self._step} it is {score}{where}. Leave out what is extreme there;"
            " if it is like the others, lower the learning rate."
        )

    def _evaluate(self, scores, metrics, progress, writer, callback):
        program, history, step = self._program, self._history, self._step
        means = dict.fromkeys(program.values, np.nan)
        if step:
            means = self._measured.compute()
            means |= means.pop("values")
        self._streak, self._measured = np.int32(0), self._nothing()
        history.add(
            step=step,
            scores=scores,
            measured={name: float(value) for name, value in means.items()} | metrics,
            bad_steps=int(program.state.bad_steps),
            seconds=self._seconds(),
        )
        if history.best_step == step:
            self._best = program.snapshot()
        progress.evaluated(step, scores, best=history.best_score)
        if writer is not None:
            writer.write_scalars(step, history.last())
        if callback is not None:
            callback(step, program.model(program.snapshot()))
        self._stop_reason = self._stop_reason or self._reason_to_stop()

    def _reason_to_stop(self) -> str | None:
        if self._step >= self._config.num_steps:
            return "completed"
        patience = self._config.patience
        if patience and self._history.evaluations_since_best() >= patience:
            return "early stop"
        return None

    def _nothing(self) -> TrainMetrics:
        """No steps; on the host, so that it adds to what any devices measured."""
        values = Averages.empty(self._program.values)
        none = dataclasses.replace(TrainMetrics.empty(), values=values)
        return jax.tree.map(np.asarray, none)

    def _tree(self) -> dict[str, Any]:
        """The arrays of a checkpoint."""
        return {
            "state": self._program.state,
            "best": self._best,
            "measured": jax.tree.map(np.asarray, self._measured),
            "streak": np.asarray(self._streak),
        }

    def _save(self, checkpoints, *, now, writer):
        every, latest = self._config.checkpoint_every, checkpoints.latest_step
        due = now or self._step // every > max(latest, 0) // every
        if not due or self._step == latest:
            return
        about = {
            "history": self._history.records,
            "seconds": self._seconds(),
            "stop_reason": self._stop_reason,
            "source": self._source and self._source.get_state(),
        }
        checkpoints.check_alone()
        if writer is not None:
            writer.flush()  # what was measured before is not measured again
        checkpoints.write(self._step, self._tree(), about)

    def _resume(self, checkpoints):
        saved = checkpoints.newest(self._tree())
        if saved is None:
            return
        tree, about = saved.tree, saved.about
        self._program.restore(tree["state"])
        self._best = sharding.place_like(tree["best"], self._best)
        self._measured, self._streak = tree["measured"], tree["streak"]
        self._step, self._stop_reason = saved.step, about["stop_reason"]
        self._history = History(validated=self._validated, records=about["history"])
        self._started -= about["seconds"]
        if self._source is not None:
            self._source.set_state(about["source"])

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _result(self) -> FitResult:
        program = self._program
        best = self._history.best_score
        if self._stop_reason in ("completed", "early stop") and best == -np.inf:
            raise InputError(self._about_score("valid", -np.inf))
        if self._stop_reason == "non-finite":
            warnings.warn(
                f"training stopped at step {self._step}: the loss or its gradient was not"
                f" finite for {self._config.max_bad_steps} steps in a row. The result"
                " holds the last good parameters; lower the learning rate or look at the"
                f" data.{self._program.noise_note}",
                RuntimeWarning,
                stacklevel=5,
            )
        return FitResult(
            model=program.model(self._best),
            history=self._history.arrays(),
            best_step=self._history.best_step,
            stop_reason=self._stop_reason or "interrupted",
            bad_steps=int(program.state.bad_steps),
            compile_seconds=program.compile_seconds,
            train_seconds=self._seconds(),
        )
