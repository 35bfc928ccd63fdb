"""What a page looks at: rows that judge, rows drawn beside them, and their densities."""

import dataclasses
from typing import Self

import numpy as np

from trainers.estimators.table_flow import TableFlow
from trainers.tables.frame import Frame

MOST = 2_000  # rows that are looked at


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """Rows of a table and some 2,000 drawn ones, k times the contexts of the n rows.

    Attributes:
      model: the density.
      numbers: of the rows in the table that they are from, [n].
      data, drawn: the modelled columns, of n and k · n rows.
      context, drawn_context: the given columns of both, or None.
      log_prob, drawn_log_prob: of the rows, in nats.
      encoded, drawn_encoded: n rows of each as the flow takes them, [n, width], discrete
        values at random places of their cells.
      latent: `encoded` in the latent space, [n, width]: N(0, I) of a perfect model.
    """

    model: TableFlow
    numbers: np.ndarray
    data: Frame
    drawn: Frame
    context: Frame | None
    drawn_context: Frame | None
    log_prob: np.ndarray
    drawn_log_prob: np.ndarray
    encoded: np.ndarray
    drawn_encoded: np.ndarray
    latent: np.ndarray

    @classmethod
    def of(
        cls,
        model: TableFlow,
        data: Frame,
        context: Frame | None,
        *,
        numbers: np.ndarray | None = None,
        seed: int = 0,
    ) -> Self:
        """Draws rows, and scores all.

        Args:
          model: the density.
          data: rows that took no part in the fit; of more than 2,000 some at random.
          context: their given columns, of a conditional density.
          numbers: what the rows are called, [n]; None counts them from 0.
          seed: of what is drawn.
        """
        numbers = np.arange(len(data)) if numbers is None else numbers
        if len(data) > MOST:
            random = np.random.default_rng(seed)
            rows = np.sort(random.choice(len(data), MOST, replace=False))
            data, numbers = data.take(rows), numbers[rows]
            context = context and context.take(rows)
        data, n = model.schema.matched(data), len(data)
        again = np.tile(np.arange(n), -(-MOST // n))
        given = context and context.take(again)
        drawn = model.sample(len(again), seed=seed, context=given)
        return cls(
            model=model,
            numbers=numbers,
            data=data,
            drawn=drawn,
            context=context,
            drawn_context=given,
            log_prob=model.log_prob(data, context),
            drawn_log_prob=model.log_prob(drawn, given),
            encoded=model.schema.encode(data, seed=seed).rows,
            drawn_encoded=model.schema.encode(drawn.take(slice(n)), seed=seed).rows,
            latent=model.latent(data, context, seed=seed),
        )
