"""A model, its rows and its compiled steps, placed on one device or on a mesh."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import rbig_nnx as rn
from rbig_nnx.nn.base.meshes import automatic_mesh, given_meshes, on_meshes
from trainers.config import TrainConfig
from trainers.placement import sharding
from trainers.placement.names import Patterns
from trainers.placement.strategy import Jit, Pmap
from trainers.rows import memory
from trainers.rows.feed import ResidentFeed, StreamFeed
from trainers.rows.noise import effective_rows, gaussian_log_prob, noise_factors
from trainers.run.evaluation import Evaluation, LossForm, loss_form
from trainers.run.history import check_columns
from trainers.run.metrics import Metrics, TrainMetrics
from trainers.run.optimizer import (
    Numbers,
    OwnOptimizer,
    check_averaging,
    make_optimizer,
)
from trainers.run.step import (
    LossFn,
    TrainState,
    WeightedLoss,
    init_state,
    make_train_steps,
    negative_log_prob,
)
from trainers.run.variables import check_variables

# Variables of the averaged model ("ema", "rest"), and its raw parameters ("params").
Snapshot = dict[str, Any]

_EVAL_KEY = 2**31 - 1  # folded into the seed's key: no step uses it

_DEFAULTS = TrainConfig()
_LOOP_SETTINGS = (  # of the loop, or arguments of the step: not compiled into it
    *Numbers._fields,
    "batch_size",
    "strata",
    "jitter",
    "jitter_rows",
    "eval_every",
    "eval_rows",
    "patience",
    "max_bad_steps",
    "steps_per_dispatch",
    "checkpoint_every",
    "max_to_keep",
    "seed",
)


class Program:
    """What a run does on the device: state, rows, steps and evaluations.

    Compilation begins, and goes on beside what the caller does before `wait`.

    Args:
      model: gives the structure and the first values; unchanged.
      feed: gives the rows of each dispatch.
      sets: rows to score, by name.
      config: settings.
      strategy: where state and batches lie.
      partition: pairs of a pattern of names and mesh axes, for variables to spread; or
        one axis, over which all large ones are.
      loss_fn: (model, batch, key) -> loss.
      trainable: NNX filter of the variables that train.
      optimizer: of the user's own, or None for that of the settings.
      metrics: to compute of every set.

    Attributes:
      compile_seconds: from the call to the end of `wait`.
      values: names of what the loss function would like to see recorded.
      noise_note: where its noise may take the rows out of the support of the flow.
      plain_score: what Gaussians give the train rows, where a flow's log p is scored.

    Raises:
      ValueError: nothing in `model` matches `trainable`, or nothing that the loss depends
        on; what the optimiser, the loss or a metric cannot be, and names that clash.
    """

    def __init__(
        self,
        model: nnx.Module,
        feed: ResidentFeed | StreamFeed,
        sets: Mapping[str, memory.Rows],
        *,
        config: TrainConfig,
        strategy: Jit | Pmap,
        partition: Patterns | str,
        loss_fn: LossFn,
        trainable: Any,
        optimizer: OwnOptimizer | None = None,
        metrics: Metrics = (),
    ):
        self._strategy = strategy
        model = nnx.clone(model)
        nnx.pop(model, nnx.Intermediate)  # sown by earlier calls: they would add up
        self._given = [*given_meshes(nnx.state(model)), *filter(None, [strategy.given])]
        if self._given:
            nnx.update(model, on_meshes(nnx.state(model), automatic_mesh))
        check_variables(model, trainable)
        self._graphdef, params, rest = nnx.split(model, trainable, ...)
        if not jax.tree.leaves(params):
            raise ValueError(
                "`model` must have parameters to train; got none that match"
                f" {trainable!r}. Hold arrays in nnx.Param and submodules in nnx.List;"
                " a Distrax object stored in a module hides its parameters."
            )
        moves = optimizer or make_optimizer(config)
        params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
        if optimizer:
            check_averaging(jax.eval_shape(optimizer.init, params), config)
        self._layout = None
        if strategy.mesh is not None:
            self._layout = _layout(model, params, rest, moves, strategy.mesh, partition)
            params = sharding.place(params, self._layout.params)
            rest = sharding.place(rest, self._layout.rest)
        self._state = strategy.initial(
            functools.partial(init_state, optimizer=moves, seed=config.seed),
            (params, rest),
            self._layout,
        )
        self._feed = feed
        scores_density = _scores_density(model, loss_fn)
        self.plain_score = gaussian_log_prob(feed.sample) if scores_density else None
        self.noise_note = _noise_note(model, config.jitter) if scores_density else ""
        # Where nobody knows how many rows there are, there may be few.
        num_rows = effective_rows(feed.sample, feed.num_rows) or 1
        fewness = min(1, config.jitter_rows / num_rows)
        self._factors = sharding.place(
            noise_factors(feed.sample, config.jitter * fewness),
            sharding.replicated(strategy.mesh),
        )
        self._numbers = sharding.place(
            Numbers.of(config), sharding.replicated(strategy.mesh)
        )
        self.steps_per_dispatch = min(
            config.steps_per_dispatch, config.eval_every, config.num_steps
        )
        started = time.perf_counter()
        key = jax.random.fold_in(jax.random.key(config.seed), _EVAL_KEY)
        form = _own_form(model, loss_fn, next(iter(sets.values())), key)
        self.values = form.values if form else ()
        check_columns(sets, self.values, [name for name, _ in metrics])
        rows, indices, count = feed.example(self.steps_per_dispatch)
        self._train_steps = _compile_train_steps(
            model,
            (self._state, rows, self._factors, self._numbers, indices, count),
            config=config,
            loss_fn=loss_fn,
            values=self.values,
            optimizer=optimizer,
            trainable=trainable,
            strategy=strategy,
            rows_move=feed.rows_move,
            layout=self._layout if isinstance(strategy, Jit) else None,
        )
        state = self.state
        self._evaluation = Evaluation(
            model,
            sets,
            params=state.ema,
            rest=state.rest,
            loss_fn=loss_fn,
            trainable=trainable,
            metrics=metrics,
            form=form,
            key=key,
            mesh=strategy.mesh,
            data_axis=strategy.data_axis,
        )
        self._started, self.compile_seconds = started, 0.0

    def wait(self) -> None:
        """Returns once steps and evaluations are compiled, which they are side by side."""
        self._train_steps.wait()
        self._evaluation.wait()
        self.compile_seconds = time.perf_counter() - self._started

    @property
    def state(self) -> TrainState:
        """On the devices, once: without the copies that pmap keeps."""
        return self._strategy.whole(self._state)

    def advance(self, step: int, count: int) -> tuple[TrainMetrics, jax.Array]:
        """Launches the `count` steps from `step` on; at most `steps_per_dispatch`.

        Returns:
          Their metrics, and the longest run of non-finite steps, both on the device.
        """
        rows, indices, count = self._feed(step, count, self.steps_per_dispatch)
        self._state, metrics, streak = self._train_steps(
            self._state, rows, self._factors, self._numbers, indices, count
        )
        return metrics, streak

    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """Minus the mean loss of the averaged model, by data set; and further metrics."""
        state = self.state
        return self._evaluation.scores(state.ema, state.rest)

    def first_bad(self, name: str) -> int | None:
        """The first row of a set that has no finite score, where that can be told."""
        state = self.state
        return self._evaluation.first_bad(name, state.ema, state.rest)

    def restore(self, state: TrainState) -> None:
        """Goes on from a state like `state`, its arrays on the host or placed alike."""
        state = sharding.place_like(state, self.state)
        self._state = self._strategy.initial(lambda same: same, (state,), self._layout)

    def snapshot(self) -> Snapshot:
        """The model's variables, in memory of their own."""
        state = self.state
        # A copy, because the next step takes the memory of the state.
        return jax.tree.map(
            jnp.copy, {"ema": state.ema, "params": state.params, "rest": state.rest}
        )

    def model(self, snapshot: Snapshot) -> nnx.Module:
        """The averaged model of a snapshot, on the meshes as they were given."""
        given = {automatic_mesh(mesh): mesh for mesh in self._given}
        state = sharding.on_this_process((snapshot["ema"], snapshot["rest"]))
        state = on_meshes(state, lambda mesh: given.get(mesh, mesh))
        return nnx.merge(self._graphdef, *map(nnx.State, state), copy=True)


def _layout(model, params, rest, optimizer, mesh, partition) -> TrainState:
    """The sharding of every array of the state."""
    by_name = sharding.variable_shardings(model, mesh, partition)
    everywhere = sharding.replicated(mesh)
    of_params = sharding.like(params, by_name)
    return TrainState(
        params=of_params,
        rest=sharding.like(rest, by_name),
        opt_state=sharding.optimizer_shardings(optimizer, params, of_params, mesh),
        ema=of_params,
        step=everywhere,
        bad_streak=everywhere,
        bad_steps=everywhere,
        key=everywhere,
    )


def _of_rows(loss_fn: LossFn) -> LossFn:
    """The loss function without the weights."""
    return loss_fn.loss_fn if isinstance(loss_fn, WeightedLoss) else loss_fn


def _scores_density(model: nnx.Module, loss_fn: LossFn) -> bool:
    """Whether the loss is minus log p of a flow."""
    is_flow = isinstance(model, rn.GaussianizationFlow)
    return is_flow and _of_rows(loss_fn) is negative_log_prob


def _noise_note(flow: rn.GaussianizationFlow, jitter: float) -> str:
    """A sentence on layers that are not this library's, whose support may be bounded."""
    first = type(flow.layers[0])
    if not jitter or first.__module__.startswith("rbig_nnx."):
        return ""
    return (
        f" If the first layer, {first.__name__}, is not defined for all numbers, turn off"
        f" the noise that takes rows out of its support: `jitter`=0.0, not {jitter:g}."
    )


def _own_form(model, loss_fn, rows, key) -> LossForm | None:
    """What a loss function of the user's own returns; of the default it is known."""
    if _of_rows(loss_fn) is negative_log_prob:
        return None
    model = nnx.clone(model)
    model.eval()
    return loss_form(model, loss_fn, rows, key)


def _compile_train_steps(
    model,
    arguments,
    *,
    config,
    loss_fn,
    values,
    optimizer,
    trainable,
    strategy,
    rows_move,
    layout,
):
    model = nnx.clone(model)
    model.train()
    graphdef, *_ = nnx.split(model, trainable, ...)
    function = make_train_steps(
        graphdef,
        loss_fn=loss_fn,
        values=values,
        optimizer=optimizer or functools.partial(make_optimizer, config),
        trainable=trainable,
        config=config,
        strategy=strategy,
        rows_move=rows_move,
        # Of another model a row's loss may depend on the other rows.
        rows_apart=_scores_density(model, loss_fn),
        layout=layout,
    )
    loop_only = {name: getattr(_DEFAULTS, name) for name in _LOOP_SETTINGS}
    settings = dataclasses.replace(config, **loop_only)
    return strategy.compile(
        function,
        arguments,
        (
            graphdef,
            loss_fn,
            values,
            optimizer,
            trainable,
            type(strategy),
            strategy.mesh,
            strategy.data_axis,
            settings,
            rows_move,
        ),
    )
