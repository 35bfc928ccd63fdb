"""Tables that are read by parts: .npy files by rows, .parquet files by row groups."""

import pathlib
from typing import Any

import numpy as np

from trainers.tables.arrow import import_pyarrow, is_numeric


def open_parts(path: Any) -> "NpyParts | ParquetParts":
    """The file at a path, or behind a memory map, to be read by parts."""
    if isinstance(path, np.memmap):
        return NpyParts(path.filename)
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"`path` must be a file; {path} is not there.")
    if path.suffix == ".npy":
        return NpyParts(path)
    if path.suffix == ".parquet":
        return ParquetParts(path)
    raise ValueError(
        f"`path` must be a .npy or .parquet file to be read by parts; got {path.name}."
        " Read smaller files whole with trainers.tables.read_table."
    )


class NpyParts:
    """Rows of a .npy file, [n, d].

    Attributes:
      path: the file.
      shape: n, d.
    """

    def __init__(self, path):
        self.path = path
        array = np.load(path, mmap_mode="r")
        if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
            raise ValueError(
                f"{path} must hold numbers, [rows, features] with at least one of each;"
                f" got shape {array.shape} of {array.dtype}."
            )
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{path} must be in C order to be read by rows. Save it with"
                " np.save(path, np.ascontiguousarray(x))."
            )
        self.shape, self._dtype, self._offset = array.shape, array.dtype, array.offset

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last rows of parts of about so many bytes."""
        size = max(num_bytes // (4 * self.shape[1]), 1)
        starts = range(0, self.shape[0], size)
        return [(start, min(start + size, self.shape[0])) for start in starts]

    def read(self, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to before `stop`, float32."""
        # Not through the map, whose pages would count as this process's memory.
        width = self.shape[1]
        offset = self._offset + start * width * self._dtype.itemsize
        count = (stop - start) * width
        rows = np.fromfile(self.path, self._dtype, count, offset=offset)
        return rows.reshape(-1, width).astype(np.float32)


class ParquetParts:
    """Rows of a .parquet file, whose row groups are read whole.

    Attributes:
      path: the file.
      shape: n, d.
    """

    def __init__(self, path):
        self.path = path
        arrow = import_pyarrow()
        self._file = arrow.parquet.ParquetFile(path)
        schema = self._file.schema_arrow
        bad = [f.name for f in schema if not is_numeric(arrow.types, f.type)]
        if bad or not len(schema):
            raise ValueError(
                f"{path} must have columns of numbers; {bad or 'it has none'}. Drop or"
                " encode the others."
            )
        groups = range(self._file.num_row_groups)
        sizes = [self._file.metadata.row_group(i).num_rows for i in groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self.shape = int(self._starts[-1]), len(schema)
        if not self.shape[0]:
            raise ValueError(f"{path} must hold at least one row; it is empty.")

    def blocks(self, num_bytes: int) -> list[tuple[int, int]]:
        """First and last rows of the row groups."""
        del num_bytes  # a row group is the least that can be read
        pairs = zip(self._starts[:-1], self._starts[1:], strict=True)
        return [(int(a), int(b)) for a, b in pairs if b > a]

    def read(self, start: int, stop: int) -> np.ndarray:
        """The row group that starts with row `start`, float32."""
        del stop
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        table = self._file.read_row_group(group)
        rows = np.empty((table.num_rows, self.shape[1]), np.float32)
        for j, column in enumerate(table.columns):
            rows[:, j] = column.to_numpy()
        return rows
