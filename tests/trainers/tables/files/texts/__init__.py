"""Small texts of many kinds, and what must come of each."""

from tests.trainers.tables.files.texts.cells import KINDS
from tests.trainers.tables.files.texts.layouts import (
    ENCODINGS,
    HEADERS,
    INDEXES,
    SEPARATORS,
)

TEXTS = {
    f"{group}: {name}": text
    for group, texts in {
        "separator": SEPARATORS,
        "header": HEADERS,
        "index": INDEXES,
        "kind": KINDS,
        "encoding": ENCODINGS,
    }.items()
    for name, text in texts.items()
}  # fmt: skip
