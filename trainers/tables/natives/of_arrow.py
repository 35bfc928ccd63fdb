"""Types of pyarrow as JSON, and columns in them."""

import decimal
import re
from typing import Any

import numpy as np

from trainers.tables.natives import labels

_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")


def described(column: Any) -> dict[str, Any] | None:
    """The type of a ChunkedArray, None where a NumPy array becomes it."""
    import pyarrow as pa

    types, kind = pa.types, column.type
    plain = (types.is_integer, types.is_float32, types.is_float64, types.is_boolean)
    plain += (types.is_string, types.is_date32, types.is_timestamp, types.is_duration)
    if any(is_it(kind) for is_it in plain):
        return None
    return in_full(column)


def in_full(column: Any) -> dict[str, Any]:
    """The type of a ChunkedArray, whichever it is."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        chunks = column.unify_dictionaries().chunks
        levels = chunks[0].dictionary.to_pylist() if chunks else []
        return {
            "type": "dictionary",
            "of": str(kind.value_type),
            "index": str(kind.index_type),
            "ordered": kind.ordered,
            "levels": [labels.as_json(level) for level in levels],
        }
    if pa.types.is_run_end_encoded(kind):
        ends, of = str(kind.run_end_type), str(kind.value_type)
        return {"type": "run_end_encoded", "of": of, "index": ends}
    return {"type": str(kind)}


def restored(values: np.ndarray, missing: np.ndarray, native: dict[str, Any]) -> Any:
    """An array of the type."""
    import pyarrow as pa

    if native["type"] == "dictionary":
        kept = list(map(labels.value_of, native["levels"]))
        place = {labels.as_level(level): i for i, level in enumerate(kept)}
        places = [None if gone else place[value]
                  for value, gone in zip(values.tolist(), missing, strict=True)]  # fmt: skip
        return pa.DictionaryArray.from_arrays(
            pa.array(places, _type(native["index"])),
            pa.array(kept, _type(native["of"])),
            ordered=native["ordered"],
        )
    if native["type"] == "run_end_encoded":
        import pyarrow.compute as pc

        inner = restored(values, missing, {"type": native["of"]})
        return pc.run_end_encode(inner, run_end_type=_type(native["index"]))
    kind = _type(native["type"])
    if values.dtype == object:
        return pa.array(values.tolist(), kind, mask=missing)
    if pa.types.is_decimal(kind):
        values = within(values, kind.precision, kind.scale)
        if values.dtype.kind in "iu":  # which pyarrow casts to long decimals only
            held = map(decimal.Decimal, values.tolist())
            return pa.array(list(held), kind, mask=missing)
    if pa.types.is_float16(kind):
        values = values.astype(np.float16)
    if pa.types.is_time(kind):  # since midnight
        count = values.astype(f"timedelta64[{kind.unit}]").astype(np.int64)
        width = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return pa.array(count, mask=missing).cast(width).cast(kind)
    return pa.array(values, mask=missing).cast(kind)


def within(x: np.ndarray, precision: int, scale: int) -> np.ndarray:
    """Rounded to what a decimal type holds; whole numbers stay so."""
    if x.dtype.kind in "iu":
        info, most = np.iinfo(x.dtype), 10 ** (precision - scale) - 1
        return np.clip(x, max(info.min, -most), min(info.max, most))
    x = x.astype(np.float64)
    top = min(10.0 ** (precision - scale) - 10.0**-scale,
              np.nextafter(10.0 ** (precision - scale), 0))  # fmt: skip
    return np.clip(np.round(x, scale), -top, top)


def _type(text: str) -> Any:
    """The type of a name that pyarrow itself prints."""
    import pyarrow as pa

    if found := _DECIMAL.fullmatch(text):
        return getattr(pa, f"decimal{found[1]}")(int(found[2]), int(found[3]))
    if found := _ZONED.fullmatch(text):
        return pa.timestamp(found[1], found[2])
    return pa.type_for_alias(text)
