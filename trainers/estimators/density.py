"""The scikit-learn face: a density estimator with `fit` and `score_samples`."""

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from rich.console import Console
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

import rbig_nnx
from trainers.checkpoints.model import load_with_about
from trainers.estimators import kept, starts
from trainers.estimators.arguments import (
    check_argument,
    check_arguments,
    checked_frame,
    frame_of_context,
    say,
    schema_of_context,
    seed_of,
    warn_of,
)
from trainers.estimators.encoded import EncodedTable, split
from trainers.estimators.fitting import compile_ahead
from trainers.estimators.repeats import checked_weights, merged
from trainers.estimators.rungs import Chosen, steps_within, train_rungs
from trainers.estimators.settings import (
    DECIDED,
    Architecture,
    budget_of,
    left_for_training,
    settings_for,
)
from trainers.estimators.table_flow import NUM_DRAWS, TableFlow, checkpoint_in
from trainers.tables.checks import InputError, as_float32
from trainers.tables.schema import Schema

_SETTINGS = (  # arguments that are settings of the flow or of the training
    *(field.name for field in dataclasses.fields(Architecture)),
    *("num_steps", "weight_decay", "batch_size", "learning_rate", "jitter"),
    *("patience", "eval_every", "ema_decay"),
)


class FlowDensity(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator
):
    """Density estimation by a coupling flow, warm-started and then trained.

    X may be an array of any numeric type or a DataFrame of pandas, polars or pyarrow with
    numbers, dates, words and booleans. log p is per unit of every continuous column and a
    mass for every discrete one (`schema_.table()` says which is which), in nats.

    Args:
      num_blocks: (rotation, coupling, coupling) blocks. Here and below None is for what
        suits the table: `trainers.estimators.settings.settings_for` decides.
      num_components: of each feature's mixture; at most a quarter of the training rows.
      hidden: widths of the conditioner's layers.
      family: "gaussian" or "logistic".
      rotation: of the warm start; "auto" chooses between "pca" and "nongaussian" for each
        block, "random" and "ica" start lower.
      tails: take heavy tails off the columns first; None: where held-out rows gain.
      marginals: then map each column by a mixture of its own; None: where held-out rows gain.
      whiten: take out linear dependence first; None: where there are no clusters.
      radial: then a random scale that all columns share; None: where held-out rows gain.
      clusters: of a Gaussian mixture to take off before the blocks, 0 for none; None: likewise.
      budget: the time for start, compilation and training, as 420, "90s", "7m" or "1h30m",
        to which the number of steps is fitted, or the steps of all runs together, as
        "3000 steps"; None for as many as suit the rows.
      num_steps: optimiser updates of a run; fewer when validation stops improving.
      batch_size: rows a step.
      learning_rate: peak of the schedule.
      jitter: noise on the rows in training, in standard deviations. A number also takes
        rounded columns for continuous ones: dithered in training, scored as densities.
      patience: evaluations without a better validation score before a run stops.
      eval_every: steps between evaluations.
      ema_decay: of the average of the parameters, which is what is returned, per step.
      weight_decay: on kernels; None tries several while runs overfit.
      validation_fraction: of the rows (at most 20,000), held out to choose the parameters;
        0 uses every row and returns the last.
      kinds: "auto", or a mapping of columns' names (or numbers) to kinds, as of `Schema.of`.
      num_draws: of the noise of discrete columns, whose mean p is the score.
      mesh: devices to train on; see `trainers.fit`.
      verbose: 1 prints kinds, settings, progress and what was chosen on standard error.
      random_state: seed of the split, the fit and the training.

    Attributes:
      schema_: of the columns; `encode` gives the rows that `flow_` knows.
      flow_: the trained flow, encoded rows -> latent.
      table_: both, as a density of tables.
      report_: what the warm start did, by layer.
      history_: the evaluations of the chosen run, arrays by name; scores of encoded rows.
      settings_: what the table was fitted with.
      candidates_: held-out scores, encoded, of the start and of the runs, by name.
      n_features_in_: columns of X.
      feature_names_in_: their names, where X had names.

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
        self.num_blocks = num_blocks
        self.num_components = num_components
        self.hidden = hidden
        self.family = family
        self.rotation = rotation
        self.tails = tails
        self.marginals = marginals
        self.whiten = whiten
        self.radial = radial
        self.clusters = clusters
        self.budget = budget
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.jitter = jitter
        self.patience = patience
        self.eval_every = eval_every
        self.ema_decay = ema_decay
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.kinds = kinds
        self.num_draws = num_draws
        self.mesh = mesh
        self.verbose = verbose
        self.random_state = random_state

    def fit(
        self, X: Any, y: Any = None, *, sample_weight: Any = None, context: Any = None
    ) -> Self:
        """Fits the density of the rows of X.

        Args:
          X: [n, d], two rows or more.
          y: ignored.
          sample_weight: of the rows, nonnegative, [n].
          context: [n, c], given and not modelled: the density is then conditional.
        """
        del y
        check_arguments(self)
        seed = seed_of(self.random_state)
        frame = checked_frame(self, X, reset=True)
        weights = checked_weights(sample_weight, len(frame))
        given_frame = given = None
        if context is None:
            index, weights = merged(frame, weights)
            frame = frame.take(index)
        else:
            given_frame = frame_of_context(context, len(frame))
            if weights is not None:  # a row without weight decides nothing
                index = np.flatnonzero(weights)
                frame, given_frame = frame.take(index), given_frame.take(index)
                weights = checked_weights(weights[index], len(index))
            given = schema_of_context(given_frame)
        schema = Schema.of(frame, self.kinds, masses=self.jitter is None)
        warn_of(schema, self.kinds)
        if self.verbose:
            Console(stderr=True).print(schema.table())
        encoded = EncodedTable.of(
            frame, schema, context=given_frame, given=given, weights=weights, seed=seed
        )
        train, valid = split(encoded, self.validation_fraction, seed)
        chosen = self._train(train, valid, seed)
        self.candidates_ = {c.name: c.log_prob for c in chosen.candidates}
        result = chosen.best.result
        self.table_ = TableFlow(result.model, schema, given, self.num_draws)
        self.history_ = result.history
        self._n_features_out = schema.width
        return self

    @property
    def schema_(self) -> Schema:
        """What the columns are."""
        check_is_fitted(self)
        return self.table_.schema

    @property
    def flow_(self) -> rbig_nnx.GaussianizationFlow:
        """The trained flow of encoded rows."""
        check_is_fitted(self)
        return self.table_.flow

    def score_samples(self, X: Any, context: Any = None) -> np.ndarray:
        """log p of each row of X in nats, [n]; −inf where a value has no mass."""
        check_is_fitted(self)
        check_argument(self, "num_draws")
        return self.table_.log_prob(checked_frame(self, X), context, self.num_draws)

    def score(self, X: Any, y: Any = None, context: Any = None) -> float:
        """Mean log p of the rows of X, in nats; scikit-learn's KDE sums."""
        del y
        return float(np.mean(self.score_samples(X, context)))

    def sample(
        self, n_samples: int = 1, random_state: Any = None, context: Any = None
    ) -> Any:
        """Draws rows from the density, as X came: an array, or a DataFrame.

        Args:
          n_samples: how many.
          random_state: seed.
          context: one row for all, or one for each.
        """
        check_is_fitted(self)
        seed = seed_of(random_state)
        return self.table_.sample(n_samples, seed=seed, context=context).native()

    def fit_transform(
        self, X: Any, y: Any = None, *, sample_weight: Any = None, context: Any = None
    ) -> np.ndarray:
        """`fit`, then `transform` of the same rows."""
        self.fit(X, y, sample_weight=sample_weight, context=context)
        return self.transform(X, context)

    def transform(self, X: Any, context: Any = None) -> np.ndarray:
        """Maps rows to the latent space, where they are standard normal, [n, width].

        Args:
          X: rows.
          context: one row for all, or one for each, of a conditional density.
        """
        check_is_fitted(self)
        z = self.table_.latent(checked_frame(self, X), context)
        single = getattr(X, "dtype", None) == np.float32
        return z if single else z.astype(np.float64)

    def inverse_transform(self, X: Any, context: Any = None) -> Any:
        """Maps latent rows, also a DataFrame from `transform`, to data.

        Args:
          X: [n, width], finite.
          context: as of `transform`.
        """
        check_is_fitted(self)
        z = np.asarray(X)
        if z.ndim != 2 or z.shape[1] != self._n_features_out:
            raise InputError(
                f"`X` must be latent rows, [n, {self._n_features_out}], as `transform`"
                f" gives them; got shape {z.shape}."
            )
        return self.table_.of_latent(as_float32(z, "X"), context).native()

    def save(self, path: str | os.PathLike):
        """Writes the fitted estimator to the folder `path`; `load` reads it."""
        check_is_fitted(self)
        self.table_.save(path, about={"estimator": kept.described(self)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """The estimator that `save` wrote, or one around a folder of `rbig-nnx fit`.

        Of a text or Parquet file the latter samples a `pyarrow.Table` (`.to_pandas()`).

        Raises:
          CheckpointError: a checkpoint that is missing, damaged, or of something else.
        """
        place = checkpoint_in(path)
        flow, about = load_with_about(place)
        table = TableFlow.of_saved(flow, about, place)
        return kept.restored(cls, table, about.get("estimator"), place)

    def _train(
        self, train: EncodedTable, valid: EncodedTable | None, seed: int
    ) -> Chosen:
        """The start and the runs from it."""
        began, budget, left = time.perf_counter(), budget_of(self.budget), np.inf
        asked = {name: getattr(self, name) for name in _SETTINGS}
        asked = {k: v for k, v in asked.items() if v is not None} | {"seed": seed}
        decide = functools.partial(settings_for, *train.rows.shape, asked=asked)
        settings = decide(budget=budget)
        expect = functools.partial(
            compile_ahead, train, valid, settings, mesh=self.mesh
        )
        flow, self.report_ = starts.start(
            train, settings.architecture, seed=seed, expect=expect
        )
        options = {"mesh": self.mesh, "progress": bool(self.verbose)}
        if budget.seconds is not None:
            left = budget.seconds - (time.perf_counter() - began)
            rows = (flow, train, valid, settings.train)
            budget = budget._replace(steps=steps_within(left, *rows, **options))
            settings = decide(budget=budget)
        self.settings_ = settings
        if self.verbose:
            names = {name: name for name in (*DECIDED, *_SETTINGS)}
            say(f"warm start: {starts.told(self.report_, train.width, names, '{}={}')}")
            for line in left_for_training(budget, left, f"budget={self.budget!r}"):
                say(line)
            say(settings.told(names, "{}={}"))
        chosen = train_rungs(flow, train, valid, settings, **options)
        if self.verbose:
            say(chosen.told())
        return chosen
