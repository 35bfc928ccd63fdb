"""Rows of a table as a flow takes them, and which of them choose."""

import dataclasses
from typing import Any

import numpy as np

from trainers.estimators.settings import VALID_ROWS
from trainers.rows.files import RowFiles
from trainers.tables.checks import InputError
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema

_FEWEST = 8  # rows of which some can be held out


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedTable:
    """Rows of a table as a flow takes them.

    Attributes:
      rows: float32, [n, d]; or `RowFiles`, of a table larger than memory.
      log_det: what log p of a row gains from the encoding, [n].
      context: float32, [n, c], or None.
      weights: of the rows, [n], or None.
    """

    rows: np.ndarray | RowFiles
    log_det: np.ndarray
    context: np.ndarray | None = None
    weights: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        """Rows."""
        rows = self.rows
        return rows.num_rows if isinstance(rows, RowFiles) else len(rows)

    @property
    def width(self) -> int:
        """Encoded columns."""
        rows = self.rows
        return rows.num_features if isinstance(rows, RowFiles) else rows.shape[1]

    @classmethod
    def of(
        cls,
        table: Frame,
        schema: Schema,
        *,
        context: Frame | None = None,
        given: Schema | None = None,
        weights: np.ndarray | None = None,
        seed: int,
    ) -> "EncodedTable":
        """Encodes a table, with noise of its own for every row."""
        rows, log_det = schema.encode(table, seed=seed)
        encoded = None if given is None else given.context(context)
        return cls(rows=rows, log_det=log_det, context=encoded, weights=weights)

    def at(self, index: Any) -> "EncodedTable":
        """The rows of these numbers."""
        return EncodedTable(
            **{
                name: None if value is None else value[index]
                for name, value in vars(self).items()
            }
        )

    def pair(self) -> Any:
        """The rows as `monitor` of `fit` takes them."""
        return self.rows if self.context is None else (self.rows, self.context)


def split(
    encoded: EncodedTable, fraction: float, seed: int
) -> tuple[EncodedTable, EncodedTable | None]:
    """Rows that fit and rows that choose: of few rows a quarter, at most five.

    Args:
      encoded: all of them.
      fraction: that chooses; 0 for none.
      seed: of the split.
    """
    n = len(encoded.rows)
    if not 0 <= fraction < 1:
        raise InputError(f"`validation_fraction` must be in [0, 1); got {fraction!r}.")
    if not fraction or n < _FEWEST:
        return encoded, None
    held = min(max(round(fraction * n), min(5, n // 4)), VALID_ROWS)
    order = np.random.default_rng(seed).permutation(n)
    return encoded.at(order[held:]), encoded.at(order[:held])
