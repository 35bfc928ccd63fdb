"""Training: `fit` for a call, `Trainer` to keep the settings for several."""

import contextlib
import dataclasses
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trainers import data, sharding
from trainers.checkpoint import CheckpointWriter
from trainers.compilation import compiled
from trainers.config import TrainConfig
from trainers.evaluation import Evaluation
from trainers.progress import ProgressBar
from trainers.step import (
    LossFn,
    init_state,
    make_optimizer,
    make_train_steps,
    negative_log_prob,
)
from trainers.writers import JsonlWriter, MultiWriter

_EVAL_KEY = 2**31 - 1  # folded into the seed's key: no step uses it

_DEFAULTS = TrainConfig()
_LOOP_SETTINGS = (  # of the loop, or arguments of the step: not compiled into it
    "batch_size",
    "jitter",
    "eval_every",
    "eval_rows",
    "patience",
    "max_bad_steps",
    "steps_per_dispatch",
    "checkpoint_every",
    "seed",
)
_TITLES = {"valid": "held-out"}  # on the progress bar
_ARGUMENTS = {"train": "x_train", "valid": "x_valid"}

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


def fit(
    flow: nnx.Module,
    x_train: data.Rows,
    x_valid: data.Rows | None = None,
    *,
    context: Any = None,
    context_valid: Any = None,
    monitor: Mapping[str, data.Rows] | None = None,
    config: TrainConfig | None = None,
    mesh: jax.sharding.Mesh | None = None,
    workdir: str | os.PathLike | None = None,
    loss_fn: LossFn | None = None,
    trainable: Any = nnx.Param,
    writer: Any = None,
    callback: Callback | None = None,
) -> FitResult:
    """Trains a copy of `flow`, by default for the largest mean log p.

    Args:
      flow: a flow, or any NNX module that `loss_fn` understands; unchanged.
      x_train: [n, d]; with a `loss_fn` also a tuple or dict of arrays with n rows.
      x_valid: chooses the best parameters and stops early; as `x_train`. Without it
        the last parameters are returned.
      context: [n, c] for a conditional flow; the batches are then (x, context).
      context_valid: the same for `x_valid`.
      monitor: more rows to score at each evaluation, by name; they decide nothing.
        With a context they are pairs (x, context).
      config: settings.
      mesh: devices with an axis "data" to spread each batch over; None is one device.
      workdir: folder for `metrics.jsonl` and checkpoints of the best and the last model.
      loss_fn: (model, batch, key) -> loss, a mean or one for each row.
      trainable: NNX filter of the variables that train.
      writer: object with clu's `write_scalars(step, scalars)` and `flush()`.
      callback: called with (step, model) at each evaluation.
    """
    trainer = Trainer(
        config=config or TrainConfig(),
        mesh=mesh,
        workdir=workdir,
        loss_fn=loss_fn,
        trainable=trainable,
        writer=writer,
    )
    return trainer.fit(
        flow,
        x_train,
        x_valid,
        context=context,
        context_valid=context_valid,
        monitor=monitor,
        callback=callback,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """The settings of `fit`, to train several models alike.

    Models of one structure share their compiled steps.
    """

    config: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    mesh: jax.sharding.Mesh | None = None
    workdir: str | os.PathLike | None = None
    loss_fn: LossFn | None = None
    trainable: Any = nnx.Param
    writer: Any = None

    def fit(
        self,
        model: nnx.Module,
        x_train: data.Rows,
        x_valid: data.Rows | None = None,
        *,
        context: Any = None,
        context_valid: Any = None,
        monitor: Mapping[str, data.Rows] | None = None,
        callback: Callback | None = None,
    ) -> FitResult:
        """Trains a copy of `model`; the arguments are those of `trainers.fit`."""
        config = self.config
        train = data.with_context(data.as_rows(x_train), context)
        sets = {"train": _subset(train, config.eval_rows, config.seed)}
        if x_valid is not None:
            sets["valid"] = data.with_context(
                data.as_rows(x_valid, name="x_valid"),
                context_valid,
                name="context_valid",
            )
        for name, rows in (monitor or {}).items():
            sets[name] = data.as_rows(rows, name=f"monitor[{name!r}]")
        _check_alike(train, sets)
        if self.loss_fn is None:
            _check_flow(model, train)
        batch_size = min(config.batch_size, data.num_rows(train))
        mesh = sharding.prepare_mesh(self.mesh, batch_size)
        run = _Run(
            model,
            train,
            sets,
            config=config,
            batch_size=batch_size,
            mesh=mesh,
            loss_fn=self.loss_fn or negative_log_prob,
            trainable=self.trainable,
        )
        return run.train(workdir=self.workdir, writer=self.writer, callback=callback)


class _Run:
    """One run: its state and rows on the device, its compiled steps, its loop."""

    def __init__(
        self, model, train, sets, *, config, batch_size, mesh, loss_fn, trainable
    ):
        self._config, self._mesh = config, mesh
        self._graphdef, params, rest = nnx.split(model, trainable, ...)
        if not jax.tree.leaves(params):
            raise ValueError(
                "`model` must have parameters to train; got none that match"
                f" {trainable!r}. Hold arrays in nnx.Param and submodules in nnx.List;"
                " a Distrax object stored in a module hides its parameters."
            )
        optimizer = make_optimizer(config)
        everywhere = sharding.replicated(mesh)
        self._state = sharding.place(
            init_state(
                nnx.to_pure_dict(params),
                nnx.to_pure_dict(rest),
                optimizer,
                seed=config.seed,
            ),
            everywhere,
        )
        self._rows = sharding.place(train, everywhere)
        self._scales = sharding.place(
            data.noise_scales(train, config.jitter), everywhere
        )
        self._order = data.EpochOrder(
            data.num_rows(train), batch_size, seed=config.seed
        )
        self._dispatch = min(
            config.steps_per_dispatch, config.eval_every, config.num_steps
        )
        started = time.perf_counter()
        self._train_steps = _compile_train_steps(
            model,
            (self._state, self._rows, self._scales, *self._batches(0, 1)),
            config=config,
            optimizer=optimizer,
            loss_fn=loss_fn,
            trainable=trainable,
            mesh=mesh,
        )
        self._evaluation = Evaluation(
            model,
            sets,
            params=self._state.ema,
            rest=self._state.rest,
            loss_fn=loss_fn,
            trainable=trainable,
            key=jax.random.fold_in(jax.random.key(config.seed), _EVAL_KEY),
            mesh=mesh,
        )
        self._history = _History(validated="valid" in sets)
        self._compile_seconds = time.perf_counter() - started

    def train(self, *, workdir, writer, callback) -> FitResult:
        """Steps, evaluations and checkpoints until one of the three reasons to stop."""
        config, history = self._config, self._history
        started = time.perf_counter()
        step, stop_reason, best, next_write = 0, None, None, config.checkpoint_every
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(ProgressBar(config.num_steps))
            checkpoints = workdir and stack.enter_context(CheckpointWriter(workdir))
            if workdir:
                lines = JsonlWriter(pathlib.Path(workdir) / "metrics.jsonl")
                stack.enter_context(lines)
                writer = lines if writer is None else MultiWriter([lines, writer])
            measured: dict[str, float] = {}
            while True:
                scores = self._evaluation.scores(self._state.ema, self._state.rest)
                history.add(
                    step=step,
                    scores=scores,
                    measured=measured,
                    bad_steps=int(self._state.bad_steps),
                    seconds=time.perf_counter() - started,
                )
                if history.best_step == step:
                    best = self._snapshot()
                bar.update(step, **{_TITLES.get(k, k): v for k, v in scores.items()})
                if writer is not None:
                    writer.write_scalars(step, history.last())
                if callback is not None:
                    callback(step, self._model(self._snapshot()))
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
            model=self._model(best),
            history=history.arrays(),
            best_step=history.best_step,
            stop_reason=stop_reason,
            bad_steps=int(self._state.bad_steps),
            compile_seconds=self._compile_seconds,
            train_seconds=time.perf_counter() - started,
        )

    def _advance(self, step, bar):
        """Trains to the next evaluation, waiting only for the dispatch before."""
        config = self._config
        end = min(step + config.eval_every, config.num_steps)
        total = previous = None
        blocked = False
        while step < end and not blocked:
            count = min(self._dispatch, end - step)
            self._state, *launched = self._train_steps(
                self._state, self._rows, self._scales, *self._batches(step, count)
            )
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

    def _batches(self, step: int, count: int):
        # Always the same number of lines: the compiled loop stops at `count`.
        indices = np.zeros((self._dispatch, self._order.batch_size), np.int32)
        indices[:count] = self._order.indices(step, count)
        placed = sharding.place(indices, sharding.over_rows(self._mesh, axis=1))
        count = sharding.place(np.int32(count), sharding.replicated(self._mesh))
        return placed, count

    def _reason_to_stop(self, step: int) -> str | None:
        if step >= self._config.num_steps:
            return "completed"
        patience = self._config.patience
        if patience and self._history.evaluations_since_best() >= patience:
            return "early stop"
        return None

    def _snapshot(self):
        # A copy, because the next step takes the memory of the state.
        return jax.tree.map(jnp.copy, (self._state.ema, self._state.rest))

    def _model(self, snapshot) -> nnx.Module:
        params, rest = snapshot
        return nnx.merge(self._graphdef, nnx.State(params), nnx.State(rest), copy=True)

    def _write(self, checkpoints, step, best):
        for at, snapshot in (
            (self._history.best_step, best),
            (step, self._snapshot()),
        ):
            if at > checkpoints.latest_step:
                score = self._history.score_at(at)
                checkpoints.write(at, self._model(snapshot), score=score)


class _History:
    """The evaluations of a run, and which was the best by validation."""

    def __init__(self, *, validated: bool):
        self._validated = validated
        self._records: list[dict[str, float]] = []
        self._best = 0

    def add(self, *, step, scores, measured, bad_steps, seconds):
        empty = {"loss": float("nan"), "grad_norm": float("nan")}
        valid = {} if self._validated else {"valid": float("nan")}
        self._records.append(
            {"step": step, **scores, **valid, **empty, **measured}
            | {"bad_steps": bad_steps, "seconds": seconds}
        )
        # Without validation there is no choice to make: the last is returned.
        if not self._validated or self._is_better(len(self._records) - 1):
            self._best = len(self._records) - 1

    @property
    def best_step(self) -> int:
        return self._records[self._best]["step"]

    def evaluations_since_best(self) -> int:
        return len(self._records) - 1 - self._best

    def score_at(self, step: int) -> float:
        name = "valid" if self._validated else "train"
        return next(r[name] for r in self._records if r["step"] == step)

    def last(self) -> dict[str, float]:
        """What the last evaluation measured, without gaps."""
        record = {k: v for k, v in self._records[-1].items() if k != "step"}
        return {k: v for k, v in record.items() if v == v}

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            name: np.array([record[name] for record in self._records])
            for name in self._records[0]
        }

    def _is_better(self, index: int) -> bool:
        new, best = self._records[index]["valid"], self._records[self._best]["valid"]
        return bool(np.isfinite(new)) and not new <= best


def _compile_train_steps(
    model, arguments, *, config, optimizer, loss_fn, trainable, mesh
):
    model = nnx.clone(model)
    model.train()
    graphdef, *_ = nnx.split(model, trainable, ...)
    function = make_train_steps(
        graphdef,
        loss_fn=loss_fn,
        optimizer=optimizer,
        trainable=trainable,
        ema_decay=config.ema_decay,
        row_sharding=sharding.over_rows(mesh),
    )
    loop_only = {name: getattr(_DEFAULTS, name) for name in _LOOP_SETTINGS}
    settings = dataclasses.replace(config, **loop_only)
    return compiled(
        function,
        arguments,
        identity=(graphdef, loss_fn, trainable, mesh, settings),
        donate=(0,),
        out_sharding=sharding.replicated(mesh),
    )


def _subset(rows: data.Rows, size: int, seed: int) -> data.Rows:
    n = data.num_rows(rows)
    if n <= size:
        return rows
    return data.take(rows, np.random.default_rng(seed).choice(n, size, replace=False))


def _check_alike(train: data.Rows, sets: Mapping[str, data.Rows]):
    """Raises unless every data set is built like the training rows."""
    for name, rows in sets.items():
        if _form(rows) != _form(train):
            raise ValueError(
                f"`{_ARGUMENTS.get(name, name)}` must have the columns of `x_train`,"
                f" {_form(train)[1]} with context where there is one; got"
                f" {_form(rows)[1]}."
            )


def _form(rows: data.Rows):
    leaves, structure = jax.tree.flatten(rows)
    return structure, [leaf.shape[1:] for leaf in leaves]


def _check_flow(model: nnx.Module, train: data.Rows):
    x, context = train if isinstance(train, tuple) else (train, None)
    width = getattr(model, "num_features", None)
    if width is not None and x.shape[-1] != width:
        raise ValueError(
            f"`x_train` must have the model's {width} features; got {x.shape[-1]}"
            " columns."
        )
    wanted = getattr(model, "context_features", None)
    given = 0 if context is None else context.shape[-1]
    if wanted is not None and wanted != given:
        raise ValueError(
            f"`context` must have the model's {wanted} context features; got"
            f" {given or 'no context'}. Build the flow with `context_features={given}`"
            " or change the call."
        )
