"""Tables of numbers into files."""

import csv
import io
import pathlib
from collections.abc import Sequence

import numpy as np

from trainers.tables.arrow import import_pyarrow
from trainers.tables.checks import InputError
from trainers.tables.reading import SUFFIXES, default_names


def write_table(
    path: str | pathlib.Path, values: np.ndarray, names: Sequence[str] | None = None
) -> None:
    """Writes an array, [n, d], to a .npy, .npz, .csv or .parquet file.

    Args:
      path: the file; its suffix chooses the format.
      values: numbers, [n, d] or [n].
      names: the d column names, which .npy and .npz do not keep. None: x0, x1, ...

    Raises:
      InputError: for an unknown suffix, a missing folder or names of another number.
    """
    path = pathlib.Path(path)
    values = np.asarray(values)
    values = values[:, None] if values.ndim == 1 else values
    names = default_names(values.shape[1]) if names is None else tuple(names)
    if len(names) != values.shape[1]:
        raise InputError(
            f"`names` must name the {values.shape[1]} columns, got {len(names)} names."
        )
    if not path.parent.is_dir():
        raise InputError(
            f"`path` must be in an existing folder, got {str(path)!r}. "
            f"Make the folder {str(path.parent)!r} first."
        )
    match path.suffix.lower():
        case ".npy":
            np.save(path, values)
        case ".npz":
            np.savez(path, values=values)
        case ".csv":
            header = io.StringIO()
            csv.writer(header).writerow(names)
            # Enough digits to read the same floats back.
            form = {np.float32: "%.9g", np.float64: "%.17g"}.get(
                values.dtype.type, "%s"
            )
            np.savetxt(
                path, values, form, ",", header=header.getvalue().strip(), comments=""
            )
        case ".parquet":
            arrow = import_pyarrow()
            columns = [arrow.array(column) for column in values.T]
            arrow.parquet.write_table(
                arrow.Table.from_arrays(columns, names=list(names)), path
            )
        case _:
            raise InputError(
                f"`path` must end in one of {', '.join(SUFFIXES)}, got {str(path)!r}."
            )
