"""Rows in a bucket, which is a dictionary here."""

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from trainers import paths
from trainers.checkpoints.identity import file_digest
from trainers.rows.files import RowFiles
from trainers.rows.sources import as_source
from trainers.tables import read_frame

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
X = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)


class Bucket(MemoryFileSystem):
    """Answers to the names of a bucket."""

    protocol = "s3"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs: list = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("s3://").strip("/")


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch:  # no s3fs is needed
        patch.setitem(paths._BUCKETS, "s3", ("fsspec", "fsspec"))
        yield _filled()


def _filled():
    fsspec.register_implementation("s3", Bucket, clobber=True)
    files = fsspec.filesystem("s3")
    for number, rows in enumerate(np.split(X, [80, 200])):
        with files.open(f"s3://rows/x-{number}.npy", "wb") as file:
            np.save(file, rows)
        with files.open(f"s3://rows/x-{number}.parquet", "wb") as file:
            columns = {f"x{j}": rows[:, j] for j in range(3)}
            parquet.write_table(pa.table(columns), file, row_group_size=50)
    return files


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_rows_of_a_bucket_are_those_of_the_files(bucket, tmp_path, suffix):
    for number in range(3):
        name = f"x-{number}.{suffix}"
        bucket.get(f"s3://rows/{name}", str(tmp_path / name))
    options = {"columns": ["x2", "x0"], "window_bytes": 800}
    there = RowFiles(f"s3://rows/x-*.{suffix}", **options)
    here = RowFiles(f"{tmp_path}/x-*.{suffix}", **options)
    assert (there.num_rows, there.num_features) == (300, 2)
    np.testing.assert_array_equal(there.batches(0, 40, 7), here.batches(0, 40, 7))
    assert there.digest(file_digest) == here.digest(file_digest)
    frame = read_frame(f"s3://rows/x-1.{suffix}")
    np.testing.assert_array_equal(frame["x1"].values, X[80:200, 1])


def test_what_is_not_in_a_bucket_is_said(bucket):
    del bucket
    with pytest.raises(ValueError, match="no file matches s3://rows/y-"):
        as_source("s3://rows/y-*.npy", seed=0)
    with pytest.raises(ValueError, match=r"s3://rows/none.npy is not there"):
        as_source("s3://rows/none.npy", seed=0)
    with pytest.raises(ValueError, match=r"a bucket \(gs:// and s3://\); got az://"):
        as_source("az://rows/x.npy", seed=0)
