"""What a run measures, by clu: sums on the device, read when needed."""

from collections.abc import Mapping
from typing import Any, Self

import flax.struct
import jax
import numpy as np
from clu import metrics

Metrics = tuple[tuple[str, type[metrics.Metric]], ...]  # by name, in order
_OUTPUTS = "loss, model, batch, weights and mask"


@flax.struct.dataclass
class Averages(metrics.Metric):
    """Means of numbers by name."""

    means: dict[str, metrics.Average]

    @classmethod
    def from_model_output(cls, *, values: Mapping[str, Any], mask: Any, **_) -> Self:
        """Of the values that the mask leaves, [n] each."""
        average = metrics.Average.from_model_output
        return cls({name: average(array, mask=mask) for name, array in values.items()})

    @classmethod
    def empty(cls, names: tuple[str, ...] = ()) -> Self:
        """Of no values."""
        return cls({name: metrics.Average.empty() for name in names})

    def merge(self, other: Any) -> Self:
        """Of both, which have the same names."""
        return type(self)({n: m.merge(other.means[n]) for n, m in self.means.items()})

    def compute(self) -> Any:
        """By name."""
        return {name: mean.compute() for name, mean in self.means.items()}


@flax.struct.dataclass
class TrainMetrics(metrics.Collection):
    """Means over the finite steps of one dispatch."""

    loss: metrics.Average.from_output("loss")
    grad_norm: metrics.Average.from_output("grad_norm")
    values: Averages  # that the loss function returned


@flax.struct.dataclass
class EvalMetrics(metrics.Collection):
    """Mean over rows of minus the loss: log p in nats for the default loss."""

    score: metrics.Average.from_output("score")


def as_metrics(given: Any) -> Metrics:
    """A collection of clu, or metrics by name, checked.

    Raises:
      ValueError: anything else.

    Example:
      >>> from clu import metrics
      >>> as_metrics({"worst": metrics.LastValue.from_output("loss")})
      (('worst', <class '...FromOutput'>),)
    """
    if isinstance(given, type) and issubclass(given, metrics.Collection):
        found = {n: m for n, m in given.__annotations__.items() if n[0] != "_"}
    else:
        found = dict(given) if isinstance(given, Mapping) else {"": given}
    for name, metric in found.items():
        good = isinstance(metric, type) and issubclass(metric, metrics.Metric)
        if not good or not isinstance(name, str) or not name:
            raise ValueError(
                "`metrics` must be a clu.metrics.Collection, or a dictionary of classes"
                " that derive from clu.metrics.Metric by text, such as"
                ' {"worst": Largest.from_output("loss")};'
                f" got {metric!r:.80}" + f" for {name!r}." * bool(name)
            )
    return tuple(found.items())


def from_outputs(given: Metrics, **outputs: Any) -> dict[str, metrics.Metric]:
    """Every metric of one batch, by name.

    Raises:
      ValueError: what a metric raised.
    """
    found = {}
    for name, metric in given:
        try:
            found[name] = metric.from_model_output(**outputs)
            if jax.tree_util.all_leaves([found[name]]):
                raise TypeError(
                    "it is no pytree; decorate it with flax.struct.dataclass"
                )
        except Exception as error:
            raise ValueError(
                f"`metrics` must be pytrees made in jax.jit of {_OUTPUTS}, of a batch of"
                f" rows; {name!r} raised {first_line(error)}"
            ) from error
    return found


def first_line(error: Exception) -> str:
    """What an error of the user's own code says, without what JAX adds."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def number(name: str, metric: metrics.Metric) -> float:
    """What a metric computes.

    Raises:
      ValueError: something else than one number.
    """
    try:
        return float(np.asarray(metric.compute()).reshape(()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metrics` must compute one number each; {name!r} raised {first_line(error)}"
        ) from error
