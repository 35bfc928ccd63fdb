"""Scores of a model on whole data sets, in batches of one size."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.placement import sharding
from trainers.placement.compilation import compiled
from trainers.rows import memory
from trainers.run.step import LossFn, make_evaluate

_BATCH = 4_096  # rows scored a call; padding wastes less than one batch a data set


class Evaluation:
    """Minus the mean loss over each of several data sets, on the device.

    A loss with one value a row is scored in padded batches under a mask. A mean over
    the batch cannot be masked, so there the last batch has its own size. With several
    processes each gives its own rows.

    Args:
      model: gives the structure; scored in evaluation mode (no dropout).
      sets: rows by name.
      params: example of the parameters, placed where they will be.
      rest: example of the other variables.
      loss_fn: (model, batch, key) -> loss.
      trainable: NNX filter of the parameters.
      key: of the losses that draw random numbers: the same draws each time.
      mesh: to spread batches over, or None.

    Raises:
      ValueError: a loss without a value for each row where several processes evaluate.
    """

    def __init__(
        self,
        model: nnx.Module,
        sets: Mapping[str, memory.Rows],
        *,
        params: Any,
        rest: Any,
        loss_fn: LossFn,
        trainable: Any,
        key: jax.Array,
        mesh: jax.sharding.Mesh | None,
    ):
        model = nnx.clone(model)
        model.eval()
        graphdef, *_ = nnx.split(model, trainable, ...)
        maskable = _has_one_value_a_row(model, loss_fn, next(iter(sets.values())), key)
        self._maskable = maskable
        if jax.process_count() > 1 and not maskable:
            raise ValueError(
                "`loss_fn` must return one loss for each row where several processes"
                " evaluate; got a mean."
            )
        place = functools.partial(_placed, mesh=mesh)
        everywhere = sharding.replicated(mesh)
        rows = {
            n: int(sharding.gathered(memory.num_rows(r)).max()) for n, r in sets.items()
        }
        devices = 1 if mesh is None else mesh.shape[sharding.DATA_AXIS]
        own_devices = devices // jax.process_count()
        size = min(_BATCH // jax.process_count(), max(rows.values()))
        size = -(-size // own_devices) * own_devices
        self._batches = {
            name: [
                (
                    *place(batch, mask),
                    sharding.place(jax.random.fold_in(key, i), everywhere),
                )
                for i, (batch, mask) in enumerate(
                    _padded(
                        memory.batches(sets[name], size, pad=maskable), -(-most // size)
                    )
                )
            ]
            for name, most in rows.items()
        }
        evaluate = make_evaluate(graphdef, loss_fn=loss_fn)
        self._evaluate = {}
        for batch, mask, batch_key in (b for bs in self._batches.values() for b in bs):
            if len(mask) not in self._evaluate:
                self._evaluate[len(mask)] = compiled(
                    evaluate,
                    (params, rest, batch, mask, batch_key),
                    identity=(graphdef, loss_fn, mesh),
                    transform=functools.partial(
                        jax.jit, out_shardings=sharding.replicated(mesh)
                    ),
                )

    def wait(self) -> None:
        """Returns once everything is compiled."""
        for evaluate in self._evaluate.values():
            evaluate.wait()

    def scores(self, params: Any, rest: Any) -> dict[str, float]:
        """Minus the mean loss by data set; for the default loss mean log p in nats."""
        return {name: self._score(name, params, rest) for name in self._batches}

    def first_bad(self, name: str, params: Any, rest: Any) -> int | None:
        """The first row of a set whose loss is not finite, where that can be told."""
        if jax.process_count() > 1 or not self._maskable:
            return None
        before = 0
        for part in self._batches[name]:
            first, last = 0, int(np.sum(part[1]))
            if not self._is_finite(part, first, last, params, rest):
                while last - first > 1:
                    middle = (first + last) // 2
                    if self._is_finite(part, first, middle, params, rest):
                        first = middle
                    else:
                        last = middle
                return before + first
            before += last
        return None

    def _is_finite(self, part, first: int, last: int, params: Any, rest: Any) -> bool:
        """Whether the mean loss of these rows of a batch is."""
        batch, mask, key = part
        some = np.zeros(len(mask), bool)
        some[first:last] = True
        some = sharding.place_like(some, mask)
        metrics = self._evaluate[len(mask)](params, rest, batch, some, key)
        return bool(np.isfinite(metrics.compute()["score"]))

    def _score(self, name: str, params: Any, rest: Any) -> float:
        total = None
        for batch, mask, key in self._batches[name]:
            metrics = self._evaluate[len(mask)](params, rest, batch, mask, key)
            total = metrics if total is None else total.merge(metrics)
        return float(total.compute()["score"])


def _has_one_value_a_row(model, loss_fn, rows, key) -> bool:
    # Two rows of the data tell a mean from a value for each row.
    graphdef, state = nnx.split(model)

    def loss(state):
        return loss_fn(
            nnx.merge(graphdef, state, copy=True),
            memory.take(rows, np.zeros(2, np.int32)),
            key,
        )

    shape = jax.eval_shape(loss, state).shape
    if shape not in ((), (2,)):
        raise ValueError(
            "`loss_fn` must return a mean loss, shape (), or one for each row of the"
            f" batch; got shape {shape} for a batch of 2 rows."
        )
    return shape == (2,)


def _padded(batches, count):
    """Batches of no rows for a process that has fewer than another."""
    rows, mask = batches[0]
    return batches + [(rows, np.zeros_like(mask))] * (count - len(batches))


def _placed(batch, mask, *, mesh):
    if (
        mesh is not None
        and len(mask) * jax.process_count() % mesh.shape[sharding.DATA_AXIS]
    ):
        return sharding.place((batch, mask), sharding.replicated(mesh))
    return sharding.place_rows((batch, mask), mesh)
