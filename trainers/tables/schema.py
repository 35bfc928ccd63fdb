"""What was learned of a table: how its rows become numbers that a flow can fit, and back."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from trainers.tables.checks import (
    InputError,
    check_finite,
    near,
    refuse_twice,
    shown,
)
from trainers.tables.columns import (
    ColumnSchema,
    in_order,
    learned,
    refuse_missing,
    without_states,
)
from trainers.tables.door import as_frame
from trainers.tables.frame import ARRAY, Frame, numbered
from trainers.tables.kinds import Skipped, dependence, of_json
from trainers.tables.kinds.found import KindsTable, asked_of, kinds_table
from trainers.tables.kinds.levels import array_of

_VERSION = 1
_LEAST = np.finfo(np.float64).tiny


class Encoded(NamedTuple):
    """Rows that a flow can fit, with log|det| (and minus the log density of the noise)."""

    rows: np.ndarray  # float32, [n, width]
    log_det: np.ndarray  # float64, [n]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
    """The columns of a table, and how its rows become float32 of mean 0 and spread about 1.

    log p(row) = log p_flow(encoded row) + log_det, per unit of each continuous column and a
    mass for each discrete one; with discrete columns the mean of p over draws of the noise.

    Attributes:
      columns: of the table, those that are skipped too.
      origin: what `decode` gives back: "numpy", "pandas", "polars" or "pyarrow".
      notes: what is worth a warning.

    Example:
      >>> import numpy as np
      >>> from trainers import Schema
      >>> x = np.random.default_rng(0).normal(1.7e9, 1e4, size=(1_000, 2))
      >>> schema = Schema.of(x)
      >>> rows, log_det = schema.encode(x)
      >>> print(rows.dtype, abs(rows.std() - 1) < 0.1, log_det.shape)
      float32 True (1000,)
      >>> print(abs(schema.decode(rows) - x).max() < 1)
      True
    """

    columns: tuple[ColumnSchema, ...]
    origin: str = ARRAY
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        table: Any,
        kinds: str | Mapping[Any, str] = "auto",
        *,
        masses: bool = True,
        given: bool = False,
        whole: bool = True,
        name: str = "X",
    ) -> Self:
        """What a table's columns are.

        Args:
          table: an array, a DataFrame, a `Frame` or a path; at least two rows.
          kinds: "auto", or a mapping of some columns' names (or numbers) to "continuous",
            "positive", "bounded(lo, hi)", "rounded(step)", "integer", "spike(value)",
            "categorical", "boolean", "date" or "skipped".
          masses: False takes rounded columns as densities.
          given: whether it is a context: nothing is dequantised, constants are left out.
          whole: False lets missing values pass, which `encode` will not take.
          name: what the messages call the table.

        Raises:
          InputError: missing values, unknown names in `kinds`, words that are numbers, or
            no column to model.
        """
        frame = as_frame(table, name=name)
        asked = asked_of(kinds, frame.names)
        columns, notes = [], []
        for number, column in enumerate(frame.columns):
            # The columns of arrays have numbers for names.
            called = repr(column.name) if frame.is_named else f"{number} (from 0)"
            options = {"where": f"column {called}", "mass": masses, "given": given}
            schema, said = learned(column, asked.get(column.name), **options)
            columns.append(schema)
            notes += said
        if whole:
            refuse_missing(frame, skipped=without_states(columns), name=name)
        if whole and not given:
            columns = in_order(dependence.without_copies(columns, frame, asked), frame)
            notes += dependence.notes(columns, frame)
        schema = cls(columns=tuple(columns), origin=frame.origin, notes=tuple(notes))
        if not schema.width and not given:
            reasons = (f"{c.name} ({c.why})" for c in columns)
            raise InputError(
                f"`{name}` must have a column to model; got {shown(list(reasons))}."
                " Constant columns, text and copies are left out."
            )
        return schema

    @property
    def kept(self) -> tuple[ColumnSchema, ...]:
        """The columns that are modelled."""
        return tuple(c for c in self.columns if not isinstance(c.kind, Skipped))

    def column(self, name: str) -> ColumnSchema:
        """The column of a name."""
        return self.columns[self.names.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """Encoded columns."""
        return sum(column.kind.width for column in self.columns)

    @property
    def noise(self) -> int:
        """Uniform numbers a row needs; 0 where nothing is discrete."""
        return sum(column.kind.noise for column in self.columns)

    def matched(self, table: Any, *, name: str = "X") -> Frame:
        """The table's columns in the order of the schema: by name.

        Skipped columns may be missing, and others may be there. By place where the table,
        or that of the fit, had no names.

        Raises:
          InputError: a column that is not there, or arrays of another width.
        """
        formats = {c.name: c.known_format for c in self.columns}
        frame = as_frame(table, name=name, date_formats=formats)
        if frame.names == self.names:
            return frame
        wanted = [c.name for c in self.kept]
        if frame.is_named and set(wanted) <= set(frame.names):
            return frame.select(n for n in self.names if n in frame.names)
        was_named = self.origin != ARRAY or self.names != numbered(len(self.names))
        if not (frame.is_named and was_named):
            if len(frame.columns) != len(self.columns):
                raise InputError(
                    f"`{name}` must have the {len(self.columns)} columns of the fit, got"
                    f" {len(frame.columns)}. Choose them in their order."
                )
            pairs = zip(frame.columns, self.names, strict=True)
            columns = (dataclasses.replace(c, name=n) for c, n in pairs)
            return dataclasses.replace(frame, columns=tuple(columns))
        absent = [n for n in wanted if n not in frame.names]
        raise InputError(
            f"`{name}` must have the columns of the fit; {shown(absent)} not among"
            f" {shown(frame.names, 20)}. Rename or add them.{near(absent, frame.names)}"
        )

    def encode(
        self, table: Any, *, noise: np.ndarray | None = None, seed: int = 0
    ) -> Encoded:
        """Rows for the flow, and log|det|.

        Args:
          table: as in `of`, with the columns of the fit.
          noise: uniform numbers in (0, 1), [n, noise], or [noise] for all rows alike.
          seed: of the noise where none is given: rows to train on.

        Raises:
          InputError: missing values, or other columns.
        """
        frame = self.matched(table)
        refuse_missing(
            frame, skipped={c.name for c in self.columns if not c.kind.width}
        )
        n = len(frame)
        if noise is None:
            noise = np.random.default_rng(seed).random((n, self.noise))
        noise = np.broadcast_to(np.clip(noise, _LEAST, 1 - 1e-16), (n, self.noise))
        rows = np.empty((n, self.width), np.float32)
        log_det = np.zeros(n)
        at = used = 0
        for column in self.kept:
            kind = column.kind
            values = column.numbers(frame[column.name])
            u = noise[:, used : used + kind.noise]
            z, gained = kind.encode(values, u)
            log_det += gained
            rows[:, at : at + kind.width] = np.clip(z, -1e30, 1e30)
            at, used = at + kind.width, used + kind.noise
        # A row of mass 0 has no place; any will do.
        rows[~np.isfinite(log_det)] = 0
        return Encoded(rows, log_det)

    def draws(self, num_draws: int) -> np.ndarray:
        """Noise to average over, the same for all rows, [k, noise] or [1, 0]: a lattice."""
        if not self.noise:
            return np.empty((1, 0))
        if num_draws == 1:
            return np.full((1, self.noise), 0.5)
        from scipy.stats import qmc  # here, since it takes half a second

        return qmc.Halton(self.noise, seed=0).random(num_draws)

    def encodings(self, table: Any, num_draws: int) -> Iterator[Encoded]:
        """`encode` for each of the `draws`."""
        frame = self.matched(table)
        return (self.encode(frame, noise=noise) for noise in self.draws(num_draws))

    def context(self, table: Any, *, name: str = "context") -> np.ndarray:
        """Rows of a context, float32, [n, c]: numbers at their scale, levels one-hot."""
        frame = self.matched(table, name=name)
        refuse_missing(
            frame, skipped={c.name for c in self.columns if not c.kind.width}, name=name
        )
        for c in self.kept:
            known = c.kind.knows(c.numbers(frame[c.name]))
            if not known.all():
                new = frame[c.name].values[~known]
                seen = [str(level) for level in getattr(c.kind, "levels", ())]
                among = f", in {c.name} {shown(seen, 12)}" if seen else ""
                raise InputError(
                    f"`{name}` must hold values that the fit has seen{among}; got"
                    f" {new[0]!r} in {c.name} ({len(new)} of {len(known)} rows)."
                    f"{near([str(new[0])], seen)}"
                )
        parts = [c.kind.context(c.numbers(frame[c.name])) for c in self.kept]
        whole = np.concatenate([np.empty((len(frame), 0)), *parts], axis=1)
        return whole.astype(np.float32)

    def knows(self, table: Any) -> np.ndarray:
        """Whether `context` takes a row, [n]: others hold levels that the fit has not seen."""
        frame = self.matched(table, name="context")
        known = [c.kind.knows(c.numbers(frame[c.name])) for c in self.kept]
        return np.all([np.ones(len(frame), bool), *known], axis=0)

    def decode_frame(self, rows: np.ndarray) -> Frame:
        """The table of encoded rows, [n, width].

        Columns that cannot be told are left out; of arrays, whose places count, they are
        missing values.
        """
        rows = np.asarray(rows, np.float64)
        found: dict[str, np.ndarray] = {}
        at = 0
        for column in self.kept:
            width = column.kind.width
            found[column.name] = column.kind.decode(rows[:, at : at + width])
            at += width
        for column in self.columns:
            kind = column.kind
            if isinstance(kind, Skipped) and kind.of is not None:
                of = np.asarray(found[kind.of], np.float64)
                found[column.name] = kind.factor * of + kind.offset
            elif isinstance(kind, Skipped) and kind.value is not None:
                dtype = object if isinstance(kind.value, str) else None
                found[column.name] = np.full(len(rows), kind.value, dtype)
        columns = (
            c.column(found[c.name]) if c.name in found else c.nothing(len(rows))
            for c in self.columns
            if c.name in found or self.origin == ARRAY
        )
        return Frame(tuple(columns), self.origin)

    def decode(self, rows: np.ndarray) -> Any:
        """The table of encoded rows, [n, width], as the fitted one came.

        Raises:
          InputError: rows of another width, or that are not finite.
        """
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise InputError(
                f"`rows` must be encoded, [n, {self.width}], as `encode` gives them; got"
                f" shape {rows.shape}."
            )
        check_finite(rows, "rows")
        return self.decode_frame(rows).native()

    def about(self) -> list[dict[str, Any]]:
        """The columns for people, as JSON: what each is, why, and what log p is of it."""
        return [column.about() for column in self.columns]

    def table(self) -> KindsTable:
        """The kinds for people: column, kind, why, range, missing; `print` shows it."""
        return kinds_table(self.about())

    def to_config(self) -> dict[str, Any]:
        """JSON that `from_config` takes."""
        columns = [column.to_config() for column in self.columns]
        return {"version": _VERSION, "origin": self.origin, "columns": columns}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The schema that `to_config` described.

        Raises:
          ValueError: anything else.
        """
        try:
            columns = tuple(of_json(ColumnSchema, c) for c in config["columns"])
            schema = cls(columns=columns, origin=config["origin"])
            refuse_twice(schema.names, "columns")
            schema.try_out()
        except Exception as error:  # whatever a file may hold
            raise ValueError(f"{type(error).__name__}: {error}") from error
        return schema

    def try_out(self) -> np.ndarray:
        """Writes and reads one row; the context that it is, [1, c].

        Columns may each be as declared, and not fit what is said elsewhere of them.
        """
        context = [np.empty((1, 0))]
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            frame = self.decode_frame(np.zeros((1, self.width)))
            for column in self.columns:
                column.refuse_contradictions()
                kind, levels = column.kind, getattr(column.kind, "levels", ())
                with contextlib.suppress(ImportError):  # to score takes no such library
                    if column.native and levels:
                        every = column.column(array_of(levels))
                        Frame((every,), self.origin).native()
                if kind.width:
                    x = column.numbers(frame[column.name])
                    kind.encode(x, np.full((1, kind.noise), 0.5))
                    context.append(kind.context(x))
            with contextlib.suppress(ImportError):
                frame.native()
        return np.concatenate(context, axis=1)
