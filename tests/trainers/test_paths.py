import logging
import pathlib

import pytest

from trainers import paths
from trainers.tables.checks import InputError
from trainers.tables.files import sources


class Nowhere:
    """A place in a bucket that cannot be reached."""

    def exists(self):
        logging.getLogger("gcsfs").error("a traceback")
        raise OSError("no such host")

    def __str__(self):
        return "gs://bucket/x.csv"


def test_a_bucket_that_cannot_be_reached_is_told_once(monkeypatch, caplog):
    level = logging.getLogger("gcsfs").level
    with pytest.raises(ConnectionError, match=r"^no such host$"):
        paths.exists(Nowhere())
    assert not paths.exists(pathlib.Path("/nowhere"))
    monkeypatch.setattr(sources, "as_path", lambda _: Nowhere())
    words = r"in a bucket that you may read; got gs://bucket/x.csv: no such host\."
    with pytest.raises(InputError, match=words):
        sources.find("gs://bucket/x.csv")
    assert not caplog.records
    assert logging.getLogger("gcsfs").level == level


@pytest.mark.parametrize("path", [None, 5, b"run"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match=f"a path must be a text .*; got {path!r}"):
        paths.located(path)


@pytest.mark.parametrize("path", ["http://x.org/a.csv", "file:///a.csv", "hdfs://a/b"])
def test_other_addresses_are_told_from_folders(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"must be one of this machine, or in a bucket"
    ):
        paths.placed(path)
    with pytest.raises(ValueError, match="Copy it, or mount it as a folder"):
        paths.placed(pathlib.Path(path))  # which writes one slash
    folder = pathlib.Path(path).parts[0]
    (tmp_path / folder).mkdir()
    assert paths.placed(pathlib.Path(path)) == pathlib.Path(path)
