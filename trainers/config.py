"""The settings of a training run."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults are the recipe for a warm-started flow.

    A warm start overfits quickly on small data, so jitter, averaging and decay on
    kernels are on. All three are off at 0.0. Noise of standard deviation h, shaped like
    the rows, costs about h² and saves what falls as 1 / rows: of many rows it is small.

    Example:
      >>> import dataclasses
      >>> from trainers import TrainConfig
      >>> config = TrainConfig(num_steps=200, eval_every=50)
      >>> dataclasses.replace(config, seed=1).num_steps
      200
    """

    num_steps: int = 1_000  # optimiser updates
    # rows a step over all devices; of fewer rows as many as divide over the devices
    batch_size: int = 512
    accumulate: int = 1  # parts of a batch that go through the model one after another
    # equal runs of the rows, each shuffled for itself, that fill equal parts of every batch:
    # with a multiple of the devices, no row moves between them
    strata: int = 1
    learning_rate: float = 3e-3  # peak of the schedule
    # (pattern of dotted names, factor) on the learning rate; the first match counts, as in
    # (("*.vectors", 0.1),); a dictionary is taken too
    learning_rates: tuple[tuple[str, float], ...] | Mapping[str, float] = ()
    schedule: str = "one-cycle"  # or "constant", which has no warm-up
    warmup_fraction: float = 0.3  # of num_steps, rising (one-cycle)
    initial_fraction: float = 0.04  # of the peak, at step 0 (one-cycle)
    final_fraction: float = 4e-6  # of the peak, at the last step (one-cycle)
    clip_norm: float = 1.0  # global norm of the gradient, nats per parameter unit
    jitter: float = 0.03  # std of noise on x, in standard deviations of the rows
    jitter_rows: int = 3_000  # of n more rows, the noise is jitter_rows / n of that
    ema_decay: float = 0.99  # per step; evaluated and returned are the averages
    weight_decay: float = 0.3  # per unit of learning rate, on kernels only
    eval_every: int = 100  # steps
    eval_rows: int = 10_000  # training rows scored at an evaluation
    patience: int = 10  # evaluations without a better validation score; 0 = never stop
    max_bad_steps: int = 20  # non-finite steps in a row that end the run
    steps_per_dispatch: int = 50  # steps a call to the device
    checkpoint_every: int = 1_000  # steps between writes to disk
    max_to_keep: int = 2  # newest checkpoints that stay; each holds last and best model
    seed: int = 0  # order of the rows, noise, and the loss function's key

    def __post_init__(self):
        for field in dataclasses.fields(TrainConfig):
            number = _number(field.name, getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, number)
        rates = tuple(
            (str(pattern), float(_number("learning_rates", factor, 1.0)))
            for pattern, factor in _pairs(self.learning_rates)
        )
        if not all(0 <= factor < float("inf") for _, factor in rates):
            raise ValueError(
                f"`learning_rates` must be finite factors of at least 0; got {rates}."
            )
        object.__setattr__(self, "learning_rates", rates)
        for name, smallest in _SMALLEST.items():
            value = getattr(self, name)
            if not value >= smallest:
                raise ValueError(
                    f"`{name}` must be at least {smallest}; got {value!r}."
                )
        for name, largest in _LARGEST.items():
            if getattr(self, name) > largest:
                raise ValueError(
                    f"`{name}` must be at most {largest}; got {getattr(self, name)!r}."
                )
        if not self.learning_rate > 0:
            raise ValueError(
                f"`learning_rate` must be above 0; got {self.learning_rate!r}."
            )
        if not self.clip_norm > 0:
            raise ValueError(
                f"`clip_norm` must be above 0; got {self.clip_norm!r}. Infinity clips"
                " nothing."
            )
        for name in ("learning_rate", *_SMALLEST):
            if getattr(self, name) == float("inf"):
                raise ValueError(f"`{name}` must be finite; got inf.")
        for name in ("ema_decay", "warmup_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"`{name}` must be in [0, 1); got {getattr(self, name)!r}."
                )
        if self.schedule not in ("one-cycle", "constant"):
            raise ValueError(
                f"`schedule` must be 'one-cycle' or 'constant'; got {self.schedule!r}."
            )


def _pairs(rates: Any) -> list[tuple[Any, Any]]:
    """Factors by pattern, as pairs; refuses what has another form."""
    try:
        if isinstance(rates, str):
            raise TypeError
        pairs = rates.items() if isinstance(rates, Mapping) else rates
        return [(pattern, factor) for pattern, factor in pairs]
    except (TypeError, ValueError):
        raise ValueError(
            "`learning_rates` must be pairs of a pattern and a factor, as in"
            f' (("*.vectors", 0.1),), or a dictionary of them; got {rates!r}.'
        ) from None


def _number(name: str, value: Any, default: Any) -> Any:
    """A value, a number as Python's; refuses others where the default is one, or whole."""
    kinds = {int: ("__index__", "a whole number"), float: ("__float__", "a number")}
    method, rule = kinds.get(type(default), (None, ""))
    if method is None:
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "")  # of NumPy and JAX
    try:
        if isinstance(value, bool) or kind in ("b", "c"):
            raise TypeError
        number = getattr(value, method)()
    except (AttributeError, TypeError):
        raise ValueError(f"`{name}` must be {rule}; got {value!r}.") from None
    return value if isinstance(value, int | float) else number


_LARGEST = {"num_steps": 2**31 - 1, "seed": 2**32 - 1}  # int32 counts; words of a key
_SMALLEST = {
    "num_steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "strata": 1,
    "jitter": 0,
    "jitter_rows": 0,
    "weight_decay": 0,
    "eval_every": 1,
    "eval_rows": 1,
    "patience": 0,
    "max_bad_steps": 1,
    "steps_per_dispatch": 1,
    "checkpoint_every": 1,
    "max_to_keep": 1,
    "initial_fraction": 0,
    "final_fraction": 0,
    "seed": 0,
}
