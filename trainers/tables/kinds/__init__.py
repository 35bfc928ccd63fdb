"""Kinds of columns: what becomes of the values of each, and how a kind is found."""

from typing import Any

from trainers.tables.kinds.base import Kind as Kind
from trainers.tables.kinds.base import Scale as Scale
from trainers.tables.kinds.levels import Levels as Levels
from trainers.tables.kinds.levels import Skipped as Skipped
from trainers.tables.kinds.levels import Spike as Spike
from trainers.tables.kinds.numbers import Bounded as Bounded
from trainers.tables.kinds.numbers import Continuous as Continuous
from trainers.tables.kinds.numbers import Grid as Grid
from trainers.tables.kinds.numbers import Integer as Integer
from trainers.tables.kinds.numbers import Positive as Positive

KINDS = (Continuous, Positive, Bounded, Grid, Integer, Levels, Spike, Skipped)


def kind_from_config(config: dict[str, Any]) -> Kind:
    """The kind that `to_config` described."""
    values = dict(config)
    kind = {k.kind: k for k in KINDS}[values.pop("kind")]
    if "scale" in values:
        values["scale"] = Scale(**values["scale"])
    if "rest" in values:
        values["rest"] = kind_from_config(values["rest"])
    for name in ("levels", "shares"):
        if name in values:
            values[name] = tuple(values[name])
    return kind(**values)
