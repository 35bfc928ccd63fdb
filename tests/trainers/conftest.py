"""A bucket of this machine, which a storage emulator stands for."""

import os
import pathlib
import socket
import subprocess
import sys
import time
from unittest import mock

import pytest
from etils import epath

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server():
    """The address of an emulator with a bucket named "test-bucket"."""
    for package in ("gcp_storage_emulator", "gcsfs"):
        pytest.importorskip(package)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"start -H 127.0.0.1 --port {port} --default-bucket test-bucket -M"
    emulator = subprocess.Popen(
        [sys.executable, "-m", "gcp_storage_emulator", *options.split()],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    environment = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask Google
    }
    with mock.patch.dict(os.environ, environment):
        while emulator.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    emulator.terminate()
    emulator.wait()


@pytest.fixture
def bucket(server, request, tmp_path, monkeypatch):
    """A folder in the bucket; the current one of this machine stays empty."""
    monkeypatch.chdir(tmp_path)
    yield epath.Path(f"gs://test-bucket/{request.node.name.replace('[', '-')}")
    assert not list(tmp_path.iterdir())
    assert not pathlib.Path("/gs").exists()
