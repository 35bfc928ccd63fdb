"""Kinds of columns: what becomes of the values of each, and how a kind is found."""

import functools
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

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


def kind_from_config(config: Mapping[str, Any]) -> Kind:
    """The kind that `to_config` described.

    Raises:
      ValueError, TypeError, LookupError: what it does not write.
    """
    values = dict(config)
    return of_json({k.kind: k for k in KINDS}[values.pop("kind")], values)


def of_json(cls: type, values: Mapping[str, Any]) -> Any:
    """A dataclass of JSON, whose values are of the types and ranges that it declares.

    Args:
      cls: of it; fields may be kinds.
      values: by the field's name.

    Raises:
      ValueError, TypeError, LookupError: others.
    """
    forms = _forms(cls)
    return cls(**{name: _value(value, forms[name]) for name, value in values.items()})


@functools.cache
def _forms(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _value(value: Any, form: Any) -> Any:
    return kind_from_config(value) if form is Kind else msgspec.convert(value, form)
