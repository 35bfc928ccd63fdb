"""Whether a model is right, and not only better than another: three tests on held-out rows.

Pure functions of arrays.
"""

import dataclasses

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

BAND = 1.358  # Kolmogorov's: 95 % of the deviations of n rows are below BAND / √n


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its standard error."""

    value: float
    error: float


def uniform_deviations(u: np.ndarray, at: np.ndarray) -> np.ndarray:
    """How far the distribution of each column lies from the uniform one.

    Args:
      u: values in (0, 1), [n, d].
      at: places in (0, 1), [k].

    Returns:
      F_n(at) − at by column, [k, d].
    """
    ordered = np.sort(u, axis=0)
    below = [np.searchsorted(column, at, side="right") for column in ordered.T]
    return np.stack(below, axis=1) / len(u) - at[:, None]


def outside_band(u: np.ndarray) -> np.ndarray:
    """Which columns a test of uniformity refuses at 5 % (Kolmogorov), [d]."""
    return np.array([stats.kstest(column, "uniform").pvalue < 0.05 for column in u.T])


def two_sample_auc(data: np.ndarray, drawn: np.ndarray, *, seed: int = 0) -> Estimate:
    """How well a classifier tells data from what was drawn: area under its ROC curve.

    0.5 if it cannot, 1 if always (Lopez-Paz and Oquab 2017), by gradient-boosted trees in
    five folds; the standard error is DeLong's (1988), of folds taken together.

    Args:
      data: rows, [n, d], at least five.
      drawn: likewise, [m, d].
      seed: of the folds.
    """
    x = np.concatenate([data, drawn])
    y = np.repeat([1, 0], (len(data), len(drawn)))
    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=seed
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_predict(trees, x, y, cv=folds, method="decision_function")
    return area(scores[y == 1], scores[y == 0])


def area(high: np.ndarray, low: np.ndarray) -> Estimate:
    """P(high > low), ties half, with DeLong's standard error, of scores [n] and [m]."""
    ranks = stats.rankdata(np.concatenate([high, low]))
    own = np.concatenate([stats.rankdata(high), stats.rankdata(low)])
    n, m = len(high), len(low)
    over = (ranks - own)[:n] / m  # share of `low` below each of `high`
    under = 1 - (ranks - own)[n:] / n
    error = np.sqrt(np.var(over, ddof=1) / n + np.var(under, ddof=1) / m)
    return Estimate(float(over.mean()), float(error))


def coverage(log_prob: np.ndarray, drawn: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The share of rows in the densest region that holds each share of what was drawn.

    Args:
      log_prob: of rows, [n].
      drawn: of rows drawn from the model, [m].
      levels: shares in (0, 1), [k].

    Returns:
      Shares [k]: those of `levels` for a model that is right.
    """
    thresholds = np.quantile(drawn, 1 - levels, method="inverted_cdf")
    return (log_prob[None] >= thresholds[:, None]).mean(axis=1)
