"""What the benchmark needs on a machine without network: `make bench-gpu-wheels`.

The machine has jax with CUDA; its wheels and those that jax itself needs stay behind, so
that nothing touches them. The tables go along as small files.
"""

import dataclasses
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import tyro

from benchmarks.tables import data

# Brought by jax: another version beside it could break it.
_JAX = {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum"}
_PEERS = ("flowjax", "bijx")
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 35
_LIMIT = 60  # MiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pack:
    """Downloads the wheels and packs the tables."""

    folder: pathlib.Path = pathlib.Path(".accelerator")
    python: str = "3.12"  # of the machine with the accelerator
    jax: str = "0.11.2"  # likewise


def needed() -> list[str]:
    """Requirements of this library without extras, and of the peers beside it."""
    own = [r for r in metadata.requires("rbig-nnx") or [] if "extra ==" not in r]
    return [*(r for r in own if _name(r) not in _JAX), *_PEERS]


def _name(requirement: str) -> str:
    """As wheels spell it: scikit_learn of "scikit-learn>=1.6"."""
    return re.split(r"[^\w.-]", requirement)[0].replace("-", "_").lower()


def main(pack: Pack) -> int:
    """Fills the folder; returns 1 if it is larger than it should be."""
    wheels = pack.folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for path in wheels.iterdir():
        path.unlink()
    platforms = [f"manylinux_2_{n}_x86_64" for n in range(_OLDEST_GLIBC, _NEWEST_GLIBC)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", wheels]
    command += ["--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={pack.python}"]
    command += [f"--abi={abi}" for abi in ("cp" + pack.python.replace(".", ""), "abi3")]
    command += [f"--platform={p}" for p in (*platforms, "manylinux2014_x86_64")]
    command += ["--abi=none", f"jax=={pack.jax}", *needed()]
    subprocess.run([str(part) for part in command], check=True)
    for path in wheels.iterdir():
        if _name(path.name.split("-")[0]) in _JAX:
            path.unlink()
    np.savez_compressed(
        pack.folder / data.PACKED,
        # A column after the other takes half the space.
        power=np.ascontiguousarray(data.power_readings().T),
        galaxy=np.ascontiguousarray(data.galaxy(0).astype(np.float32).T),
    )
    carried = [*wheels.iterdir(), pack.folder / data.PACKED]
    size = sum(path.stat().st_size for path in carried) / 2**20
    print(f"{len(carried) - 1} wheels and the tables: {size:.0f} MiB")
    return int(size > _LIMIT)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Pack, prog="python -m benchmarks.accelerator.pack")))
