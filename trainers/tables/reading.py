"""Tables of numbers out of files."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from trainers.tables.arrow import import_pyarrow, is_numeric
from trainers.tables.checks import InputError, as_float32, shown

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers in rows and named columns.

    Attributes:
      values: float32, [n, d].
      names: the d column names.
    """

    values: np.ndarray
    names: tuple[str, ...]


def read_table(
    path: str | pathlib.Path,
    columns: Sequence[str] | None = None,
    *,
    array: str | None = None,
) -> Table:
    """Reads a table of finite numbers from a .npy, .npz, .csv or .parquet file.

    A one-dimensional array is one column. Arrays without names get x0, x1, ...

    Args:
      path: the file.
      columns: the columns to keep, in this order. None: all.
      array: the array to take from a .npz file. None: its only one.

    Returns:
      The table, in float32.

    Raises:
      InputError: for a file that is missing, empty or unreadable, an unknown suffix or
        column, columns that are not numbers, values that are not finite in float32, and
        for a .csv or .parquet file without the `data` extra.
    """
    path = pathlib.Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"`path` must end in one of {', '.join(SUFFIXES)}, got {str(path)!r}. "
            "Convert the file to one of them."
        )
    if not path.is_file():
        raise InputError(
            f"`path` must be an existing file, got {str(path)!r}. "
            "Check the name and the folder."
        )
    if path.stat().st_size == 0:
        raise InputError(
            f"`path` must be a file with rows, got {str(path)!r} of 0 bytes. "
            "Write the file again."
        )
    if suffix in (".npy", ".npz"):
        values, names = _read_numpy(path, array)
        values, names = _select(values, names, columns)
    else:
        values, names = _read_arrow(path, columns)
    if values.shape[0] == 0 or values.shape[1] == 0:
        raise InputError(
            f"`path` must be a file with rows and columns, got {str(path)!r} with "
            f"{values.shape[0]} rows of {values.shape[1]} columns."
        )
    return Table(as_float32(values, str(path)), names)


def _read_numpy(
    path: pathlib.Path, array: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                values = loaded[_array_name(path, loaded.files, array)]
        else:
            values = loaded
    except InputError:
        raise
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"`path` must be a {path.suffix} file of plain numbers, got {str(path)!r}, "
            f"which NumPy cannot read: {error}. Save it again, without objects."
        ) from error
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise InputError(
            f"`path` must hold rows and columns, [n, d], got {str(path)!r} with shape "
            f"{values.shape}. Save x.reshape(len(x), -1) instead."
        )
    return values, default_names(values.shape[1])


def _array_name(path: pathlib.Path, found: Sequence[str], array: str | None) -> str:
    if array is None and len(found) == 1:
        return found[0]
    if array is not None and array in found:
        return array
    raise InputError(
        f"`array` must name one of the arrays of {str(path)!r}, {', '.join(found)}, "
        f"got {array!r}. Name one, or save it alone as .npy."
    )


def _read_arrow(
    path: pathlib.Path, columns: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    arrow = import_pyarrow()
    try:
        if path.suffix.lower() == ".csv":
            table = arrow.csv.read_csv(path)
            if all(_is_number(name) for name in table.column_names):  # no header
                options = arrow.csv.ReadOptions(autogenerate_column_names=True)
                table = arrow.csv.read_csv(path, read_options=options)
                table = table.rename_columns(default_names(table.num_columns))
        else:
            table = arrow.parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(
            f"`path` must be a {path.suffix} table, got {str(path)!r}, which cannot be "
            f"read: {error}. Write the file again."
        ) from error
    names = tuple(table.column_names)
    chosen = [names.index(name) for name in _known(columns, names)]
    kept = [table.column(i) for i in chosen]
    names = tuple(names[i] for i in chosen)
    words = [
        f"{name} ({column.type})"
        for name, column in zip(names, kept, strict=True)
        if not is_numeric(arrow.types, column.type)
    ]
    if words:
        raise InputError(
            f"`path` must hold numbers only, got {str(path)!r} with other columns: "
            f"{shown(words)}. Leave them out by naming the others in `columns`."
        )
    if not kept:
        return np.zeros((table.num_rows, 0)), names
    # Through float64, where a missing value is NaN.
    numbers = [c.cast(arrow.float64()).to_numpy().astype(np.float64) for c in kept]
    return np.stack(numbers, axis=1), names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _select(
    values: np.ndarray, names: tuple[str, ...], columns: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    chosen = [names.index(name) for name in _known(columns, names)]
    return values[:, chosen], tuple(names[i] for i in chosen)


def _known(columns: Sequence[str] | None, names: Sequence[str]) -> Sequence[str]:
    """The columns to keep, every one of which must exist once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"`path` must name every column differently, got twice: {shown(twice)}. "
            "Rename them."
        )
    unknown = [name for name in columns or () if name not in names]
    if unknown:
        raise InputError(
            f"`columns` must be among {shown(names, 20)}, got {shown(unknown)}. "
            "Check the spelling."
        )
    return names if columns is None else columns


def default_names(num_columns: int) -> tuple[str, ...]:
    """x0, x1, ... for columns without names."""
    return tuple(f"x{i}" for i in range(num_columns))
