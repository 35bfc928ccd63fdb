import numpy as np
import pandas as pd
import pytest

from trainers.rows.encoded import EncodedParts
from trainers.rows.files import RowFiles
from trainers.tables.checks import InputError
from trainers.tables.parts import open_blocks
from trainers.tables.schema import Schema

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "x": 1.7e9 + RNG.normal(size=4_000),
        "n": RNG.poisson(3, 4_000),
        "row": range(4_000),
    }
)


@pytest.fixture
def encoded(tmp_path):
    TABLE.to_parquet(tmp_path / "x.parquet", row_group_size=500)
    parts = open_blocks(tmp_path / "x.parquet")
    options = {"fractions": (0.8, 0.1, 0.1), "seed": 0, "num_bytes": 10_000}
    return EncodedParts(parts, Schema.of(TABLE), **options)


def test_every_row_is_in_one_part(encoded):
    parts = [encoded.held(name, 10_000) for name in ("valid", "test")]
    for frame, numbers in parts:
        np.testing.assert_array_equal(frame["row"].values, numbers)
    held = [set(numbers) for _, numbers in parts]
    assert not held[0] & held[1]
    assert encoded.shape == (4_000 - len(held[0]) - len(held[1]), 3)
    assert 300 < len(held[0]) < 500
    assert [len(found) for found in encoded.held("test", 50)] == [50, 50]


def test_rows_are_encoded_alike_at_every_reading(encoded):
    schema = Schema.of(TABLE)
    rows = np.concatenate([encoded.read(*block) for block in encoded.blocks(0)])
    assert rows.shape == encoded.shape
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(
        rows, np.concatenate([encoded.read(*block) for block in encoded.blocks(0)])
    )
    frame = schema.decode_frame(rows)
    found = frame["row"].values
    assert len(set(found)) == len(rows)
    np.testing.assert_array_equal(frame["n"].values, TABLE["n"][found])


def test_training_reads_them(encoded):
    source = RowFiles(encoded, seed=0, window_bytes=20_000)
    assert source.num_rows == encoded.shape[0]
    batches = source.batches(0, 3, 64)
    assert batches.shape == (3, 64, 3)
    assert np.abs(batches.mean()) < 0.3


def test_what_a_part_did_not_show_is_said(tmp_path):
    TABLE.assign(n=np.where(TABLE["row"] == 3_999, -1, TABLE["n"])).to_parquet(
        tmp_path / "x.parquet", row_group_size=500
    )
    schema = Schema.of(TABLE.head(2_000), {"n": "categorical"})
    parts = EncodedParts(
        open_blocks(tmp_path / "x.parquet"),
        schema,
        fractions=(0.98, 0.01, 0.01),
        seed=0,
        num_bytes=1,
    )
    with pytest.raises(InputError, match="found on a part of the rows"):
        [parts.read(*block) for block in parts.blocks(0)]
