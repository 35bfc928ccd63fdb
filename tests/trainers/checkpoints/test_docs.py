"""What docs/checkpoints.md shows, run from its first line to its last."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "checkpoints.md"


@pytest.mark.slow
def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.M | re.S)
    assert len(blocks) == 9
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), names)
    assert set(names) >= {"flow", "wide", "stacked"}
