"""Scores of a model on whole data sets, in batches of one size."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from trainers.placement import sharding
from trainers.placement.compilation import compiled
from trainers.rows import memory
from trainers.run.metrics import Metrics, number
from trainers.run.step import LossFn, loss_and_values, make_evaluate

_BATCH = 4_096  # rows scored a call; padding wastes less than one batch a data set


class LossForm(NamedTuple):
    """What a loss function returns."""

    by_row: bool  # one loss for each row, or their mean
    values: tuple[str, ...]  # names of what it would like to see recorded


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
      metrics: further ones of every set.
      form: of the loss, or None to find out.
      key: of the losses that draw random numbers: the same draws each time.
      mesh: to spread batches over, or None.
      data_axis: of the mesh, over which they are spread.

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
        metrics: Metrics = (),
        form: LossForm | None = None,
        key: jax.Array,
        mesh: jax.sharding.Mesh | None,
        data_axis: tuple[str, ...] = ("data",),
    ):
        model = nnx.clone(model)
        model.eval()
        graphdef, *_ = nnx.split(model, trainable, ...)
        form = form or loss_form(model, loss_fn, next(iter(sets.values())), key)
        self._maskable = maskable = form.by_row
        if jax.process_count() > 1 and not maskable:
            raise ValueError(
                "`loss_fn` must return one loss for each row where several processes"
                " evaluate; got a mean."
            )
        place = functools.partial(_placed, mesh=mesh, axes=data_axis)
        everywhere = sharding.replicated(mesh)
        rows = {
            n: int(sharding.gathered(memory.num_rows(r)).max()) for n, r in sets.items()
        }
        devices = sharding.num_parts(mesh, data_axis)
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
        layout = None
        if mesh is not None:
            layout = jax.tree.map(lambda leaf: leaf.sharding, (params, rest))
        evaluate = make_evaluate(
            graphdef, loss_fn=loss_fn, metrics=metrics, layout=layout
        )
        self._evaluate = {}
        for batch, mask, batch_key in (b for bs in self._batches.values() for b in bs):
            if len(mask) not in self._evaluate:
                self._evaluate[len(mask)] = compiled(
                    evaluate,
                    (params, rest, batch, mask, batch_key),
                    identity=(graphdef, loss_fn, metrics, mesh),
                    transform=functools.partial(
                        jax.jit, out_shardings=sharding.replicated(mesh)
                    ),
                )

    def wait(self) -> None:
        """Returns once everything is compiled."""
        for evaluate in self._evaluate.values():
            evaluate.wait()

    def scores(
        self, params: Any, rest: Any
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Minus the mean loss by data set, for the default loss mean log p in nats.

        Returns:
          Those, and the further metrics under "SET/METRIC".
        """
        scores, others = {}, {}
        for name in self._batches:
            score, metrics = self._measured(name, params, rest)
            scores[name] = float(score.compute()["score"])
            others |= {
                f"{name}/{own}": number(own, metric) for own, metric in metrics.items()
            }
        return scores, others

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
        score, _ = self._evaluate[len(mask)](params, rest, batch, some, key)
        return bool(np.isfinite(score.compute()["score"]))

    def _measured(
        self, name: str, params: Any, rest: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The sums of a set."""
        total, others = None, {}
        for batch, mask, key in self._batches[name]:
            score, own = self._evaluate[len(mask)](params, rest, batch, mask, key)
            total = score if total is None else total.merge(score)
            others = {
                n: others[n].merge(m) if n in others else m for n, m in own.items()
            }
        return total, others


def loss_form(
    model: nnx.Module, loss_fn: LossFn, rows: memory.Rows, key: jax.Array
) -> LossForm:
    """What a loss function returns for a model in evaluation mode.

    Raises:
      ValueError: something else than `LossFn` says.
    """
    # Two rows of the data tell a mean from a value for each row.
    graphdef, state = nnx.split(model)

    def outputs(state):
        found = loss_fn(
            nnx.merge(graphdef, state, copy=True),
            memory.take(rows, np.zeros(2, np.int32)),
            key,
        )
        return loss_and_values(found)

    loss, values = jax.eval_shape(outputs, state)
    shape = loss.shape
    if shape not in ((), (2,)):
        raise ValueError(
            "`loss_fn` must return a mean loss, shape (), or one for each row of the"
            f" batch; got shape {shape} for a batch of 2 rows."
        )
    return LossForm(by_row=shape == (2,), values=tuple(sorted(values)))


def _padded(batches, count):
    """Batches of no rows for a process that has fewer than another."""
    rows, mask = batches[0]
    return batches + [(rows, np.zeros_like(mask))] * (count - len(batches))


def _placed(batch, mask, *, mesh, axes):
    if mesh is not None and len(mask) * jax.process_count() % sharding.num_parts(
        mesh, axes
    ):
        return sharding.place((batch, mask), sharding.replicated(mesh))
    return sharding.place_rows((batch, mask), mesh, axes)
