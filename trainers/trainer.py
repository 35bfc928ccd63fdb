"""Training: `fit` for a call, `Trainer` to keep the settings for several."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from trainers.checkpoints.run import RunCheckpoints, fingerprint
from trainers.config import TrainConfig
from trainers.placement import sharding
from trainers.placement.names import Patterns
from trainers.placement.strategy import make_strategy
from trainers.rows import memory
from trainers.rows.feed import ResidentFeed, StreamFeed
from trainers.rows.resident import ResidentRows
from trainers.rows.sources import as_source
from trainers.run.loop import Callback, FitResult, Loop
from trainers.run.program import Program
from trainers.run.step import LossFn, negative_log_prob

_ARGUMENTS = {"train": "x_train", "valid": "x_valid"}


def fit(
    flow: nnx.Module,
    x_train: memory.Rows,
    x_valid: memory.Rows | None = None,
    *,
    context: Any = None,
    context_valid: Any = None,
    monitor: Mapping[str, memory.Rows] | None = None,
    config: TrainConfig | None = None,
    mesh: jax.sharding.Mesh | None = None,
    partition: Patterns = (),
    strategy: str = "jit",
    workdir: str | os.PathLike | None = None,
    resume: bool = True,
    loss_fn: LossFn | None = None,
    trainable: Any = nnx.Param,
    writer: Any = None,
    callback: Callback | None = None,
    progress: bool = True,
) -> FitResult:
    """Trains a copy of `flow`, by default for the largest mean log p.

    Args:
      flow: a flow, or any NNX module that `loss_fn` understands; unchanged.
      x_train: [n, d]; with a `loss_fn` also a tuple or dict of arrays with n rows. Or
        what stays outside of memory: the path of a .npy or .parquet file, a memory map
        of one, or an iterator over batches with `get_state` and `set_state`.
      x_valid: chooses the best parameters and stops early; as `x_train`. Without it
        the last parameters are returned.
      context: [n, c] for a conditional flow; the batches are then (x, context).
      context_valid: the same for `x_valid`.
      monitor: more rows to score at each evaluation, by name; they decide nothing.
        With a context they are pairs (x, context).
      config: settings.
      mesh: devices with an axis "data" to spread rows and batches over; None is one device.
        With several processes each passes its own rows; the data set is theirs together.
      partition: variables to spread over further axes of the mesh, pairs of a pattern of
        dotted names and an axis for each of the array's: `(("*.kernel", (None, "model")),)`.
        Other variables follow their metadata (`out_sharding`), or lie on every device.
      strategy: "jit", or "pmap" for code that lives on copies of the state: same losses.
      workdir: folder for `metrics.jsonl` and checkpoints. The same call again goes on where
        it was, to the same bits; a finished run gives its result back. SIGTERM and Ctrl-C
        save and end the run as "interrupted".
      resume: False starts anew; earlier checkpoints move to `checkpoints.previous`.
      loss_fn: (model, batch, key) -> loss, a mean or one for each row.
      trainable: NNX filter of the variables that train.
      writer: object with clu's `write_scalars(step, scalars)` and `flush()`.
      callback: called with (step, model) at each evaluation.
      progress: a bar on standard error if that is a terminal, else a line for each
        evaluation; False shows nothing.

    Raises:
      CheckpointError: `workdir` holds another run, or none of its checkpoints is whole.
    """
    trainer = Trainer(
        config=config or TrainConfig(),
        mesh=mesh,
        partition=partition,
        strategy=strategy,
        workdir=workdir,
        resume=resume,
        loss_fn=loss_fn,
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
    partition: Patterns = ()
    strategy: str = "jit"
    workdir: str | os.PathLike | None = None
    resume: bool = True
    loss_fn: LossFn | None = None
    trainable: Any = nnx.Param
    writer: Any = None
    progress: bool = True

    def fit(
        self,
        model: nnx.Module,
        x_train: memory.Rows,
        x_valid: memory.Rows | None = None,
        *,
        context: Any = None,
        context_valid: Any = None,
        monitor: Mapping[str, memory.Rows] | None = None,
        callback: Callback | None = None,
    ) -> FitResult:
        """Trains a copy of `model`; the arguments are those of `trainers.fit`."""
        config = self.config
        strategy = make_strategy(self.strategy, self.mesh)
        source = as_source(x_train, seed=config.seed)
        if source is None:
            train = memory.with_context(memory.as_rows(x_train), context)
            resident = ResidentRows(train, strategy.mesh)
            num_rows = resident.num_rows
            scored = resident.subset(config.eval_rows, seed=config.seed)
        else:
            _check_stream(context, config)
            train = scored = source.sample(config.eval_rows, seed=config.seed)
            num_rows = source.num_rows or config.batch_size
        sets = {"train": scored}
        if x_valid is not None:
            sets["valid"] = memory.with_context(
                memory.as_rows(x_valid, name="x_valid"),
                context_valid,
                name="context_valid",
            )
        for name, rows in (monitor or {}).items():
            sets[name] = memory.as_rows(rows, name=f"monitor[{name!r}]")
        _check_alike(train, sets)
        if self.loss_fn is None:
            _check_flow(model, train)
        loss_fn = self.loss_fn or negative_log_prob
        batch_size = min(config.batch_size, num_rows)
        sharding.check_batch(strategy.mesh, batch_size, accumulate=config.accumulate)
        if source is None:
            feed = ResidentFeed(
                resident,
                strategy,
                batch_size=batch_size,
                seed=config.seed,
                strata=config.strata,
            )
        else:
            feed = StreamFeed(source, train, strategy, batch_size=batch_size)
        program = Program(
            model,
            feed,
            sets,
            config=config,
            strategy=strategy,
            partition=self.partition,
            loss_fn=loss_fn,
            trainable=self.trainable,
        )
        checkpoints = None
        if self.workdir:
            identity = fingerprint(
                model,
                config=config,
                loss_fn=loss_fn,
                state=program.state,
                rows={"x_train": train, **sets},
            )
            checkpoints = RunCheckpoints(
                self.workdir,
                identity=identity,
                keep=config.max_to_keep,
                resume=self.resume,
            )
        loop = Loop(program, config, validated="valid" in sets, source=source)
        return loop.train(
            workdir=self.workdir,
            checkpoints=checkpoints,
            writer=self.writer,
            callback=callback,
            progress=self.progress,
        )


def _check_stream(context: Any, config: TrainConfig):
    if config.strata != 1:
        raise ValueError(
            "`strata` must be 1 where `x_train` is read by parts, which says itself in"
            f" which order; got {config.strata}."
        )
    if context is not None:
        raise ValueError(
            "`context` must be None where `x_train` is read by parts; an iterator gives"
            " the pairs (x, context) itself."
        )
    if jax.process_count() > 1:
        raise ValueError(
            "`x_train` must be in memory where several processes train together; each"
            " of them reads its own rows, for instance with trainers.tables.read_table."
        )


def _check_alike(train: memory.Rows, sets: Mapping[str, memory.Rows]):
    """Raises unless every data set is built like the training rows."""
    for name, rows in sets.items():
        if _form(rows) != _form(train):
            raise ValueError(
                f"`{_ARGUMENTS.get(name, name)}` must have the columns of `x_train`,"
                f" {_form(train)[1]} with context where there is one; got"
                f" {_form(rows)[1]}."
            )


def _form(rows: memory.Rows):
    leaves, structure = jax.tree.flatten(rows)
    return structure, [leaf.shape[1:] for leaf in leaves]


def _check_flow(model: nnx.Module, train: memory.Rows):
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
