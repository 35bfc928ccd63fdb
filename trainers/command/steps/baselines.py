"""The cheap competitor that stands beside every fit."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from trainers.estimators.encoded import EncodedTable
from trainers.estimators.table_flow import NUM_DRAWS
from trainers.tables.frame import Frame
from trainers.tables.kinds.base import LOG_SQRT_2PI
from trainers.tables.schema import Schema

_SIZES = (1, 2, 4, 8, 16, 32)  # of the Gaussian mixture; validation chooses
_RIDGES = (1e-6, 1e-2)  # on the covariances of encoded columns, whose spread is about 1
_ROWS = 20_000  # a mixture is fitted to at most so many
_PRODUCTS = 4e10  # k rows columns², beyond which more components take too long
_FOR_THREADS = 1e7  # rows columns², from which several threads help


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The Gaussian mixture of encoded rows that validation prefers.

    With a context it is of both together, and its density is that of the rows given it.

    Attributes:
      weights: of the components, [k].
      means: of rows and context, [k, d + c].
      covariances: likewise, [k, d + c, d + c].
      width: d.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    width: int

    @classmethod
    def fit(
        cls,
        train: EncodedTable,
        valid: EncodedTable,
        *,
        seed: int,
        sizes: Sequence[int] = _SIZES,
        ridges: Sequence[float] = _RIDGES,
        num_rows: int = _ROWS,
        fitted: Callable[[int, str], None] | None = None,
    ) -> "Mixture":
        """The best by mean log p of the rows that choose.

        Args:
          train: rows to fit, of which at most `num_rows` are used.
          valid: rows that choose the number of components and the ridge.
          seed: of the starts.
          sizes: numbers of components to try; larger ones are left out where rows are few
            or columns many.
          ridges: to try, added to the variances.
          num_rows: of the fits.
          fitted: called with the number of fits done and a note on the last.
        """
        rows = _joint(train)[:num_rows]
        products = rows.size * rows.shape[1]
        tried = [
            (k, ridge)
            for k in sizes
            if k == 1 or (10 * k <= len(rows) and k * products < _PRODUCTS)
            for ridge in ridges
        ]
        best, best_score = None, -np.inf
        for i, (k, ridge) in enumerate(tried):
            mixture = GaussianMixture(k, reg_covar=ridge, random_state=seed)
            if _is_fitted(mixture, rows, products):
                names = ("weights_", "means_", "covariances_")
                parts = (np.asarray(getattr(mixture, name)) for name in names)
                found = cls(*parts, width=train.rows.shape[1])
                score = np.mean(found.log_prob(valid))
                if best is None or score > best_score:
                    best, best_score = found, score
            if fitted is not None:
                fitted(i + 1, f"{k} components")
        assert best is not None  # one Gaussian with a ridge always fits
        return best

    @property
    def num_components(self) -> int:
        """Of the mixture that was chosen."""
        return len(self.weights)

    def log_prob(self, table: EncodedTable) -> np.ndarray:
        """log p of every row in the units of the table, [n]."""
        log_p = _log_pdf(_joint(table), self.weights, self.means, self.covariances)
        if table.context is not None:
            at = slice(self.width, None)
            parts = self.means[:, at], self.covariances[:, at, at]
            given = table.context.astype(np.float64)
            log_p = log_p - _log_pdf(given, self.weights, *parts)
        return log_p + table.log_det

    def log_prob_of(
        self,
        frame: Frame,
        schema: Schema,
        *,
        context: np.ndarray | None = None,
        num_draws: int = NUM_DRAWS,
    ) -> np.ndarray:
        """log p of a table's rows: with discrete columns the mean of p over draws, [n]."""
        draws = [
            self.log_prob(EncodedTable(rows=rows, log_det=log_det, context=context))
            for rows, log_det in schema.encodings(frame, num_draws)
        ]
        return logsumexp(draws, axis=0) - np.log(len(draws))


def _joint(table: EncodedTable) -> np.ndarray:
    parts = [table.rows] if table.context is None else [table.rows, table.context]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _is_fitted(mixture: GaussianMixture, rows: np.ndarray, products: int) -> bool:
    """Fits it; False where a component collapsed under too small a ridge."""
    # Threads that wait for each other take thirty times as long on small tables.
    threads = 1 if products < _FOR_THREADS else None
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            mixture.fit(rows)
        except ValueError:
            return False
    return True


def _log_pdf(
    x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> np.ndarray:
    """log p of rows under a mixture of Gaussians, [n]."""
    terms = []
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        lower = np.linalg.cholesky(covariance)
        z = solve_triangular(lower, (x - mean).T, lower=True)
        log_det = np.log(np.diag(lower)).sum() + len(mean) * LOG_SQRT_2PI
        terms.append(np.log(weight) - log_det - 0.5 * (z * z).sum(axis=0))
    return np.asarray(logsumexp(terms, axis=0))
