"""pyarrow, an extra: imported where it is needed."""

from typing import Any

from trainers.tables.checks import InputError


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


def is_numeric(types: Any, kind: Any) -> bool:
    """A column without a single value counts as numbers: all of them missing."""
    checks = (types.is_integer, types.is_floating, types.is_decimal)
    checks += (types.is_boolean, types.is_null)
    return any(check(kind) for check in checks)
