"""Tables of numbers in and out of files, and the checks that every data set passes."""

import csv
import dataclasses
import io
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")

_NUM_SHOWN = 5  # rows or columns named in a message


class InputError(ValueError):
    """What the user gave cannot be used; the message says why and the way out."""


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
    return Table(_as_finite_float32(values, str(path)), names)


def check_rows(
    x: Any, *, name: str = "x", num_features: int | None = None
) -> np.ndarray:
    """Checks rows before any work is done with them.

    Rows to fit (`num_features` None) must be at least two, with no constant column; rows
    for a model that exists need only its width.

    Args:
      x: numbers, [n, d], or [n] for one column.
      name: what the messages call them.
      num_features: the model's width. None: rows to fit.

    Returns:
      The rows, float32, [n, d].

    Raises:
      InputError: for another shape or dtype, values that are not finite in float32, no
        rows, and in rows to fit a single row or constant columns.
    """
    x = np.asarray(x)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2:
        raise InputError(
            f"`{name}` must have rows and columns, [n, d], got shape {x.shape}. "
            "Reshape it with x.reshape(len(x), -1)."
        )
    if num_features is not None and x.shape[1] != num_features:
        raise InputError(
            f"`{name}` must have the model's {num_features} columns, got {x.shape[1]}. "
            "Choose the columns that the model was fitted to, in their order."
        )
    min_rows = 2 if num_features is None else 1
    if x.shape[0] < min_rows or x.shape[1] == 0:
        raise InputError(
            f"`{name}` must have at least {min_rows} rows and one column, got shape "
            f"{x.shape}. Give more data."
        )
    x = _as_finite_float32(x, name)
    if num_features is None:
        constant = np.flatnonzero(x.min(axis=0) == x.max(axis=0))
        if constant.size:
            raise InputError(
                f"`{name}` must vary in every column, got constant columns "
                f"{_shown(constant)} (from 0). Leave them out."
            )
    return x


def split_rows(
    n: int, *, seed: int, fractions: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """Splits row numbers 0 … n − 1 at random into disjoint parts that cover them.

    Args:
      n: number of rows.
      seed: of the shuffle; the same seed gives the same split.
      fractions: the parts' shares of the rows, which add to one.

    Returns:
      One array of row numbers a part.

    Raises:
      InputError: for shares that do not add to one, or a part without rows.
    """
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f"`fractions` must be positive and add to 1, got {tuple(fractions)}."
        )
    ends = np.round(np.cumsum(fractions) * n).astype(int)
    parts = np.split(np.random.default_rng(seed).permutation(n), ends[:-1])
    if any(part.size == 0 for part in parts):
        raise InputError(
            f"`n` must give every part at least one row, got {n} rows in parts of "
            f"{[part.size for part in parts]}. Give more rows or other `fractions`."
        )
    return tuple(parts)


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
    names = _default_names(values.shape[1]) if names is None else tuple(names)
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
    return values, _default_names(values.shape[1])


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
                table = table.rename_columns(_default_names(table.num_columns))
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
        if not _is_numeric(arrow.types, column.type)
    ]
    if words:
        raise InputError(
            f"`path` must hold numbers only, got {str(path)!r} with other columns: "
            f"{_shown(words)}. Leave them out by naming the others in `columns`."
        )
    if not kept:
        return np.zeros((table.num_rows, 0)), names
    # Through float64, where a missing value is NaN.
    numbers = [c.cast(arrow.float64()).to_numpy().astype(np.float64) for c in kept]
    return np.stack(numbers, axis=1), names


def _is_numeric(types: Any, kind: Any) -> bool:
    """A column without a single value counts as numbers: all of them missing."""
    checks = (types.is_integer, types.is_floating, types.is_decimal)
    checks += (types.is_boolean, types.is_null)
    return any(check(kind) for check in checks)


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
            f"`path` must name every column differently, got twice: {_shown(twice)}. "
            "Rename them."
        )
    unknown = [name for name in columns or () if name not in names]
    if unknown:
        raise InputError(
            f"`columns` must be among {_shown(names, 20)}, got {_shown(unknown)}. "
            "Check the spelling."
        )
    return names if columns is None else columns


def _as_finite_float32(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind not in "fiub":
        raise InputError(
            f"`{name}` must hold real numbers, got dtype {values.dtype}. "
            "Convert it with x.astype(float), or leave out the columns that are text."
        )
    with np.errstate(over="ignore"):
        values32 = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values32).all(axis=1))
    if bad.size:
        raise InputError(
            f"`{name}` must be finite in float32, got NaN, inf or a missing value in "
            f"{bad.size} of {len(values)} rows, the first {_shown(bad)} (from 0). "
            "Drop these rows or fill their values in."
        )
    return values32


def _default_names(num_columns: int) -> tuple[str, ...]:
    return tuple(f"x{i}" for i in range(num_columns))


def _shown(items: Sequence[Any] | np.ndarray, limit: int = _NUM_SHOWN) -> str:
    dots = ", …" if len(items) > limit else ""
    return ", ".join(str(item) for item in items[:limit]) + dots


def import_pyarrow() -> Any:
    """The package, or an InputError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "`path` must be .npy or .npz without pyarrow, which reads .csv and .parquet. "
            "Install it with: pip install 'rbig-nnx[data]'"
        ) from error
    return pyarrow
