"""Checkpoints of earlier formats, which every later release must read."""

import json

import numpy as np
import pytest

from tests.golden.regenerate import HERE, VIEWS
from trainers import load_flow
from trainers.checkpoints.format import FORMAT_VERSION

FOLDERS = sorted(HERE.glob("version_*"))


def test_the_present_format_has_its_golden_checkpoint():
    assert f"version_{FORMAT_VERSION}" in [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_golden_checkpoint_gives_its_log_prob(folder, view):
    expected = json.loads((folder / "expected.json").read_text())
    points = np.asarray(expected["points"], np.float32)
    log_prob = np.asarray(load_flow(folder, **VIEWS[view]).log_prob(points))
    np.testing.assert_allclose(log_prob, expected["log_prob"][view], rtol=1e-5)


def test_the_views_differ():
    for folder in FOLDERS:
        log_prob = json.loads((folder / "expected.json").read_text())["log_prob"]
        assert len({tuple(values) for values in log_prob.values()}) == len(VIEWS)
