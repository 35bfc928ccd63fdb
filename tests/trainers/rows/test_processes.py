"""Rows that two processes read, over loopback: the losses of one, from the same rows."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.trainers.layouts import mesh_of
from tests.trainers.rows import two_processes
from tests.trainers.rows.two_processes import PARTS, X, elements, train, windows
from trainers.rows.sources import as_source

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder of files, and what each of two processes found."""
    folder = tmp_path_factory.mktemp("pair")
    for number, rows in enumerate(PARTS):
        np.save(folder / f"x-{number}.npy", rows)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", two_processes.__name__, port]
    environment = {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    processes = [
        subprocess.Popen(
            [*command, str(index), str(folder)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = [json.loads((folder / f"result-{i}.json").read_text()) for i in range(2)]
    return folder, found


@pytest.mark.parametrize("kind", ["shared", "windows", "own", "data set", "iterator"])
def test_two_processes_train_on_the_rows_of_one(pair, kind):
    folder, found = pair
    files = sorted(folder.glob("x-*.npy"))
    rows = {
        "shared": files,
        "windows": windows(files),
        "own": windows(files),
    }.get(kind) or elements().batch(16)
    scored = {"x_valid": X} if kind == "own" else {}
    one = train(rows, mesh_of(8), **scored)
    for process in found:
        for name, values in process[kind].items():
            np.testing.assert_allclose(values, one[name], rtol=1e-6, err_msg=name)


def test_iterators_of_two_processes_go_on_where_they_were(pair):
    for process in pair[1]:
        assert process["resumed"]["train"] == process["iterator"]["train"]
    two = {"processes": [{"json": {"next_index": 3}}] * 2}
    with pytest.raises(ValueError, match=r"processes as before, .*: 2; got 1"):
        as_source(iter(elements().batch(16)), seed=0).set_state(two)


def test_two_processes_say_what_each_reads(pair):
    folder, found = pair
    files = sorted(folder.glob("x-*.npy"))
    own = windows(files).digest(lambda file: file.name)
    for process in found:
        shared, apart, iterator = process["notes"]
        assert "2 processes share the 203 rows of 3 files" in shared
        assert "161, 42 rows: one data set of 203, of which none is left out" in apart
        assert "gives its part of every batch" in iterator
        assert process["digests"] == [own, own]
        assert (
            "repeats data sets of different length in the processes, 161, 42"
            in (process["uneven"])
        )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("ended", "`x_train` must give a batch for every step; it ended after 5"),
        ("same", "each of the 2 processes its own rows; got the same first batch"),
        ("bad", "1.npy` must be finite in float32"),
        ("overlap", "got x-0.npy in processes 0 and 1, and others in one of them"),
    ],
)
def test_both_processes_are_told_what_is_wrong_in_one(pair, kind, message):
    for process in pair[1]:
        assert message in process[kind]
