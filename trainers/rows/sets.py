"""The data sets of a run, out of the arguments of `fit`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from trainers.config import TrainConfig
from trainers.placement.names import check_module
from trainers.rows import memory
from trainers.rows.arrays import as_floats
from trainers.rows.sources import RowSource, as_source, in_memory
from trainers.rows.weights import weighted
from trainers.tables.checks import printable

_ARGUMENTS = {"valid": "x_valid"}
_RULES = {  # what an argument of `fit` must be, in words and as a function
    "config": (
        "a TrainConfig, as TrainConfig(num_steps=1_000)",
        lambda x: isinstance(x, TrainConfig),
    ),
    "mesh": (
        "a jax.sharding.Mesh, as of jax.make_mesh",
        lambda x: isinstance(x, jax.sharding.Mesh),
    ),
    "monitor": (
        'rows by name, as {"test": x_test}',
        lambda x: isinstance(x, Mapping),
    ),
    "identity": (
        'a dictionary for JSON, as {"rotation": "pca"}',
        lambda x: isinstance(x, Mapping),
    ),
    "loss_fn": ("a function (model, batch, key) -> loss", callable),
    "callback": ("a function (step, model)", callable),
    "writer": (
        "an object with the methods `write_scalars` and `flush`",
        lambda x: hasattr(x, "write_scalars") and hasattr(x, "flush"),
    ),
}


@dataclasses.dataclass(frozen=True)
class DataSets:
    """What `fit` was given, checked, on the host.

    Attributes:
      train: rows in memory, or a sample of those of a source.
      source: of the training rows, if they are not in memory.
      scored: the other sets, by name; "valid" among them.
      given: the arrays by the name of their argument.
      is_weighted: whether every set is `Weighted`.
    """

    train: memory.Rows
    source: RowSource | None
    scored: dict[str, memory.Rows]
    given: dict[str, Any]
    is_weighted: bool


def data_sets(
    x_train: Any,
    x_valid: Any,
    *,
    config: TrainConfig,
    floats: bool,
    context: Any = None,
    context_valid: Any = None,
    weights: Any = None,
    weights_valid: Any = None,
    monitor: Mapping[str, Any] | None = None,
) -> DataSets:
    """Checks the arguments of `fit` and puts together what belongs together.

    Args:
      x_train: as of `fit`, and so are the others.
      x_valid: likewise.
      config: settings.
      floats: whether every array is of features, so that integers become floats.
      context: as of `fit`, and so are the others.
      context_valid: likewise.
      weights: likewise.
      weights_valid: likewise.
      monitor: likewise.

    Raises:
      ValueError: rows, contexts or weights that cannot be used or do not agree.
    """
    source = as_source(x_train, seed=config.seed)
    if source is None:
        x = memory.as_rows(x_train, floats=floats, fine=True)
        train = memory.with_context(x, context, fine=True)
    else:
        _check_stream(context, weights, config)
        x = train = source.sample(config.eval_rows, seed=config.seed)
        if isinstance(train, np.ndarray):
            as_floats(train, "x_train", fine=True)
    given, scored = {"x_train": x}, {}
    if context is not None:
        given["context"] = train[1]
    x_valid = in_memory(x_valid)
    if x_valid is not None:
        like = train[0] if "context" in given else train
        given["x_valid"] = memory.as_rows(x_valid, name="x_valid", like=like)
        scored["valid"] = memory.with_context(
            given["x_valid"], context_valid, name="context_valid"
        )
        if context_valid is not None:
            given["context_valid"] = scored["valid"][1]
    for name, rows in (monitor or {}).items():
        argument, rows = f"monitor[{name!r}]", in_memory(rows)
        given[argument] = memory.as_rows(rows, name=argument, like=train)
        scored[name] = given[argument]
    _check_alike(train, scored)
    is_weighted = weights is not None or weights_valid is not None
    if is_weighted:
        train = weighted(train, weights, drop=True)
        given["weights"] = train.weights
        for name, rows in scored.items():
            own = weights_valid if name == "valid" else None
            scored[name] = weighted(rows, own, name="weights_valid")
        if x_valid is not None:
            given["weights_valid"] = scored["valid"].weights
        elif weights_valid is not None:
            raise ValueError("`weights_valid` must be None without `x_valid`.")
    return DataSets(train, source, scored, given, is_weighted)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Checks the arguments of `fit` that have a rule, before any work; None is for none.

    Raises:
      ValueError: names the argument, what it must be and what came.
    """
    check_module(given["model"], "fit")
    for name, (rule, holds) in _RULES.items():
        value = given[name]
        if value is not None and not holds(value):
            came = printable(repr(value), 80)
            raise ValueError(f"`{name}` must be {rule}; got {came}.")


def check_flow(model: nnx.Module, data: DataSets):
    """Raises a `ValueError` where rows or contexts have another width than a flow."""
    train = data.train.rows if data.is_weighted else data.train
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


def _check_stream(context: Any, weights: Any, config: TrainConfig):
    if config.strata != 1:
        raise ValueError(
            "`strata` must be 1 where `x_train` is read by parts, which says itself in"
            f" which order; got {config.strata}."
        )
    for name, rows in (("context", context), ("weights", weights)):
        if rows is not None:
            raise ValueError(
                f"`{name}` must be None where `x_train` is read by parts; an iterator"
                " gives the pairs (x, context) itself."
                if name == "context"
                else f"`{name}` must be None where `x_train` is read by parts. Give the"
                " rows as an array."
            )


def _check_alike(train: memory.Rows, sets: Mapping[str, memory.Rows]):
    """Raises unless every data set is built like the training rows."""
    for name, rows in sets.items():
        if _form(rows) != _form(train):
            raise ValueError(
                f"`{_ARGUMENTS.get(name, f'monitor[{name!r}]')}` must have the columns of"
                f" `x_train`, {_form(train)[1]} with context where there is one; got"
                f" {_form(rows)[1]}."
            )


def _form(rows: memory.Rows):
    leaves, structure = jax.tree.flatten(rows)
    return structure, [leaf.shape[1:] for leaf in leaves]
