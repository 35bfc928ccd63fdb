"""Training: `fit` for a call, `Trainer` to keep the settings for several."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
from clu import metrics as clu_metrics
from flax import nnx

from rbig_nnx.nn.base.meshes import set_aside
from trainers.checkpoints.identity import file_digest, fingerprint
from trainers.checkpoints.run import RunCheckpoints
from trainers.config import TrainConfig
from trainers.placement import sharding
from trainers.placement.lock import alone_in
from trainers.placement.names import Patterns
from trainers.placement.strategy import make_strategy
from trainers.rows import memory
from trainers.rows.feed import ResidentFeed, StreamFeed
from trainers.rows.files import RowFiles
from trainers.rows.resident import ResidentRows
from trainers.rows.sets import DataSets, check_arguments, check_flow, data_sets
from trainers.rows.weights import rescaled
from trainers.run.history import check_monitor
from trainers.run.loop import Callback, FitResult, Loop
from trainers.run.metrics import as_metrics
from trainers.run.optimizer import Optimizer, own_optimizer
from trainers.run.program import Program
from trainers.run.progress import Progress, as_progress
from trainers.run.step import LossFn, WeightedLoss, negative_log_prob

# Of clu: a collection, or metrics by name.
Metrics = type[clu_metrics.Collection] | Mapping[str, type[clu_metrics.Metric]]


def fit(
    flow: nnx.Module,
    x_train: memory.Rows,
    x_valid: memory.Rows | None = None,
    *,
    context: Any = None,
    context_valid: Any = None,
    weights: Any = None,
    weights_valid: Any = None,
    monitor: Mapping[str, memory.Rows] | None = None,
    config: TrainConfig | None = None,
    mesh: jax.sharding.Mesh | None = None,
    data_axis: sharding.Axes | None = None,
    partition: Patterns | str = (),
    strategy: str = "jit",
    workdir: str | os.PathLike | None = None,
    resume: bool = True,
    identity: Mapping[str, Any] | None = None,
    loss_fn: LossFn | None = None,
    optimizer: Optimizer | None = None,
    metrics: Metrics | None = None,
    trainable: Any = nnx.Param,
    writer: Any = None,
    callback: Callback | None = None,
    progress: bool | Progress = True,
) -> FitResult:
    """Trains a copy of `flow`, by default for the largest mean log p.

    Args:
      flow: a flow, or any NNX module that `loss_fn` understands; unchanged.
      x_train: [n, d]; with a `loss_fn` also a tuple or dict of arrays with n rows. Or
        what stays outside of memory: .npy or .parquet files by path, by a pattern or
        as `trainers.RowFiles`, here or in a bucket; a memory map of one; or batches
        from an iterator with `get_state` and `set_state`, or a data set of Grain's.
      x_valid: chooses the best parameters and stops early; as `x_train`, but held in
        memory. Without it the last parameters are returned.
      context: [n, c] for a conditional flow; the batches are then (x, context).
      context_valid: the same for `x_valid`.
      weights: of the rows of `x_train`, nonnegative, any sequence of n numbers. They are
        scaled to mean 1 over the data set; the loss of a batch is the mean of weight times
        loss, whose expectation is the weighted mean over the data set, and the score on
        "train" is a weighted mean too. Rows of weight 0 are left out.
      weights_valid: the same for `x_valid`, whose score is then the weighted mean; None
        for equal ones. The rows of `monitor` count equally.
      monitor: more rows to score at each evaluation, by name; they decide nothing.
        With a context they are pairs (x, context).
      config: settings.
      mesh: devices to spread rows and batches over, along `data_axis`; None is one device.
        Its axes may be explicit, and it may be set by `jax.set_mesh`: the model that comes
        back lies on it; within, as `loss_fn` sees them, the axes are automatic.
        With several processes each passes its own rows; the data set is theirs together.
      data_axis: the mesh's axis that rows are spread over, or several, such as
        `("replica", "fsdp")`; None for "data".
      partition: variables to spread over further axes of the mesh, pairs of a pattern of
        dotted names and an axis for each of the array's: `(("*.kernel", (None, "model")),)`.
        Other variables follow their metadata (`out_sharding`), or lie on every device.
        One axis, `partition="data"`, spreads every large variable and its moments over it.
      strategy: "jit", or "pmap" for code that lives on copies of the state: same losses.
      workdir: folder for `metrics.jsonl` and checkpoints, also in a bucket. The same call
        again goes on where it was, to the same bits; a finished run gives its result back.
        SIGTERM and Ctrl-C save and end the run as "interrupted". A call with other rows,
        weights, settings or first parameters is another run, and is refused before any work.
      resume: False starts anew; earlier checkpoints move to `checkpoints.previous`.
      identity: what else must be the same for a run to go on, by name, as JSON: what the
        caller decided before, such as the options of its warm start.
      loss_fn: (model, batch, key) -> loss, a mean or one for each row; or (loss, values)
        with a dictionary of numbers, each of which becomes a column of the history, its
        mean over the steps. In training `config.jitter` blurs x, or the first array of a
        tuple, if it is of floats: set it to 0 where those are counts.
      optimizer: of Optax, in place of clipping, Adam, decay and schedule of `config`,
        whose settings must then have their defaults. A step is one call of its `update`.
      metrics: more to compute of every set at each evaluation, the columns "SET/METRIC": a
        collection of clu, or a dictionary of its metrics. They can be made from `loss` of
        each row (times its weight), `model`, `batch`, `weights` and `mask`.
      trainable: NNX filter of the variables that train.
      writer: object with clu's `write_scalars(step, scalars)` and `flush()`.
      callback: called with (step, model) at each evaluation.
      progress: a line that changes on standard error if that is a terminal, else a line
        for each phase and, once a minute, for an evaluation; False shows nothing. Or the
        display of a larger job, from `trainers.run.progress.show_progress`.

    Raises:
      ValueError: arguments that cannot be used; columns that float32 holds too coarsely to
        be told apart; a score on `x_valid` that is NaN, or never finite.
      CheckpointError: `workdir` holds another run, or none of its checkpoints is whole.
      InUseError: another process trains in `workdir`; in a bucket, has taken it over.
    """
    trainer = Trainer(
        config=TrainConfig() if config is None else config,
        mesh=mesh,
        data_axis=data_axis,
        partition=partition,
        strategy=strategy,
        workdir=workdir,
        resume=resume,
        identity=identity,
        loss_fn=loss_fn,
        optimizer=optimizer,
        metrics=metrics,
        trainable=trainable,
        writer=writer,
        progress=progress,
    )
    return trainer.fit(
        flow,
        x_train,
        x_valid,
        context=context,
        context_valid=context_valid,
        weights=weights,
        weights_valid=weights_valid,
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
    data_axis: sharding.Axes | None = None
    partition: Patterns | str = ()
    strategy: str = "jit"
    workdir: str | os.PathLike | None = None
    resume: bool = True
    identity: Mapping[str, Any] | None = None
    loss_fn: LossFn | None = None
    optimizer: Optimizer | None = None
    metrics: Metrics | None = None
    trainable: Any = nnx.Param
    writer: Any = None
    progress: bool | Progress = True

    def fit(
        self,
        model: nnx.Module,
        x_train: memory.Rows,
        x_valid: memory.Rows | None = None,
        *,
        context: Any = None,
        context_valid: Any = None,
        weights: Any = None,
        weights_valid: Any = None,
        monitor: Mapping[str, memory.Rows] | None = None,
        callback: Callback | None = None,
    ) -> FitResult:
        """Trains a copy of `model`; the arguments are those of `trainers.fit`."""
        called = {"model": model, "monitor": monitor, "callback": callback}
        check_arguments(vars(self) | called)
        rows = {
            "context": context,
            "context_valid": context_valid,
            "weights": weights,
            "weights_valid": weights_valid,
            "monitor": monitor,
        }
        callback = callback and sharding.under(jax.sharding.get_mesh(), callback)
        show = as_progress(self.progress, enabled=jax.process_index() == 0)
        with set_aside(), show as progress, contextlib.ExitStack() as stack:
            own = self._own()
            check_monitor(monitor or ())
            progress.phase("checking rows")
            data = self._data(model, x_train, x_valid, **rows)
            if self.workdir:
                stack.enter_context(alone_in(self.workdir))
            checkpoints = self._checkpoints(model, data, **own)
            program = self._program(model, data, progress, **own)
            program.wait()
            loop = Loop(
                program,
                self.config,
                validated=x_valid is not None,
                source=data.source,
            )
            return loop.train(
                workdir=self.workdir,
                checkpoints=checkpoints,
                writer=self.writer,
                callback=callback,
                progress=progress,
            )

    def compile(
        self,
        model: nnx.Module,
        x_train: memory.Rows,
        x_valid: memory.Rows | None = None,
        **rows: Any,
    ) -> None:
        """Starts to compile what `fit` of such a model and such rows will run, and returns.

        Compilation goes on beside what is done until then, such as the warm start.

        Args:
          model: of the structure that will be trained, with any values.
          x_train: as of `fit`, and so are the others.
          x_valid: likewise.
          rows: likewise.
        """
        with set_aside(), as_progress(progress=False, enabled=False) as progress:
            data = self._data(model, x_train, x_valid, **rows)
            self._program(model, data, progress, **self._own())

    def _own(self) -> dict[str, Any]:
        """The optimiser and the metrics of the user's, checked."""
        given, metrics = self.optimizer, as_metrics(self.metrics or {})
        optimizer = None if given is None else own_optimizer(given, self.config)
        return {"optimizer": optimizer, "metrics": metrics}

    def _data(self, model, x_train, x_valid, **rows: Any) -> DataSets:
        floats = self.loss_fn is None
        data = data_sets(x_train, x_valid, config=self.config, floats=floats, **rows)
        if self.loss_fn is None:
            check_flow(model, data)
        return data

    def _checkpoints(
        self, model, data: DataSets, *, optimizer, metrics
    ) -> RunCheckpoints | None:
        """Those of this run; raises before any work if there are others."""
        if not self.workdir:
            return None
        given = data.given
        if isinstance(data.source, RowFiles):
            given = given | {"x_train": data.source.digest(file_digest)}
        identity = fingerprint(
            model,
            config=self.config,
            loss_fn=self.loss_fn or negative_log_prob,
            optimizer=optimizer,
            metrics=[name for name, _ in metrics],
            trainable=self.trainable,
            data=given,
            outer=self.identity,
        )
        checkpoints = RunCheckpoints(
            self.workdir,
            identity=identity,
            keep=self.config.max_to_keep,
            resume=self.resume,
        )
        checkpoints.check()
        return checkpoints

    def _program(self, model, data: DataSets, progress, **own: Any) -> Program:
        """Places the rows and begins to compile the steps."""
        config = self.config
        strategy = make_strategy(self.strategy, self.mesh, self.data_axis)
        if data.source is None:
            resident = ResidentRows(data.train, strategy.mesh, strategy.data_axis)
            sample = resident.subset(config.eval_rows, seed=config.seed)
            size = self._batch_size(resident.num_rows, strategy, progress)
            feed = ResidentFeed(
                resident,
                strategy,
                batch_size=size,
                seed=config.seed,
                strata=config.strata,
            )
        else:
            if data.source.note:
                progress.say(data.source.note)
            sample, num_rows = data.train, data.source.num_rows or config.batch_size
            size = self._batch_size(num_rows, strategy, progress)
            feed = StreamFeed(data.source, sample, strategy, batch_size=size)
        loss_fn = self.loss_fn or negative_log_prob
        progress.phase("compiling")
        return Program(
            model,
            feed,
            {"train": rescaled(sample), **data.scored},
            config=config,
            strategy=strategy,
            partition=self.partition,
            loss_fn=WeightedLoss(loss_fn) if data.is_weighted else loss_fn,
            trainable=self.trainable,
            **own,
        )

    def _batch_size(self, num_rows: int, strategy, progress) -> int:
        """As asked for, or what few rows allow."""
        config, mesh = self.config, strategy.mesh
        size = min(config.batch_size, num_rows)
        if num_rows < config.batch_size:
            devices = sharding.num_parts(mesh, strategy.data_axis)
            parts = math.lcm(devices * config.accumulate, config.strata)
            if num_rows < parts:
                raise ValueError(
                    f"`x_train` must have at least {parts} rows, so that a batch can divide"
                    f" over the {devices} devices of the mesh, `accumulate` and `strata`;"
                    f" got {num_rows}. Use fewer of them."
                )
            size = num_rows // parts * parts
            if size < num_rows:
                progress.say(f"batches of {size} rows, which divide into {parts} parts")
        sharding.check_batch(
            mesh, strategy.data_axis, size, accumulate=config.accumulate
        )
        return size
