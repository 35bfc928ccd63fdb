"""Two runs never work in one folder."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest

from trainers.paths import located
from trainers.placement import lock
from trainers.placement.lock import InUseError, alone_in, check_alone

ROOT = pathlib.Path(__file__).parents[3]


_HOLD = """
import sys
from trainers.placement.lock import alone_in
with alone_in(sys.argv[1]):
    print("began", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other(folder):
    """Another process that works in the folder."""
    command = [sys.executable, "-c", _HOLD, str(folder)]
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **ends) as process:
        assert process.stdout.readline() == b"began\n"
        yield process


def test_the_second_process_is_refused_with_the_first_ones_id(tmp_path):
    with other(tmp_path) as process:
        told = f"process {process.pid} on '{socket.gethostname()}' is at work in"
        with pytest.raises(InUseError, match=told), alone_in(tmp_path):
            pass
    with alone_in(tmp_path):
        pass


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("file", "File exists"),
        ("file/a", "Not a directory"),
        ("taken", "Is a directory"),
    ],
)
def test_a_folder_that_cannot_be_is_told(tmp_path, name, why):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / ".lock").mkdir(parents=True)
    told = rf"^`workdir` must be a folder .*; got {tmp_path / name}: {why}\. Choose"
    with pytest.raises(ValueError, match=told), alone_in(tmp_path / name):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_lock_ends_with_its_process(tmp_path):
    with other(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / ".lock").exists()
        with alone_in(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()


def test_what_is_called_within_is_the_same_run(tmp_path):
    with alone_in(tmp_path), alone_in(str(tmp_path)):
        with alone_in(tmp_path / "rungs" / "2"):
            pass
        assert not (tmp_path / "rungs").exists()
        assert (tmp_path / ".lock").exists()


def test_another_thread_is_another_run(tmp_path):
    found = []

    def enter():
        try:
            with alone_in(tmp_path):
                pass
        except InUseError as error:
            found.append(str(error))

    with alone_in(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} " in found[0]


def test_a_folder_in_which_nothing_was_written_is_not_left(tmp_path):
    with alone_in(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    with alone_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["kept"]


@pytest.mark.parametrize("text", ["", "[1]", '{"pid": "x"}', "\x1b[2J", "[" * 10**5])
def test_a_damaged_signature_names_nobody(tmp_path, text):
    with alone_in(tmp_path):
        (tmp_path / ".lock").write_text(text)
        refused = pytest.raises(InUseError, match="another process")
        with refused, lock._locked(located(tmp_path), "token"):
            pass


def test_in_a_bucket_the_later_run_takes_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "in_bucket", lambda path: True)
    monkeypatch.setattr(lock, "look_again", lambda path: None)
    monkeypatch.setattr(lock, "remove", lambda path: path.unlink())
    with alone_in(tmp_path):
        check_alone(tmp_path)
        first = (tmp_path / ".lock").read_text()
        taken = pytest.raises(InUseError, match=r"has taken over .* is kept")
        with lock._marked(located(tmp_path), "another token"), taken:
            check_alone(tmp_path)
        (tmp_path / ".lock").write_text(first)
    assert not (tmp_path / ".lock").exists()
    check_alone(tmp_path)  # nobody's
