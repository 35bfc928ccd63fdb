import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from tests.trainers.command.conftest import command
from trainers.command import cli, fit_file, program, reports


def test_version():
    ended = command("--version")
    assert ended.code == 0
    assert ended.out.startswith("rbig-nnx 0.")


@pytest.mark.parametrize("name", [k.__name__.lower() for k in cli.COMMANDS.__args__])
def test_every_command_has_an_example_and_says_its_defaults(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert f"Example: rbig-nnx {name}" in said
    assert "pyright" not in said
    assert "`" not in said
    if name in ("fit", "sample", "demo", "information"):
        assert "(default:" in said


def test_help_reads_no_jax():
    code = "import sys, trainers.command.cli; print('jax' in sys.modules)"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
    assert time.perf_counter() - began < 10


@pytest.fixture
def in_front():
    """Ctrl-C counts, also where the tests run behind a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wrapped", ["as it is", "as an error of XLA"])
def test_a_signal_ends_a_command_in_any_phase(monkeypatch, tmp_path, number, wrapped):
    """Before, behind and beside the training, which has its own way to stop."""
    before = signal.getsignal(number)
    file = tmp_path / "rows.csv"
    file.write_text("a\n1\n2\n")

    def stopped(*args, **options):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            if wrapped == "as it is":
                raise
        raise RuntimeError("KeyboardInterrupt: <no message>")

    monkeypatch.setattr(fit_file, "open_table", stopped)
    ended = command("fit", file, "--workdir", tmp_path / "run")
    assert ended.code == 128 + number
    assert ended.err.splitlines()[-1] == (
        "rbig-nnx: interrupted; what it had finished is kept, and the same line goes on"
        " after it."
    )
    assert "Traceback" not in ended.err
    assert signal.getsignal(number) is before
    assert not (tmp_path / "run").exists()


def ended_after(seconds, number, folder):
    """A fit as a program of its own, and a signal; what it leaves is in the folder."""
    file = folder / "rows.csv"
    file.write_text("a\n" + "".join(f"{i * i % 97}.5\n" for i in range(200)))
    line = ["fit", str(file), "--workdir", str(folder / "run"), "--budget", "1s"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", FRONT, *line], **pipes, text=True
    ) as process:
        process.stdout.readline()  # the interpreter has started, however busy the machine
        time.sleep(seconds)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    return process.returncode, said


# As `rbig-nnx`, but with Ctrl-C also behind a shell that ignores it.
FRONT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from trainers.command import program
print("started", flush=True)
raise SystemExit(program())
"""
MOMENTS = [round(0.15 + 0.07 * i, 2) for i in range(60)]  # until into the warm start


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(s, marks=[] if s in (0.29, 0.71, 1.06) else pytest.mark.slow)
        for s in MOMENTS
    ],
)
def test_a_program_that_loads_what_it_needs_ends_at_a_signal(tmp_path, seconds):
    """Extensions in C print what they catch, and callbacks of JAX lose what they raise."""
    number = (signal.SIGINT, signal.SIGTERM)[int(seconds * 100) % 2]
    code, said = ended_after(seconds, number, tmp_path)
    assert code == 128 + number, said
    assert said.splitlines()[-1].startswith("rbig-nnx: interrupted; "), said
    assert "Traceback" not in said, said
    assert "Exception" not in said, said


def test_a_timer_that_was_left_running_does_not_hold_the_program_up(monkeypatch):
    timer = threading.Timer(60, print)
    monkeypatch.setattr(cli, "main", lambda: timer.start() or 130)
    assert program() == 130
    timer.join(timeout=5)
    assert not timer.is_alive()


@pytest.mark.usefixtures("in_front")
def test_a_signal_that_a_callback_cannot_raise_is_not_lost(monkeypatch, tmp_path):
    def swallowed(*args, **options):
        class Bare:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)

        Bare()
        time.sleep(5)

    monkeypatch.setattr(reports, "show", swallowed)
    ended = command("report", tmp_path)
    told = "rbig-nnx: interrupted; no file was written over.\n"
    assert (ended.code, ended.err) == (130, told)


@pytest.mark.usefixtures("in_front")
def test_a_command_that_ends_before_a_signal_counts_was_interrupted(
    monkeypatch, tmp_path
):
    def swallowed(*args, **options):
        class Bare:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)

        Bare()

    monkeypatch.setattr(reports, "show", swallowed)
    assert command("report", tmp_path).code == 130
    time.sleep(0.2)  # what was put off does not reach who comes after


@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize("twice", [False, True])
def test_an_import_ends_before_a_signal_counts_but_not_before_a_second(
    monkeypatch, tmp_path, twice
):
    (tmp_path / "slow_to_load.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        + f"os.kill(os.getpid(), signal.SIGINT) if {twice} else None\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: time.sleep(0.01)\n"
        "loaded = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_to_load", raising=False)

    def load(*args, **options):
        importlib.import_module("slow_to_load")
        time.sleep(5)

    monkeypatch.setattr(reports, "show", load)
    began = time.monotonic()
    assert command("report", tmp_path).code == 130
    assert time.monotonic() - began < 4
    assert ("slow_to_load" in sys.modules) != twice


def test_a_signal_that_was_ignored_stays_so(monkeypatch, tmp_path):
    before = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # as a shell's background has it
    try:
        monkeypatch.setattr(
            reports, "show", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
        )
        assert command("report", tmp_path).code == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_insides_of_python_are_not_shown(monkeypatch, tmp_path):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(reports, "show", interrupted)
    ended = command("report", tmp_path)
    told = "rbig-nnx: interrupted; no file was written over.\n"
    assert (ended.code, ended.err) == (130, told)

    def warned(*args, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("the rows\nare odd", UserWarning, stacklevel=1)

    monkeypatch.setattr(reports, "show", warned)
    before = warnings.showwarning
    ended = command("report", tmp_path)
    assert (ended.code, ended.err) == (0, "warning: the rows are odd\n")
    assert warnings.showwarning is before


def test_a_reader_who_goes_away_is_no_error(mixed):
    line = ["report", str(mixed.run), "--json"]
    program = f"from trainers.command import cli; raise SystemExit(cli.main({line}))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)


def test_quick_demo_is_a_short_one(monkeypatch):
    seen = []
    monkeypatch.setattr("trainers.command.demo.run", lambda demo, _: seen.append(demo))
    assert cli.main(["demo", "--quick"]) == 0
    assert (seen[0].num_seeds, seen[0].num_steps) == (1, 100)
