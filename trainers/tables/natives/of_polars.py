"""Types of polars as JSON, and columns in them."""

from typing import Any

import numpy as np

from trainers.tables.natives.of_arrow import within

_BY_NAME = ("Float16", "Int128", "UInt128")  # types that NumPy or narwhals lack


def described(series: Any) -> dict[str, Any] | None:
    """The type of a Series, None where a NumPy array becomes it."""
    import polars as pl

    kind = series.dtype
    if isinstance(kind, pl.Enum):
        return {"type": "Enum", "levels": kind.categories.to_list()}
    if isinstance(kind, pl.Decimal):
        return {"type": "Decimal", "precision": kind.precision, "scale": kind.scale}
    categories = getattr(kind, "categories", None)
    if isinstance(kind, pl.Categorical) and categories is not None:
        # Of the nameless ones there is one set for all.
        names = {n: getattr(categories, n)() for n in ("name", "namespace")}
        return {"type": "Categorical"} | names if names["name"] else None
    return {"type": str(kind)} if str(kind) in _BY_NAME else None


def restored(values: np.ndarray, missing: np.ndarray, native: dict[str, Any]) -> Any:
    """A Series of the type."""
    import polars as pl

    name = native["type"]
    if name == "Decimal":
        precision = native["precision"] or 38
        values = within(values, precision, native["scale"])
        kind = pl.Decimal(native["precision"], native["scale"])
    elif name == "Enum":
        kind = pl.Enum(native["levels"])
    elif name == "Categorical":
        kind = pl.Categorical(
            pl.Categories(native["name"], namespace=native["namespace"])
        )
    elif name in _BY_NAME:
        kind = getattr(pl, name)
    else:
        raise ValueError(f"a column of polars must be of a known type; got {name!r}.")
    if missing.any() or values.dtype == object:
        values = [None if gone else value
                  for value, gone in zip(values.tolist(), missing, strict=True)]  # fmt: skip
    return pl.Series(values).cast(kind)
