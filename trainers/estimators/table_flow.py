"""A flow with the schema of its table: densities and rows in the table's own terms."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.special import logsumexp

import rbig_nnx
from trainers.checkpoints.format import CheckpointError, damaged
from trainers.checkpoints.model import load_with_about, save
from trainers.checkpoints.variables import arrays_of, with_arrays
from trainers.estimators.arguments import MOST_DRAWS, is_whole_number
from trainers.paths import Path, located
from trainers.tables.checks import InputError
from trainers.tables.frame import Frame
from trainers.tables.schema import Schema

FLOW = "flow"  # the checkpoint in the folder of a command's fit
NUM_DRAWS = 16  # of the noise of discrete columns, to average over
_SIZES = (1_024, 16_384)  # rows a call: two programs serve every number of rows


@dataclasses.dataclass(frozen=True)
class TableFlow:
    """A density of the rows of tables.

    log p is per unit of every continuous column and a mass for every discrete one, in nats.

    Attributes:
      flow: of encoded rows, given encoded contexts.
      schema: of the table.
      given: the schema of the context, or None.
      num_draws: of the noise of discrete columns, whose mean p is reported.
    """

    flow: rbig_nnx.GaussianizationFlow
    schema: Schema
    given: Schema | None = None
    num_draws: int = NUM_DRAWS

    def log_prob(
        self, table: Any, context: Any = None, num_draws: int | None = None
    ) -> np.ndarray:
        """log p of every row, float64, [n]; −inf where a value has no mass.

        Args:
          table: rows.
          context: one for all, or one for each, of a conditional density.
          num_draws: of the noise of discrete columns; None for those of the fit.

        Raises:
          InputError: other columns than those of the fit, missing values, a context that is
            missing or not wanted.
        """
        frame = self.schema.matched(table)
        given = self._given(context, len(frame))
        draws = [
            self._by_rows(_log_prob, rows, given) + log_det
            for rows, log_det in self.schema.encodings(
                frame, num_draws or self.num_draws
            )
        ]
        if len(draws) == 1:
            return draws[0]
        return logsumexp(draws, axis=0) - np.log(len(draws))

    def sample(self, num_rows: int, *, seed: int = 0, context: Any = None) -> Frame:
        """Rows drawn from the density.

        Args:
          num_rows: how many.
          seed: the same gives the same rows.
          context: one row for all, or one for each.

        Raises:
          InputError: more rows than the memory holds, and as `samples`.
        """
        if is_whole_number(num_rows):
            _check_memory(int(num_rows), len(self.schema.columns))
        (frame,) = self.samples(num_rows, seed=seed, context=context, rows=num_rows)
        return frame

    def samples(
        self, num_rows: int, *, seed: int = 0, context: Any = None, rows: int
    ) -> Iterator[Frame]:
        """The rows of `sample`, by parts of about `rows`; without rows one empty part.

        Raises:
          InputError: a negative number, or contexts that do not fit.
        """
        if not is_whole_number(num_rows, 0):
            raise InputError(
                f"`n_samples` must be a whole number of 0 or more; got {num_rows!r}."
            )
        given = self._given(context, num_rows)
        size = self._size(num_rows)
        key = jax.random.key(seed)
        part = max(-(-rows // size), 1) * size
        for start in range(0, max(num_rows, 1), part):
            stop = min(start + part, num_rows)
            numbers = range(start // size, -(-stop // size))
            shape = (size, self.schema.width)
            blocks = [_normal(jax.random.fold_in(key, i), shape) for i in numbers]
            z = np.concatenate([self._empty(), *map(np.asarray, blocks)])
            own = None if given is None else given[start:stop]
            found = self._by_rows(_inverse, z[: stop - start], own, size)
            yield self.schema.decode_frame(found)

    def latent(
        self, table: Any, context: Any = None, *, seed: int | None = None
    ) -> np.ndarray:
        """The rows in latent space, [n, width].

        Discrete values lie in the middle of their cells; with a seed at random in them.
        """
        frame = self.schema.matched(table)
        if seed is None:
            ((rows, _),) = self.schema.encodings(frame, 1)
        else:
            rows = self.schema.encode(frame, seed=seed).rows
        return self._by_rows(_forward, rows, self._given(context, len(frame)))

    def of_latent(self, z: np.ndarray, context: Any = None) -> Frame:
        """The rows at points of the latent space, [n, width]."""
        z = np.asarray(z, np.float32)
        return self.schema.decode_frame(
            self._by_rows(_inverse, z, self._given(context, len(z)))
        )

    def save(self, path: str | os.PathLike, *, about: dict[str, Any] | None = None):
        """Writes flow and schemas to the folder `path`, as `trainers.save` does.

        Args:
          path: of the checkpoint.
          about: what else to keep, as JSON.
        """
        table = {
            "schema": self.schema.to_config(),
            "given": self.given and self.given.to_config(),
            "num_draws": self.num_draws,
        }
        save(path, self.flow, about={"table": table} | (about or {}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Reads back what `save` wrote, or `rbig-nnx fit` into its folder.

        Raises:
          CheckpointError: a checkpoint that is missing, damaged, or without a table.
        """
        path = checkpoint_in(path)
        return cls.of_saved(*load_with_about(path), path)

    @classmethod
    def of_saved(cls, flow: nnx.Module, about: Mapping[str, Any], path: Path) -> Self:
        """The density of a flow and of what was kept with it, by `load_with_about`.

        Raises:
          CheckpointError: no schema was kept with it, or a damaged one.
        """
        kept = about.get("table")
        if kept is None:
            raise CheckpointError(
                f"`path` must be a checkpoint of a table's density; {path} holds a flow"
                " without a schema. Use trainers.load_flow(path)."
            )
        try:
            schema = Schema.from_config(kept["schema"])
            given = kept["given"] and Schema.from_config(kept["given"])
            num_draws = kept["num_draws"]
            right = is_whole_number(num_draws) and num_draws <= MOST_DRAWS
            widths = schema.width, given.try_out().shape[1] if given else 0
            if not right or widths != (flow.num_features, flow.context_features):
                raise ValueError("it does not fit the flow")
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            reason = f"its schema cannot be read: {error}"
            raise damaged(path, reason) from None
        return cls(flow, schema, given, num_draws)

    def __reduce__(self) -> tuple[Any, ...]:
        """What to pickle: the flow as its configuration and NumPy arrays."""
        flow = rbig_nnx.to_config(self.flow), arrays_of(self.flow)
        return _unpickled, (*flow, self.schema, self.given, self.num_draws)

    def _given(self, context: Any, num_rows: int) -> np.ndarray | None:
        """Encoded contexts, one for each row."""
        if self.given is None:
            if context is not None:
                raise InputError(
                    "`context` must be None: the density was fitted without one."
                )
            return None
        if context is None:
            raise InputError(
                "`context` must be given: the density is conditional on"
                f" {', '.join(c.name for c in self.given.kept)}."
            )
        rows = self.given.context(context)
        _warn_far(self.given, context)
        if len(rows) not in (1, num_rows):
            raise InputError(
                f"`context` must have one row, or one for each of {num_rows}; got"
                f" {len(rows)}."
            )
        return np.broadcast_to(rows, (num_rows, rows.shape[1]))

    def _by_rows(
        self,
        function: Callable,
        x: np.ndarray,
        given: np.ndarray | None,
        size: int | None = None,
    ) -> np.ndarray:
        # Blocks of one shape: a row's result depends on no other row, to the last bit, and
        # no number of rows compiles anew.
        if len(x) == 0:
            return np.empty(0 if function is _log_prob else (0, self.schema.width))
        graphdef, state = nnx.split(self.flow)
        size = size or self._size(len(x))
        results = []
        for start in range(0, len(x), size):
            block = [a[start : start + size] for a in (x, given) if a is not None]
            padding = size - len(block[0])
            padded = (np.concatenate([a, np.repeat(a[:1], padding, 0)]) for a in block)
            found = function(graphdef, state, *map(jnp.asarray, padded))
            results.append(np.asarray(found)[: size - padding])
        return np.concatenate(results)

    def _size(self, num_rows: int) -> int:
        return _SIZES[0] if num_rows <= 4 * _SIZES[0] else _SIZES[1]

    def _empty(self) -> np.ndarray:
        return np.empty((0, self.schema.width), np.float32)


def _warn_far(given: Schema, context: Any):
    """Says where contexts lie further beyond those of the fit than half their range."""
    frame = given.matched(context, name="context")
    for column in given.kept:
        low, high = column.low, column.high
        if not all(isinstance(end, int | float) for end in (low, high)):
            continue
        values, reach = column.numbers(frame[column.name]), (high - low) / 2
        if np.any((values < low - reach) | (values > high + reach)):
            warnings.warn(
                f"`{column.name}` is given far beyond the fit, which saw {low:g} to"
                f" {high:g}: the density is extrapolated there.",
                UserWarning,
                stacklevel=4,
            )


def _unpickled(config, arrays, *rest) -> TableFlow:
    flow = rbig_nnx.from_config(config, rngs=nnx.Rngs(0))
    return TableFlow(with_arrays(flow, arrays), *rest)


def _on_flow(function):
    """Compiles a function of (flow, rows, contexts), once for each structure of flow."""
    return jax.jit(
        lambda graphdef, state, *rows: function(nnx.merge(graphdef, state), *rows),
        static_argnums=0,
    )


_log_prob = _on_flow(lambda flow, *rows: flow.log_prob(*rows))
_forward = _on_flow(lambda flow, *rows: flow.forward_and_log_det(*rows)[0])
_inverse = _on_flow(lambda flow, *rows: flow.inverse_and_log_det(*rows)[0])
_normal = jax.jit(jax.random.normal, static_argnums=1)


def checkpoint_in(path: str | os.PathLike) -> Path:
    """The checkpoint itself, or the one in the folder of a command's fit."""
    place = located(path)
    return place / FLOW if (place / FLOW).is_dir() else place


def _check_memory(num_rows: int, width: int) -> None:
    """Refuses rows that the machine cannot hold, where it says how much that is."""
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_rows * width * 8 > memory:
        raise InputError(
            f"`n_samples` must fit into the memory of {memory / 1e9:.0f} GB; got"
            f" {num_rows:,}. Draw fewer at a time, or into a file by `rbig-nnx sample`."
        )
