"""Densities of single columns and of pairs of them, judged on test rows.

A pair has a Gaussian mixture of its encoded columns. Where one of the two has few levels
there is another way, p(level) p(other | level), with a mixture for each level or, of two such
columns, counts that shrink to independence. It is taken if the valid rows prefer it by more
than two standard errors.
"""

import dataclasses
import functools

import numpy as np

from trainers.command.steps.baselines import Mixture
from trainers.command.steps.entrance import Table
from trainers.command.steps.verdict import mean_and_error
from trainers.estimators.encoded import EncodedTable
from trainers.tables.kinds import Levels
from trainers.tables.schema import Schema

_FITS = {"sizes": (1, 4, 16), "ridges": (1e-3,), "num_rows": 5_000}
_FEW_LEVELS = 30
_LEAST = 20, 2  # train and valid rows of a level that has a mixture of its own
_SHRINKS = (0.3, 3.0, 30.0, 300.0)  # rows that independence counts for
_JUDGED = ("valid", "test")


@dataclasses.dataclass(frozen=True)
class Densities:
    """log p of the valid and the test rows, in the units of the table.

    Attributes:
      table: with its split.
      seed: of the noise and the fits.
      num_draws: of the noise of discrete columns, to average over.
    """

    table: Table
    seed: int
    num_draws: int

    @functools.cached_property
    def context(self) -> dict[str, np.ndarray | None]:
        """What is given, by part."""
        given = self.table.given
        if given is None:
            return dict.fromkeys(self.table.parts)
        return {
            part: given.context(self.table.part(part)[1]) for part in self.table.parts
        }

    def of_column(self, name: str) -> dict[str, np.ndarray]:
        """log p of one column, by part."""
        if self.context["train"] is None and self._num_levels(name):
            share = self._shares(name)
            return {part: np.log(share[self._codes(name, part)]) for part in _JUDGED}
        return self._mixture((name,))

    def of_pair(self, first: str, second: str) -> dict[str, np.ndarray]:
        """log p of two columns together, by part."""
        ways = [self._mixture((first, second))]
        if self.context["train"] is None:
            few = {name: self._num_levels(name) for name in (first, second)}
            if all(few.values()):
                ways += [self._counts(first, second, shrink) for shrink in _SHRINKS]
            for level, other in ((first, second), (second, first)):
                if few[level] and not few[other]:
                    ways.append(self._by_level(level, other))
        best = ways[0]
        for way in ways[1:]:
            if _is_better(way["valid"], best["valid"]):
                best = way
        return best

    def _mixture(
        self, names: tuple[str, ...], **rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """By a mixture of the encoded columns, of some rows of each part."""
        own = tuple(self.table.schema.column(name) for name in names)
        schema = Schema(columns=own, origin=self.table.schema.origin)
        frames, contexts = {}, {}
        for part, context in self.context.items():
            frame = self.table.part(part)[0].select(names)
            chosen = rows.get(part, slice(None))
            frames[part] = frame.take(chosen)
            contexts[part] = None if context is None else context[chosen]
        train, valid = (
            EncodedTable(
                **schema.encode(frames[part], seed=2 * self.seed + i)._asdict(),
                context=contexts[part],
            )
            for i, part in enumerate(("train", "valid"))
        )
        mixture = Mixture.fit(train, valid, seed=self.seed, **_FITS)
        options = {"num_draws": self.num_draws}
        return {
            part: mixture.log_prob_of(
                frames[part], schema, context=contexts[part], **options
            )
            for part in _JUDGED
        }

    def _by_level(self, level: str, other: str) -> dict[str, np.ndarray]:
        found = {part: self.of_column(level)[part].copy() for part in _JUDGED}
        pooled = self._mixture((other,))
        codes = {part: self._codes(level, part) for part in self.table.parts}
        for code in range(self._num_levels(level)):
            rows = {part: np.flatnonzero(c == code) for part, c in codes.items()}
            if len(rows["train"]) >= _LEAST[0] and len(rows["valid"]) >= _LEAST[1]:
                own = self._mixture((other,), **rows)
            else:
                own = {part: pooled[part][rows[part]] for part in _JUDGED}
            for part in _JUDGED:
                found[part][rows[part]] += own[part]
        return found

    def _counts(self, first: str, second: str, shrink: float) -> dict[str, np.ndarray]:
        shape = self._num_levels(first), self._num_levels(second)
        counts = np.zeros(shape)
        np.add.at(
            counts, (self._codes(first, "train"), self._codes(second, "train")), 1
        )
        apart = np.outer(self._shares(first), self._shares(second))
        p = (counts + shrink * apart) / (counts.sum() + shrink)
        return {
            part: np.log(p[self._codes(first, part), self._codes(second, part)])
            for part in _JUDGED
        }

    def _codes(self, name: str, part: str) -> np.ndarray:
        return self._numbers(name)[1][self.table.parts[part]]

    def _num_levels(self, name: str) -> int:
        """0 for columns that have none, or too many."""
        if not isinstance(self.table.schema.column(name).kind, Levels):
            return 0
        count = self._numbers(name)[0]
        return count if count <= _FEW_LEVELS else 0

    def _numbers(self, name: str) -> tuple[int, np.ndarray]:
        """How many levels there are, and the number of each row's, [n]."""
        values = self.table.frame[name].values
        levels, codes = np.unique(values.astype(str), return_inverse=True)
        return len(levels), codes.ravel()

    def _shares(self, name: str) -> np.ndarray:
        """Of the levels among the training rows; one that is not there counts half."""
        count = np.bincount(
            self._codes(name, "train"), minlength=self._num_levels(name)
        )
        count = np.maximum(count, 0.5)
        return count / count.sum()


def _is_better(log_prob: np.ndarray, other: np.ndarray) -> bool:
    mean, error = mean_and_error(log_prob - other)
    return mean is not None and error is not None and mean > 2 * error
