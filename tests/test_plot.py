import sys

import numpy as np
import pytest

from rbig_nnx import plot


def histories():
    steps = np.arange(5) * 100
    rising = -2 + 0.15 * np.arange(5)
    return {
        name: {
            "steps": steps,
            "train": np.stack([rising, rising]),
            "valid": rising - 0.1,
        }
        for name in ("warm start", "random init")
    }


def grid():
    x, y = np.meshgrid(np.linspace(-1, 1, 10), np.linspace(-1, 1, 12))
    return x, y, -(x**2) - y**2


PICTURES = {
    "curves": lambda path: plot.curves(histories(), -1.3, path),
    "curves without a limit": lambda path: plot.curves(histories(), None, path),
    "kernels": lambda path: plot.kernel_magnitudes((0.0, 0.0), (0.3, 0.1), path),
    "densities": lambda path: plot.densities(
        {"a": grid(), "b": grid()}, np.zeros((3, 2)), path
    ),
    "one density": lambda path: plot.densities({"a": grid()}, None, path),
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_written(name, tmp_path):
    path = tmp_path / "picture.png"
    PICTURES[name](path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5_000


def test_missing_matplotlib_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'rbig-nnx\[plot\]'"):
        plot.curves(histories(), None, tmp_path / "picture.png")
