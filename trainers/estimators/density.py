"""The scikit-learn face: a density estimator with `fit` and `score_samples`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

import rbig_nnx
from trainers.checkpoints.model import arrays_of, with_arrays
from trainers.config import TrainConfig
from trainers.trainer import fit

_SCORED = 1_024  # rows a call; one size, so one compilation and one rounding


class FlowDensity(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator
):
    """Density estimation by a coupling flow, warm-started and then trained.

    Args:
      num_blocks: (rotation, coupling, coupling) blocks.
      num_components: of each feature's mixture; at most a quarter of the training rows
        is used.
      hidden: widths of the conditioner's layers.
      family: "gaussian" or "logistic".
      rotation: of the warm start; "nongaussian", or "pca", "random" and "ica", whose fits
        start lower and take less time where there are more than a hundred columns.
      num_steps: optimiser updates; fewer when validation stops improving.
      batch_size: rows a step.
      learning_rate: peak of the schedule.
      validation_fraction: of the rows, held out to choose the parameters; 0 uses
        every row and returns the last.
      random_state: seed of the split, the fit and the training.

    Attributes:
      flow_: the trained flow, data -> latent.
      report_: what the warm start did, by layer.
      history_: the evaluations of the training, arrays by name.
      n_features_in_: columns of X.

    Example:
      >>> import numpy as np
      >>> from trainers import FlowDensity
      >>> X = np.random.default_rng(0).normal(size=(200, 2))
      >>> density = FlowDensity(num_blocks=1, num_steps=1, random_state=0).fit(X)
      >>> density.score_samples(X).shape
      (200,)
    """

    def __init__(
        self,
        *,
        num_blocks: int = 4,
        num_components: int = 8,
        hidden: Sequence[int] = (64, 64),
        family: str = "gaussian",
        rotation: str = "nongaussian",
        num_steps: int = 1_000,
        batch_size: int = 512,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ):
        self.num_blocks = num_blocks
        self.num_components = num_components
        self.hidden = hidden
        self.family = family
        self.rotation = rotation
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "FlowDensity":
        """Fits the density of the rows of X; y is ignored."""
        del y
        X = self._checked(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, valid = self._split(X, seed)
        flow = rbig_nnx.coupling_flow(
            X.shape[1],
            self.num_blocks,
            num_components=max(1, min(self.num_components, len(train) // 4)),
            hidden=tuple(self.hidden),
            family=self.family,
            rngs=nnx.Rngs(seed),
        )
        flow, self.report_ = rbig_nnx.warm_start(
            flow, train, key=jax.random.key(seed), rotation=self.rotation
        )
        result = fit(
            flow,
            train,
            valid,
            config=TrainConfig(
                num_steps=self.num_steps,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                seed=seed,
            ),
            progress=False,
        )
        self.flow_ = result.model
        self.history_ = result.history
        self._n_features_out = X.shape[1]
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row of X, in nats."""
        check_is_fitted(self)
        return self._by_rows(_log_prob, self._checked(X))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of the rows of X, in nats; scikit-learn's KDE sums."""
        del y
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws rows from the density, [n_samples, n_features_in_]."""
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        return np.asarray(self.flow_.sample(jax.random.key(seed), n_samples))

    def transform(self, X: Any) -> np.ndarray:
        """Maps rows to the latent space, where they are standard normal."""
        check_is_fitted(self)
        return self._by_rows(_forward, self._checked(X))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Maps latent rows to data."""
        check_is_fitted(self)
        return self._by_rows(_inverse, self._checked(X))

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle: the flow as its configuration and NumPy arrays."""
        state = super().__getstate__()
        if "flow_" in state:
            flow = state["flow_"]
            state = state | {"flow_": (rbig_nnx.to_config(flow), arrays_of(flow))}
        return state

    def __setstate__(self, state: dict[str, Any]):
        """Rebuilds the flow from what `__getstate__` stored."""
        if "flow_" in state:
            config, arrays = state["flow_"]
            flow = rbig_nnx.from_config(config, rngs=nnx.Rngs(0))
            state = state | {"flow_": with_arrays(flow, arrays)}
        super().__setstate__(state)

    def _checked(self, X, *, reset=False) -> np.ndarray:
        return validate_data(
            self,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_min_samples=2 if reset else 1,
        )

    def _split(self, X, seed):
        held = round(self.validation_fraction * len(X))
        if held == 0:
            return X, None
        return train_test_split(X, test_size=held, random_state=seed)

    def _by_rows(self, function, X) -> np.ndarray:
        # Blocks of one shape: a row's result depends on no other row, to the last bit.
        graphdef, state = nnx.split(self.flow_)
        padding = -len(X) % _SCORED
        padded = np.concatenate([X, np.repeat(X[:1], padding, axis=0)])
        blocks = [
            np.asarray(function(graphdef, state, jnp.asarray(block)))
            for block in np.split(padded, len(padded) // _SCORED)
        ]
        return np.concatenate(blocks)[: len(X)].astype(X.dtype)


def _on_flow(function):
    """Compiles a function of (flow, x), once for each structure of flow."""
    return jax.jit(
        lambda graphdef, state, x: function(nnx.merge(graphdef, state), x),
        static_argnums=0,
    )


_log_prob = _on_flow(lambda flow, x: flow.log_prob(x))
_forward = _on_flow(lambda flow, x: flow.forward_and_log_det(x)[0])
_inverse = _on_flow(lambda flow, x: flow.inverse_and_log_det(x)[0])
