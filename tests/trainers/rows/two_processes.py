"""One of the processes of `test_processes.py`: python two_processes.py PORT INDEX FOLDER."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import warnings

import grain
import jax
import numpy as np

from tests.trainers.layouts import QUICK, mesh_of
from tests.trainers.tiny import Tiny
from trainers import RowFiles, fit
from trainers.rows.sources import as_source

X = (np.random.default_rng(1).normal(size=(203, 2)) ** 3).astype(np.float32)
SIZES = 60, 101, 42  # of the files
PARTS = np.split(X, np.cumsum(SIZES)[:-1])


def windows(files):
    """Blocks of six rows, about fifty of which are shuffled together."""
    return RowFiles(files, window_bytes=400)


def elements():
    """Rows of a data set of Grain's."""
    return grain.MapDataset.source(X).shuffle(seed=0).repeat()


def train(rows, mesh, **options):
    """The history of a run, as lists."""
    options = {"config": QUICK, "mesh": mesh, "progress": False, **options}
    found = fit(Tiny(), rows, **options).history
    names = ("train", "valid", "loss", "grad_norm")
    return {name: found[name].tolist() for name in names if name in found}


def stopped_and_gone_on(make, mesh, workdir):
    """The history of a run that ended after its first evaluation and began again."""

    def stop(step, model):
        del model
        if step == QUICK.eval_every:
            raise RuntimeError("stopped")

    config = dataclasses.replace(QUICK, checkpoint_every=1)
    options = {"config": config, "workdir": workdir}
    with contextlib.suppress(RuntimeError):
        train(make(), mesh, callback=stop, **options)
    return train(make(), mesh, **options)


def warned(rows):
    """What is said of rows."""
    with warnings.catch_warnings(record=True, action="always") as found:
        as_source(rows, seed=0)
    return str(found[0].message)


def refused(rows, mesh):
    """What a run raises."""
    try:
        train(rows, mesh)
    except ValueError as error:
        return str(error)
    return "nothing"


def main(port: str, index: int, folder: pathlib.Path):
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    mesh = mesh_of(8)
    files = sorted(folder.glob("x-*.npy"))
    own = files[:2] if index == 0 else files[2:]
    part = elements().batch(8)[index::2]
    few = grain.MapDataset.source(PARTS[2 * index]).batch(8, drop_remainder=True)
    (folder / f"bad-{index}").mkdir()
    uneven = grain.MapDataset.source(np.split(X, [161])[index]).repeat().batch(8)
    bad = folder / f"bad-{index}" / f"{index}.npy"
    np.save(bad, np.where(index, np.nan, PARTS[0]))
    found = {
        "shared": train(str(folder / "x-*.npy"), mesh),
        "windows": train(windows(files), mesh),
        "own": train(windows(own), mesh, x_valid=windows(own)),
        "data set": train(elements().batch(8), mesh),
        "iterator": train(iter(part), mesh),
        "resumed": stopped_and_gone_on(lambda: iter(part), mesh, folder / "run"),
        "notes": [
            windows(files).note,
            windows(own).note,
            as_source(iter(part), seed=0).note,
        ],
        "digests": [windows(f).digest(lambda file: file.name) for f in (files, own)],
        "uneven": warned(uneven),
        "ended": refused(few, mesh),
        "same": refused(iter(elements().batch(8)), mesh),
        "bad": refused(bad, mesh),
        "overlap": refused(files if index else files[:2], mesh),
    }
    (folder / f"result-{index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
