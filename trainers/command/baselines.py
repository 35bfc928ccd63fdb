"""The cheap competitor that stands beside every fit."""

from collections.abc import Sequence

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

_MIXTURE_SIZES = (1, 2, 4, 8, 16, 32)  # of the Gaussian mixture; validation chooses
_RIDGES = (1e-6, 1e-2)  # on the covariances of standardised columns
_MIXTURE_ROWS = 20_000  # the mixture is fitted to at most so many


class Mixture:
    """The Gaussian mixture that validation prefers, a baseline in the data's units.

    Args:
      train: rows to fit, of which at most 20,000 are used, [n, d].
      valid: rows that choose the number of components and the ridge on the covariances.
      seed: of the starts.
      sizes: numbers of components to try.

    Attributes:
      num_components: of the mixture that was chosen.
    """

    def __init__(
        self,
        train: np.ndarray,
        valid: np.ndarray,
        *,
        seed: int,
        sizes: Sequence[int] = _MIXTURE_SIZES,
    ):
        self._scaler = StandardScaler().fit(np.float64(train))
        rows, valid = self._scaled(train[:_MIXTURE_ROWS]), self._scaled(valid)
        fits = [
            _fitted(GaussianMixture(k, reg_covar=ridge, random_state=seed), rows)
            for k in sizes
            if 10 * k <= len(rows) or k == 1
            for ridge in _RIDGES
        ]
        self._mixture = max(filter(None, fits), key=lambda fit: fit.score(valid))
        self.num_components = self._mixture.n_components

    def score(self, rows: np.ndarray) -> float:
        """Mean log p in nats."""
        log_det = np.log(self._scaler.scale_).sum()
        return float(self._mixture.score(self._scaled(rows)) - log_det)

    def _scaled(self, rows):
        return self._scaler.transform(np.float64(rows))


def _fitted(mixture: GaussianMixture, rows: np.ndarray) -> GaussianMixture | None:
    """None where a component collapsed under too small a ridge."""
    try:
        return mixture.fit(rows)
    except ValueError:
        return None
