"""Rows to fit and rows to judge by: real tables, and densities that are known.

Rounded columns are dithered at their resolution before anyone sees them: otherwise log p
grows without bound by finding the steps. Columns are in standard deviations of the rows
that are not judged, so that log p is in the same units however many of them are fitted.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.datasets import load_diabetes, load_wine

from benchmarks.tables import data
from trainers.moons import Moons
from trainers.tables.kinds.grids import rounded


class Sample(NamedTuple):
    """Rows, float32."""

    rows: np.ndarray  # to fit and to choose by, [n, d]
    test: np.ndarray  # [t, d]
    truth: float | None = None  # the true density's mean log p of `test`, nats


class Source(NamedTuple):
    """Where rows come from."""

    num_rows: int  # of a table; of a density as many as anyone asks for
    num_columns: int
    draw: Callable[[int, int, int], Sample]  # rows, test rows, seed

    def allows(self, num_rows: int) -> bool:
        """Whether so many rows can be fitted with a fifth left to judge by."""
        return num_rows <= self.num_rows - self.num_rows // 5


def dithered(rows: np.ndarray, seed: int) -> np.ndarray:
    """Uniform noise of one step in each column that lies on a grid, [n, d]."""
    noise = np.random.default_rng(seed).random(rows.shape) - 0.5
    return rows + noise * [_step(column) for column in rows.T]


def _step(column: np.ndarray) -> float:
    """Of the grid; of four significant digits the decimals that half of the values have.

    The finest of them would leave zeros among them a spike.
    """
    grid = rounded(column)
    if grid is None:
        return 0.0
    written = [np.abs(np.round(column, k) - column) < 1e-9 for k in range(10)]
    return max(grid[0], 10.0 ** -np.median(np.argmax(written, axis=0)))


def _table(
    num_rows: int, num_columns: int, load: Callable[[int], np.ndarray]
) -> Source:
    """At most a fifth of a table judges; its loader dithers by the seed."""
    load = functools.lru_cache(maxsize=1)(load)

    def draw(num_rows: int, num_test: int, seed: int) -> Sample:
        rows = load(seed)
        order = np.random.default_rng(seed).permutation(len(rows))
        held = min(num_test, len(rows) // 5)
        rest = rows[order[held:]].astype(np.float64)
        mean, scale = rest.mean(0), rest.std(0)
        parts = rest[:num_rows], rows[order[:held]]
        return Sample(*(((part - mean) / scale).astype(np.float32) for part in parts))

    return Source(num_rows, num_columns, draw)


def _density(
    num_columns: int, draw: Callable[[int, int], np.ndarray], log_prob: Callable
) -> Source:
    """A density from which fresh rows come."""

    def sample(num_rows: int, num_test: int, seed: int) -> Sample:
        rows = draw(num_rows + num_test, seed)
        truth = float(np.mean(log_prob(rows[num_rows:])))
        return Sample(*np.split(rows.astype(np.float32), [num_rows]), truth)

    return Source(10**9, num_columns, sample)


def _student_t() -> Source:
    """Student's t, ν = 5, eight features of unit variance, correlations .8^|i − j|."""
    places = np.arange(8)
    shape = 0.6 * 0.8 ** np.abs(places[:, None] - places)
    t = stats.multivariate_t(np.zeros(8), shape, df=5)
    return _density(8, lambda n, seed: t.rvs(n, random_state=seed), t.logpdf)


def _sources() -> Source:
    """Sixteen independent sources of four kinds and unit variance, rotated."""
    root, mode = np.sqrt(3.0), 0.9
    modes = [stats.norm(m, np.sqrt(1 - mode**2)) for m in (-mode, mode)]
    kinds = [stats.laplace(0, np.sqrt(0.5)), stats.uniform(-root, 2 * root)]
    kinds.append(stats.expon(-1))
    rotation = stats.ortho_group.rvs(16, random_state=0)

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        columns = [kind.rvs((n, 4), random_state=rng) for kind in kinds]
        sides = rng.random((n, 4)) < 0.5
        columns.append(
            np.where(sides, *(m.rvs((n, 4), random_state=rng) for m in modes))
        )
        return np.concatenate(columns, axis=1) @ rotation

    def log_prob(x: np.ndarray) -> np.ndarray:
        *columns, last = np.split(x @ rotation.T, 4, axis=1)
        terms = [k.logpdf(c) for k, c in zip(kinds, columns, strict=True)]
        terms.append(np.logaddexp(*(m.logpdf(last) for m in modes)) - np.log(2))
        return np.sum(terms, axis=(0, 2))

    return _density(16, draw, log_prob)


def _moons() -> Source:
    moons = Moons()
    return _density(
        2, lambda n, seed: moons.sample(n, random_state=seed + 1), moons.log_prob
    )


def _small(load: Callable) -> Callable[[int], np.ndarray]:
    return lambda seed: dithered(load(), seed)


SOURCES: dict[str, Source] = {
    "power": _table(1_900_000, 6, data.power),
    "galaxy": _table(100_000, 7, data.galaxy),
    "digits": _table(1_797, 64, data.digits),
    "breast cancer": _table(569, 30, _small(lambda: data.breast_cancer(0))),
    "wine": _table(178, 13, _small(lambda: load_wine().data)),
    "diabetes": _table(442, 10, _small(lambda: load_diabetes(scaled=False).data)),
    "Student-t": _student_t(),
    "sources": _sources(),
    "moons": _moons(),
}
