"""What comes into the estimators, before scikit-learn looks at it."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.base import BaseEstimator

from trainers.tables.checks import InputError
from trainers.tables.frame import Frame
from trainers.tables.kinds.levels import Skipped
from trainers.tables.schema import Schema


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


def warn_of_lost(schema: Schema, kinds: Any):
    """Names the columns that are neither modelled nor written back, but for those asked."""
    asked = kinds if isinstance(kinds, Mapping) else {}
    lost = [
        column
        for column in schema.columns
        if isinstance(column.kind, Skipped)
        and column.kind.value is None
        and column.kind.of is None
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


def json_params(estimator: BaseEstimator) -> dict[str, Any]:
    """The arguments that JSON holds; devices and random states are of the process."""
    params = estimator.get_params(deep=False)
    plain = (bool, int, float, str, type(None))
    result = {name: value for name, value in params.items() if isinstance(value, plain)}
    if params["hidden"] is not None:
        result["hidden"] = list(params["hidden"])
    if isinstance(params["kinds"], Mapping):
        result["kinds"] = {str(k): v for k, v in params["kinds"].items()}
    return result


def say(line: str) -> None:
    """One line on standard error, as long as it is."""
    Console(stderr=True, markup=False, highlight=False, soft_wrap=True).print(line)
