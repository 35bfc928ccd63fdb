"""A model, its rows and its compiled steps, placed on one device or on a mesh."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trainers import data, sharding
from trainers.compilation import compiled
from trainers.config import TrainConfig
from trainers.evaluation import Evaluation
from trainers.metrics import TrainMetrics
from trainers.step import LossFn, init_state, make_optimizer, make_train_steps

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


class Program:
    """What a run does on the device: state, rows, steps and evaluations.

    Args:
      model: gives the structure and the first values; unchanged.
      train: rows to train on, in memory.
      sets: rows to score, by name.
      config: settings.
      batch_size: rows of one step over all devices.
      mesh: devices to use, or None for one.
      loss_fn: (model, batch, key) -> loss.
      trainable: NNX filter of the variables that train.

    Attributes:
      state: the `TrainState`, on the device.
      compile_seconds: spent on compilation.

    Raises:
      ValueError: nothing in `model` matches `trainable`.
    """

    def __init__(
        self,
        model: nnx.Module,
        train: data.Rows,
        sets: Mapping[str, data.Rows],
        *,
        config: TrainConfig,
        batch_size: int,
        mesh: jax.sharding.Mesh | None,
        loss_fn: LossFn,
        trainable: Any,
    ):
        self._mesh = mesh
        self._graphdef, params, rest = nnx.split(model, trainable, ...)
        if not jax.tree.leaves(params):
            raise ValueError(
                "`model` must have parameters to train; got none that match"
                f" {trainable!r}. Hold arrays in nnx.Param and submodules in nnx.List;"
                " a Distrax object stored in a module hides its parameters."
            )
        optimizer = make_optimizer(config)
        everywhere = sharding.replicated(mesh)
        self.state = sharding.place(
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
        self.steps_per_dispatch = min(
            config.steps_per_dispatch, config.eval_every, config.num_steps
        )
        started = time.perf_counter()
        self._train_steps = _compile_train_steps(
            model,
            (self.state, self._rows, self._scales, *self._batches(0, 1)),
            config=config,
            optimizer=optimizer,
            loss_fn=loss_fn,
            trainable=trainable,
            mesh=mesh,
        )
        self._evaluation = Evaluation(
            model,
            sets,
            params=self.state.ema,
            rest=self.state.rest,
            loss_fn=loss_fn,
            trainable=trainable,
            key=jax.random.fold_in(jax.random.key(config.seed), _EVAL_KEY),
            mesh=mesh,
        )
        self.compile_seconds = time.perf_counter() - started

    def advance(self, step: int, count: int) -> tuple[TrainMetrics, jax.Array]:
        """Launches the `count` steps from `step` on; at most `steps_per_dispatch`.

        Returns:
          Their metrics, and the longest run of non-finite steps, both on the device.
        """
        self.state, metrics, streak = self._train_steps(
            self.state, self._rows, self._scales, *self._batches(step, count)
        )
        return metrics, streak

    def scores(self) -> dict[str, float]:
        """Minus the mean loss of the averaged model, by data set."""
        return self._evaluation.scores(self.state.ema, self.state.rest)

    def snapshot(self) -> Any:
        """The averaged model's variables, in memory of their own."""
        # A copy, because the next step takes the memory of the state.
        return jax.tree.map(jnp.copy, (self.state.ema, self.state.rest))

    def model(self, snapshot: Any) -> nnx.Module:
        """The model with the variables of a snapshot."""
        params, rest = snapshot
        return nnx.merge(self._graphdef, nnx.State(params), nnx.State(rest), copy=True)

    def _batches(self, step: int, count: int):
        # Always the same number of lines: the compiled loop stops at `count`.
        indices = np.zeros((self.steps_per_dispatch, self._order.batch_size), np.int32)
        indices[:count] = self._order.indices(step, count)
        placed = sharding.place(indices, sharding.over_rows(self._mesh, axis=1))
        count = sharding.place(np.int32(count), sharding.replicated(self._mesh))
        return placed, count


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
