"""Names and types of DataFrames as their library has them: JSON in, and back.

A `Schema` keeps what was read here, also in a checkpoint, so all of it is JSON: words of a
fixed vocabulary and their numbers, from which nothing is imported or evaluated.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.tables.natives import labels, of_arrow, of_pandas, of_polars

_LIBRARIES = {"pandas": of_pandas, "polars": of_polars, "pyarrow": of_arrow}


def described(series: Any, origin: str) -> dict[str, Any] | None:
    """The type of a column of "pandas", "polars" or "pyarrow" as JSON.

    None for a type that NumPy has too, and for those of other libraries.

    Raises:
      ValueError: categories that JSON has no words for.
    """
    return _LIBRARIES[origin].described(series) if origin in _LIBRARIES else None


def restored(
    values: np.ndarray, missing: np.ndarray, native: dict[str, Any], origin: str
) -> Any:
    """Values, [n], as a column of the library, in the type that `described` read.

    Args:
      values: numbers, dates, or objects, as a `Column` holds them.
      missing: True where there is no value, [n].
      native: what `described` gave.
      origin: the library.

    Raises:
      ValueError: a type that is not known.
    """
    return _LIBRARIES[origin].restored(values, missing, native)


def levels_of(native: dict[str, Any] | None) -> list[Any]:
    """The levels of a categorical type, in its own order; none of another."""
    inner = (native or {}).get("of")  # of a pyarrow type in pandas
    kind = inner if isinstance(inner, dict) else native or {}
    return [labels.value_of(level) for level in kind.get("levels", ())]


def label(name: Any, frame: Any, origin: str) -> dict[str, Any] | None:
    """What a column is called beside its name as text, as JSON: only pandas has more.

    Raises:
      ValueError: names that JSON has no words for.
    """
    return of_pandas.label(name, frame.columns) if origin == "pandas" else None


def named(frame: Any, columns: Sequence[Any], origin: str) -> Any:
    """A DataFrame whose columns have their own names again: only pandas has other than text.

    Args:
      frame: of the library.
      columns: `Column`s with the names and labels.
      origin: the library.
    """
    if origin != "pandas" or all(column.label is None for column in columns):
        return frame
    frame.columns = of_pandas.header([column.name for column in columns],
                                     [column.label for column in columns])  # fmt: skip
    return frame
