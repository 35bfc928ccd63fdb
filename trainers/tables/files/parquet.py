"""Tables in .parquet files."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from trainers.paths import in_bucket
from trainers.tables.arrow import frame_of_arrow, holds, import_pyarrow
from trainers.tables.checks import InputError, printable, repeated, shown
from trainers.tables.files.sources import Source
from trainers.tables.frame import Frame

_INDEX = re.compile(r"__index_level_\d+__|__null_dask_index__")
_BUFFER_BYTES = 2**20  # read at once of each column: a row group need not fit in memory


class ParquetFile:
    """A table in a .parquet file; see `TableFile`.

    Args:
      source: the file.

    Attributes:
      types: pyarrow's, by name.
      group_rows: rows of each row group.
    """

    is_named = True

    def __init__(self, source: Source):
        self.source = source
        with self._errors():
            file = self._open()
            schema = file.schema_arrow
        if twice := repeated(schema.names):
            raise InputError(
                f"`path` must name every column differently, got {source.name} with"
                f" {printable(shown(twice))} twice. Rename them."
            )
        bad = [f"{f.name} ({f.type})" for f in schema if not holds(f.type)]
        self.names = tuple(f.name for f in schema if holds(f.type))
        self.types = {f.name: f.type for f in schema}
        self.index = _index(schema)
        self.num_rows = file.metadata.num_rows
        groups = range(file.num_row_groups)
        self.group_rows = [file.metadata.row_group(i).num_rows for i in groups]
        self.notes = source.notes
        if bad:
            self.notes += (
                f"{printable(shown(bad))} hold no numbers, words or dates and are left out"
                " (--drop)",
            )
        file.close()

    def whole(self, names: Sequence[str], limit: int | None = None) -> Frame:
        """The columns of these names, in this order; at most so many rows."""
        if limit is not None:
            first = next(self.parts(names, max(limit, 1)), None)
            return first if first is not None else self._frame(self._none(names), names)
        with self._errors(), self._open() as file:
            return self._frame(file.read(columns=list(names)), names)

    def parts(self, names: Sequence[str], rows: int) -> Iterator[Frame]:
        """The same, so many rows at a time."""
        arrow = import_pyarrow()
        with self._errors(), self._open(buffer_size=_BUFFER_BYTES) as file:
            for batch in file.iter_batches(
                rows, columns=list(names), use_threads=False
            ):
                yield self._frame(arrow.Table.from_batches([batch]), names)

    def group(self, number: int, names: Sequence[str]) -> Frame:
        """The rows of one row group."""
        with self._errors(), self._open() as file:
            return self._frame(file.read_row_group(number, columns=list(names)), names)

    def about_rows(self) -> int:
        """The number of rows."""
        return self.num_rows

    def _none(self, names: Sequence[str]) -> Any:
        with self._open() as file:
            return file.schema_arrow.empty_table().select(list(names))

    def _frame(self, table: Any, names: Sequence[str]) -> Frame:
        # Without the notes of pandas, which are about other columns than these.
        table = table.select(list(names)).replace_schema_metadata(None)
        frame = frame_of_arrow(table, self.source.name)
        return dataclasses.replace(frame, notes=self.notes)

    def _open(self, **options: Any) -> Any:
        parquet = import_pyarrow().parquet
        path = self.source.path
        file = path.open("rb") if in_bucket(path) else path
        return parquet.ParquetFile(file, pre_buffer=False, **options)

    @contextlib.contextmanager
    def _errors(self):
        arrow = import_pyarrow()
        try:
            yield
        except (arrow.ArrowException, OSError) as error:
            raise InputError(
                f"`path` must be a .parquet table, got {self.source.name}, which cannot be"
                f" read: {printable(error)}. Write the file again."
            ) from error


def _index(schema: Any) -> tuple[str, ...]:
    """The columns that were the index of a data frame of pandas or dask."""
    try:
        about = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        said = [
            name for name in about.get("index_columns", ()) if isinstance(name, str)
        ]
    except (ValueError, AttributeError):
        said = []
    return tuple(n for n in schema.names if n in said or _INDEX.fullmatch(n))
