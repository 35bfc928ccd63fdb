"""Real tables that ship inside packages, prepared as the literature prepares them.

Each loader returns all rows, shuffled by the seed; `splits` cuts and standardises them.
"""

import importlib.util
import os
import pathlib
import pickle
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

_MINUTES_A_DAY = 1_440


class Splits(NamedTuple):
    """Rows in units of the training rows' mean and standard deviation."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def splits(name: str, seed: int) -> Splits:
    """80 % of the rows to train on, 10 % to choose by, 10 % to judge by."""
    rows = TABLES[name](seed).astype(np.float64)
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    tenth = len(rows) // 10
    test, valid, train = rows[:tenth], rows[tenth : 2 * tenth], rows[2 * tenth :]
    mean, scale = train.mean(0), train.std(0)
    return Splits(
        *(((part - mean) / scale).astype(np.float32) for part in (train, valid, test))
    )


# Where the two large tables lie on a machine without the packages that bring them.
PACKED = "tables.npz"


def _packed() -> Mapping[str, np.ndarray]:
    """The tables that `benchmarks.accelerator.pack` wrote, if this is such a machine."""
    path = pathlib.Path(os.environ.get("RBIG_NNX_TABLES", "")) / PACKED
    return np.load(path) if path.exists() else {}


# What the measurements of `power` are rounded to, by column.
_POWER_UNITS = np.array([0.001, 0.01, 1, 1, 1, 1])


def power(seed: int) -> np.ndarray:
    """Household power, UCI: prepared as by Papamakarios et al. (MAF), 2017; [n, 6]."""
    packed = _packed()
    readings = packed["power"].T if packed else power_readings()
    noise = np.random.default_rng(seed).random(readings.shape)
    return _POWER_UNITS * (readings + noise)


def power_readings() -> np.ndarray:
    """Household power in units of the last digit, [n, 6], uint16.

    Rows that were filled with those of the day before are dropped.
    """
    import pyarrow.csv

    table = pyarrow.csv.read_csv(_folder("EnergyData") / "data/householdpower.csv")
    columns = [table.column(i).to_numpy() for i in range(1, 8)]
    values = np.stack(columns, axis=1).astype(np.float64)
    time = table.column(0).to_numpy().astype("datetime64[m]")
    minute = (time - time.astype("datetime64[D]")).astype(np.float64)
    kept = np.ones(len(values), bool)
    kept[_MINUTES_A_DAY:] = np.any(
        values[_MINUTES_A_DAY:] != values[:-_MINUTES_A_DAY], axis=1
    )
    active, _, voltage, _, *meters = values[kept].T
    rows = np.stack([active, voltage, *meters, minute[kept]], axis=1)
    return np.rint(rows / _POWER_UNITS).astype(np.uint16)


def galaxy(seed: int) -> np.ndarray:
    """A simulated galaxy survey: redshift and six magnitudes, [100 000, 7]."""
    del seed
    packed = _packed()
    if packed:
        return packed["galaxy"].T
    path = _folder("pzflow") / "example_files/galaxy-data.pkl"
    return pickle.loads(path.read_bytes()).to_numpy()


def digits(seed: int) -> np.ndarray:
    """8 × 8 digits, dequantised and taken to the line by a logit; [1 797, 64]."""
    pixels = load_digits().data
    noise = np.random.default_rng(seed).random(pixels.shape)
    p = 0.05 + 0.9 * (pixels + noise) / 17
    return np.log(p) - np.log1p(-p)


def breast_cancer(seed: int) -> np.ndarray:
    """Shapes of cell nuclei, scikit-learn's, [569, 30]."""
    del seed
    return load_breast_cancer().data


TABLES: dict[str, Callable[[int], np.ndarray]] = {
    "power": power,
    "galaxy": galaxy,
    "digits": digits,
    "breast cancer": breast_cancer,
}


def _folder(package: str) -> pathlib.Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the table of {package!r} needs that package: pip install '.[bench]'."
        )
    return pathlib.Path(spec.origin).parent
