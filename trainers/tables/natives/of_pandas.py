"""Types and names of pandas as JSON, and columns and headers of them."""

import decimal
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainers.tables.natives import labels, of_arrow
from trainers.tables.natives.of_objects import DIGITS, is_missing

_MASKED = (
    *(f"{u}Int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)),
    *("Float32", "Float64", "boolean"),
)
_NUMPY = (
    *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "bool"),
)
_LONG = np.dtype(np.longdouble).name  # float128 or float96, where there is one
_DATES = re.compile(r"(?:datetime64|timedelta64)\[(?:s|ms|us|ns)(?:, [\w/+:\-]+)?\]")
_OWN = ("Timestamp", "Timedelta")  # objects of pandas, with nanoseconds


def described(series: Any) -> dict[str, Any] | None:
    """The type of a Series or an Index, None where a NumPy array becomes it."""
    kind = series.dtype
    name = type(kind).__name__
    if name == "CategoricalDtype":
        return {
            "type": "category",
            "ordered": bool(kind.ordered),
            "of": described(kind.categories) or str(kind.categories.dtype),
            "levels": [labels.as_json(level) for level in kind.categories],
        }
    if name == "StringDtype":
        missing = "NaN" if isinstance(kind.na_value, float) else "NA"
        as_built = {"type": "string", "storage": kind.storage}
        return None if missing == "NaN" else as_built
    if name == "ArrowDtype":
        return {
            "type": "ArrowDtype",
            "of": of_arrow.in_full(series.array.__arrow_array__()),
        }
    if name == "SparseDtype":
        fill = labels.as_json(kind.fill_value)
        return {"type": "Sparse", "of": str(kind.subtype), "fill": fill}
    if str(kind) in (*_MASKED, "float16", _LONG):
        return {"type": str(kind)}
    return _of_objects(series) if kind == np.dtype(object) else None


def _of_objects(series: Any) -> dict[str, Any]:
    held = [value for value in series.tolist() if not is_missing(value)]
    if any(isinstance(value, decimal.Decimal) for value in held):
        exponents = [v.as_tuple().exponent for v in held if hasattr(v, "as_tuple")]
        scale = -min(int(e) for e in exponents if isinstance(e, int))
        return {"type": "object", "scale": min(max(scale, 0), DIGITS)}
    names = {type(value).__name__ for value in held}
    of = {"of": names.pop()} if len(names) == 1 and names <= {*_OWN} else {}
    zones = {str(getattr(value, "tzinfo", None)) for value in held}
    zones = {"UTC"} if len(zones) > 1 and "None" not in zones else zones
    zone = {"zone": zones.pop()} if len(zones) == 1 and zones != {"None"} else {}
    return {"type": "object"} | of | zone


def instants(series: Any) -> tuple[np.ndarray, str] | None:
    """A Series with a time zone: in UTC, and its type; None for another one.

    Narwhals knows no zones with a digit, a dash or an underscore in their names, as
    America/New_York.
    """
    kind = getattr(series, "dtype", None)
    if type(kind).__name__ != "DatetimeTZDtype":
        return None
    import pandas as pd

    zone = str(kind.tz)
    try:
        pd.DatetimeTZDtype(kind.unit, zone)
    except (TypeError, ValueError, KeyError):
        zone = "UTC"
    values = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return values, f"Datetime(time_unit={kind.unit!r}, time_zone={zone!r})"


def restored(values: np.ndarray, missing: np.ndarray, native: dict[str, Any]) -> Any:
    """A Series of the type.

    Raises:
      ValueError: a type that is not known.
    """
    import pandas as pd

    name = native["type"]
    if name == "object":
        held = _objects(values, native)
        return pd.Series(np.where(missing, None, held), dtype=object)
    if name == "category":
        return pd.Series(_category(values, missing, native))
    if name == "ArrowDtype":
        array = of_arrow.restored(values, missing, native["of"])
        return pd.Series(pd.arrays.ArrowExtensionArray(array))
    if name == "string":
        kind = pd.StringDtype(native["storage"])
        return pd.Series(np.where(missing, None, values), dtype=kind)
    if name in _MASKED:
        series = pd.Series(values).astype(name)
        return series.mask(missing) if missing.any() else series
    if name == "Sparse":
        if native["of"] not in _NUMPY:
            raise _unknown(native["of"])
        fill = labels.value_of(native["fill"])
        kind = pd.SparseDtype(native["of"], fill)
        return pd.Series(values).astype(kind)
    if name in ("float16", _LONG):
        return pd.Series(np.where(missing, np.nan, values).astype(name))
    raise _unknown(name)


def header(names: Sequence[str], written: Sequence[Any]) -> Any:
    """The index of the columns, of their names as text and their labels."""
    import pandas as pd

    own = [
        name if label is None else labels.value_of(label["name"])
        for name, label in zip(names, written, strict=True)
    ]
    of = next((label["of"] for label in written if label and "of" in label), [None])
    levels = [labels.value_of(name) for name in of]
    if len(levels) > 1:
        return pd.MultiIndex.from_tuples(own, names=levels)
    return pd.Index(own, name=levels[0], tupleize_cols=False)


def label(name: Any, index: Any) -> dict[str, Any] | None:
    """What a column is called, beside its name as text; None where that is all.

    Args:
      name: as pandas has it.
      index: of the columns.
    """
    has_levels = index.nlevels > 1 or index.name is not None
    if type(name) is str and not has_levels:
        return None
    of = {"of": list(map(labels.as_json, index.names))} if has_levels else {}
    return {"name": labels.as_json(name)} | of


def _objects(values: np.ndarray, native: dict[str, Any]) -> np.ndarray:
    """Python's objects, one for each number or date."""
    if "scale" in native:
        form = f".{min(int(native['scale']), DIGITS)}f"
        whole = values.dtype.kind in "iu"  # which `format` would make floats of
        held = [
            decimal.Decimal(value if whole else format(value, form))
            for value in values.tolist()
        ]
    elif "zone" in native or native.get("of") in _OWN:
        import pandas as pd

        held = pd.Series(values)
        if "zone" in native:
            held = held.dt.tz_localize("UTC").dt.tz_convert(native["zone"])
        if native.get("of") not in _OWN:
            held = held.array.to_pydatetime()
        held = list(held)
    elif values.dtype.kind in "mM" and values.dtype != "M8[D]":
        held = values.astype(f"{values.dtype.kind}8[us]").tolist()
    else:
        held = values.tolist()
    return _array(held)


def _array(values: list[Any]) -> np.ndarray:
    """An array of objects, also of tuples."""
    result = np.empty(len(values), object)
    result[:] = values
    return result


def _category(values: np.ndarray, missing: np.ndarray, native: dict[str, Any]) -> Any:
    import pandas as pd

    kept, of = list(map(labels.value_of, native["levels"])), native["of"]
    levels = pd.Index(kept, tupleize_cols=False)
    if isinstance(of, dict):
        levels = levels.astype(
            restored(_array(kept), np.zeros(len(kept), bool), of).dtype
        )
    elif of in _NUMPY or _DATES.fullmatch(of):
        levels = levels.astype(of)
    place = {labels.as_level(level): i for i, level in enumerate(levels)}
    codes = [-1 if gone else place[value]
             for value, gone in zip(values.tolist(), missing, strict=True)]  # fmt: skip
    kind = pd.CategoricalDtype(levels, ordered=native["ordered"])
    return pd.Categorical.from_codes(codes, dtype=kind)


def _unknown(name: Any) -> ValueError:
    return ValueError(f"a column of pandas must be of a known type; got {name!r}.")
