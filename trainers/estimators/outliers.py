"""Rows that the density finds strangest."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from sklearn.base import OutlierMixin

from trainers.estimators.density import FlowDensity
from trainers.estimators.table_flow import NUM_DRAWS
from trainers.tables.checks import InputError


class FlowOutlierDetector(OutlierMixin, FlowDensity):
    """Outliers are the rows of lowest density under a `FlowDensity`.

    The other arguments are those of `FlowDensity`.

    Args:
      contamination: share of the training rows that count as outliers, in (0, 0.5].

    Attributes:
      offset_: log p below which a row is an outlier; the others are those of `FlowDensity`.

    Example:
      >>> import numpy as np
      >>> from trainers import FlowOutlierDetector
      >>> X = np.random.default_rng(0).normal(size=(200, 2))
      >>> X[0] = [9.0, -9.0]
      >>> detector = FlowOutlierDetector(
      ...     contamination=0.01, num_blocks=1, num_steps=1, random_state=0).fit(X)
      >>> print(detector.predict(X)[0], detector.predict(X).mean() > 0.9)
      -1 True
    """

    def __init__(
        self,
        *,
        contamination: float = 0.1,
        num_blocks: int | None = None,
        num_components: int | None = None,
        hidden: Sequence[int] | None = None,
        family: str = "gaussian",
        rotation: str = "auto",
        tails: bool | None = None,
        marginals: bool | None = None,
        whiten: bool | None = None,
        radial: bool | None = None,
        clusters: int | None = None,
        budget: str | float | None = None,
        num_steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 3e-3,
        jitter: float | None = None,
        patience: int | None = None,
        eval_every: int | None = None,
        ema_decay: float | None = None,
        weight_decay: float | None = None,
        validation_fraction: float = 0.1,
        kinds: str | Mapping[Any, str] = "auto",
        num_draws: int = NUM_DRAWS,
        mesh: jax.sharding.Mesh | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ):
        super().__init__(
            num_blocks=num_blocks,
            num_components=num_components,
            hidden=hidden,
            family=family,
            rotation=rotation,
            tails=tails,
            marginals=marginals,
            whiten=whiten,
            radial=radial,
            clusters=clusters,
            budget=budget,
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            jitter=jitter,
            patience=patience,
            eval_every=eval_every,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            kinds=kinds,
            num_draws=num_draws,
            mesh=mesh,
            verbose=verbose,
            random_state=random_state,
        )
        self.contamination = contamination

    def fit(
        self, X: Any, y: Any = None, *, sample_weight: Any = None, context: Any = None
    ) -> Self:
        """Fits the density, and the bound by its training rows; as `FlowDensity.fit`."""
        share = self.contamination
        if not (isinstance(share, numbers.Real) and 0 < share <= 0.5):
            raise InputError(
                f"`contamination` must be a number in (0, 0.5]; got {share!r}."
            )
        super().fit(X, y, sample_weight=sample_weight, context=context)
        log_prob = self.score_samples(X, context)
        self.offset_ = _bound(log_prob, share, sample_weight)
        return self

    def decision_function(self, X: Any, context: Any = None) -> np.ndarray:
        """log p above the bound, in nats, [n]: negative for outliers."""
        return self.score_samples(X, context) - self.offset_

    def predict(self, X: Any, context: Any = None) -> np.ndarray:
        """1 for inliers and −1 for outliers, [n]."""
        return np.where(self.decision_function(X, context) < 0, -1, 1)


def _bound(log_prob: np.ndarray, share: float, weights: Any) -> float:
    """Midway between the rows of lowest density that hold a share of the mass and the rest.

    A row of weight 2 counts as two rows.
    """
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        log_prob, weights = log_prob[weights > 0], weights[weights > 0]
    last = np.quantile(log_prob, share, method="inverted_cdf", weights=weights)
    rest = log_prob[log_prob > last]
    if not len(rest):
        return float(last)
    first = rest.min()
    return float(first if last == -np.inf else (last + first) / 2)
