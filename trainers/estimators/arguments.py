"""What comes into the estimators, before scikit-learn looks at it."""

import inspect
import math
import numbers
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from rbig_nnx.fit.rotation import METHODS
from rbig_nnx.math.params import FAMILIES
from trainers.estimators.settings import budget_of
from trainers.tables.checks import InputError, shown
from trainers.tables.columns import ColumnSchema
from trainers.tables.door import frame_of
from trainers.tables.frame import Frame
from trainers.tables.kinds.exact import rounded_by
from trainers.tables.kinds.found import asked_of
from trainers.tables.kinds.levels import Skipped
from trainers.tables.natives.labels import unboxed
from trainers.tables.schema import Schema

MOST_DRAWS = 1_000_000  # of the noise of discrete columns, to average over


def is_whole_number(value: Any, least: int = 1) -> bool:
    """Whether it is one, of this or more; True is none."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and int(value) >= least


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _are_widths(value: Any) -> bool:
    listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    return listed and all(map(is_whole_number, value))


_COUNT = "a whole number of 1 or more", is_whole_number
_NUMBER = "a whole number of 0 or more", lambda x: is_whole_number(x, 0)
_AMOUNT = "a number of 0 or more", lambda x: _is_real(x) and 0 <= x < math.inf
_SHARE = "a number in [0, 1)", lambda x: _is_real(x) and 0 <= x < 1
_SWITCH = "True or False", lambda x: isinstance(x, bool | np.bool_)
_ROTATIONS = ("auto", *METHODS)
_RULES = {  # what an argument must be, in words and as a function
    **dict.fromkeys(("num_blocks", "num_components", "num_steps"), _COUNT),
    **dict.fromkeys(("batch_size", "eval_every"), _COUNT),
    "num_draws": (
        f"a whole number of 1 to {MOST_DRAWS:,}",
        lambda x: is_whole_number(x) and x <= MOST_DRAWS,
    ),
    **dict.fromkeys(("patience", "clusters"), _NUMBER),
    "verbose": (_NUMBER[0], lambda x: _SWITCH[1](x) or _NUMBER[1](x)),
    "hidden": ("widths of 1 or more, as (64, 64)", _are_widths),
    "learning_rate": (
        "a number above 0",
        lambda x: _is_real(x) and 0 < x < math.inf,
    ),
    **dict.fromkeys(("jitter", "weight_decay"), _AMOUNT),
    **dict.fromkeys(("ema_decay", "validation_fraction"), _SHARE),
    **dict.fromkeys(("tails", "marginals", "whiten", "radial"), _SWITCH),
    "mesh": ("a jax.sharding.Mesh", lambda x: isinstance(x, jax.sharding.Mesh)),
    "family": (f"one of {FAMILIES}", lambda x: isinstance(x, str) and x in FAMILIES),
    "rotation": (
        f"one of {_ROTATIONS}",
        lambda x: isinstance(x, str) and x in _ROTATIONS,
    ),
}


def check_arguments(estimator: Any) -> None:
    """Checks the arguments of an estimator before any work; None passes where it is usual.

    Raises:
      InputError: names the argument, what it must be and what came.
    """
    for name in _RULES:
        check_argument(estimator, name)
    if any(budget_of(estimator.budget)) and estimator.num_steps is not None:
        raise InputError("`budget` must be None where `num_steps` is given.")


def check_argument(estimator: Any, name: str) -> None:
    """The same of one of those that have a rule."""
    value, (rule, holds) = getattr(estimator, name), _RULES[name]
    usual = inspect.signature(type(estimator)).parameters[name].default
    if not holds(value) and not (value is None and usual is None):
        or_none = " or None" if usual is None else ""
        raise InputError(f"`{name}` must be {rule}{or_none}; got {value!r}.")


def is_dataframe(X: Any) -> bool:
    """Whether X has named columns."""
    return hasattr(X, "columns") or hasattr(X, "column_names") or isinstance(X, Frame)


def refuse_words(X: Any):
    """scikit-learn makes numbers of words that look like them; we name the column."""
    array = np.asarray(X, object)
    if array.ndim == 2:
        for j in range(array.shape[1]):
            word = next((v for v in array[:, j] if isinstance(v, str | bytes)), None)
            if word is not None:
                raise InputError(
                    f"`X` must hold numbers; column {j} (from 0) holds words, as {word!r}."
                    " Convert it, leave it out, or give a DataFrame."
                )


def frame_of_context(context: Any, num_rows: int) -> Frame:
    """The columns of a context for so many rows.

    Raises:
      InputError: no table, or another number of rows.
    """
    frame = frame_of(context, name="context")
    if len(frame) != num_rows:
        raise InputError(
            f"`context` must have one row for each of {num_rows} rows of X; got"
            f" {len(frame)}."
        )
    return frame


def schema_of_context(frame: Frame) -> Schema:
    """What the columns of a context are.

    Raises:
      InputError: none of them varies.
    """
    schema = Schema.of(frame, given=True)
    if not schema.kept:
        told = [f"{c.name} ({c.why})" for c in schema.columns]
        raise InputError(
            f"`context` must have a column that varies; got {shown(told)}. Leave it out."
        )
    return schema


def warn_of(schema: Schema, kinds: Any):
    """The schema's notes, and columns neither modelled nor written back, unless asked."""
    asked = kinds if isinstance(kinds, Mapping) else {}
    lost = [
        column
        for column in schema.columns
        if isinstance(column.kind, Skipped)
        and not column.kind.is_known
        and column.name not in asked
    ]
    if lost:
        told = "; ".join(f"{column.name} ({column.why})" for column in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        warnings.warn(
            f"left out of the density: {told}{more}. `kinds` says otherwise; words that"
            " stand for numbers or dates are to be converted.",
            UserWarning,
            stacklevel=3,
        )
    for note in schema.notes:
        warnings.warn(note, UserWarning, stacklevel=3)


def json_params(estimator: BaseEstimator) -> dict[str, Any]:
    """The arguments that JSON holds; devices and random states are of the process."""
    params = estimator.get_params(deep=False)
    plain = (bool, int, float, str, type(None))
    params = {name: unboxed(value) for name, value in params.items()}
    result = {name: value for name, value in params.items() if isinstance(value, plain)}
    if params["hidden"] is not None:
        result["hidden"] = np.asarray(params["hidden"]).tolist()
    if isinstance(params["kinds"], Mapping):
        asked = asked_of(params["kinds"], estimator.schema_.names)
        result["kinds"] = {name: str(words) for name, words in asked.items()}
    return result


def seed_of(random_state: Any) -> int:
    """A seed as scikit-learn draws it."""
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError:
        raise InputError(
            f"`random_state` must be None, 0 to {2**32 - 1} or a RandomState; got"
            f" {random_state!r}."
        ) from None


def say(line: str) -> None:
    """One line on standard error, as long as it is."""
    Console(stderr=True, markup=False, highlight=False, soft_wrap=True).print(line)


def astray(schema: Schema, frame: Frame) -> dict[str, int]:
    """How many rows differ in what the fit left out as constant or a copy, by column."""
    kept, counts = {c.name: c for c in schema.kept}, {}
    for c in schema.columns:
        known = isinstance(c.kind, Skipped) and c.kind.is_known
        if not known or c.name not in frame.names:
            continue
        of = kept.get(c.kind.of or "")
        try:
            x = c.numbers(frame[c.name])
            base = of.numbers(frame[of.name]) if of else None
            differs = c.kind.differs(x, base, _rounding(c, of) if of else 0)
        except InputError:  # words for numbers
            differs = True
        counts[c.name] = int((differs & ~frame[c.name].gone).sum())
    return {name: count for name, count in counts.items() if count}


def _rounding(copy: ColumnSchema, of: ColumnSchema) -> float:
    """How far a copy may be from what it is a copy of: each was rounded to its type."""
    if copy.unit:
        return 1e-5  # days: a second counts
    off = _rounded_by(copy) + abs(copy.kind.factor) * _rounded_by(of)
    return max(1e-5 * (copy.high - copy.low), off)


def _rounded_by(column: ColumnSchema) -> float:
    return rounded_by(max(abs(column.low), abs(column.high)), np.dtype(column.dtype))


def told_astray(schema: Schema, counts: Mapping[str, int]) -> list[str]:
    """What to say of `astray`."""
    return [
        f"column {c.name!r} was left out of the fit ({c.why}), so log p does not tell that"
        f" it differs in {counts[c.name]:,} row{'s' * (counts[c.name] != 1)}."
        for c in schema.columns
        if c.name in counts
    ]


def checked_frame(estimator: Any, X: Any, *, reset: bool = False) -> Frame:
    """Rows as an estimator takes them, past scikit-learn's checks; `reset` in a fit."""
    least = 2 if reset else 1
    if is_dataframe(X):
        frame = frame_of(X)
        if len(frame) < least:
            raise InputError(
                f"`X` must have {least} rows or more; got n_samples = {len(frame)}."
            )
        if not reset:
            _refuse_context(estimator, frame)
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return frame if reset else _compared(estimator, frame)
    is_sparse = hasattr(X, "toarray")  # also one that is a dictionary of its values
    no_table = X is None or isinstance(X, str | os.PathLike | Mapping | set)
    if no_table and not is_sparse:
        raise InputError(
            f"`X` must be an array or a DataFrame; got a {type(X).__name__}. Give"
            " pandas.DataFrame(X) of a mapping, pandas.read_csv(X) of a file."
        )
    if isinstance(X, list) or np.asarray(X).dtype.kind in "OUS":
        refuse_words(X)
    if np.ma.isMaskedArray(X):  # scikit-learn would take what is masked
        X = np.ma.filled(X.astype(float), np.nan)
    checks = {"reset": reset, "dtype": "numeric", "ensure_min_samples": least}
    frame = frame_of(validate_data(estimator, X, **checks))
    return frame if reset else _compared(estimator, frame)


def _refuse_context(estimator: Any, frame: Frame) -> None:
    """Raises where what is given stands among what is modelled."""
    table = estimator.table_
    given = set(table.given.names if table.given else ()) - set(table.schema.names)
    if inside := [name for name in frame.names if name in given]:
        raise InputError(
            f"`X` must not hold what is given, {shown(inside)}. Pass it as `context`."
        )


def _compared(estimator: Any, frame: Frame) -> Frame:
    """The frame, with a warning where rows differ in columns that the fit left out."""
    schema = estimator.table_.schema
    for note in told_astray(schema, astray(schema, schema.matched(frame))):
        warnings.warn(note, UserWarning, stacklevel=4)
    return frame
