"""Requests to stop: SIGTERM and Ctrl-C, noticed between two calls to the device.

JAX is imported where it is used: a command watches from its first moment.
"""

import contextlib
import itertools
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SOON = 0.05  # seconds until what was put off is tried again
received: list[int] = []  # numbers of the signals since a command began
_asked = itertools.count(1)  # by all runs of this process


def exit_code() -> int:
    """Of a command that ended at a signal, as shells have it: 130 or 143."""
    return 128 + (received[-1] if received else signal.SIGINT)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM ends what is going on as Ctrl-C does, by KeyboardInterrupt.

    Behind an import, if there is one: extensions in C print what they catch. Soon after a
    callback, if that could not raise it. A second signal is not put off.
    """
    received.clear()
    ending = _Ending()
    before, shown = {}, sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        watched = [s for s in _SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
        before = {number: signal.signal(number, ending.handle) for number in watched}

        def unraisable(found: Any) -> None:
            if isinstance(found.exc_value, KeyboardInterrupt) and received:
                ending.put_off(received[-1])
            else:
                shown(found)

        sys.unraisablehook = unraisable
    try:
        yield
        if ending.due:
            raise KeyboardInterrupt
    finally:
        ending.due = False
        sys.unraisablehook = shown
        _set(before)


class _Ending:
    """Ends what is going on, where it can be ended."""

    def __init__(self):
        self.due = False  # a signal that was put off
        self._again = False  # what comes is that one

    def handle(self, number: int, frame: FrameType | None) -> None:
        again, self._again = self._again, False
        if not again:
            received.append(number)
        if len(received) < 2 and _in_import(frame):
            self.put_off(number)
        else:
            self.due = False
            raise KeyboardInterrupt

    def put_off(self, number: int) -> None:
        def send():
            if self.due:
                self._again = True
                signal.pthread_kill(threading.main_thread().ident, number)

        self.due = True
        timer = threading.Timer(_SOON, send)
        timer.daemon = True
        timer.start()


def _in_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class Interrupt:
    """Remembers that the process was asked to stop; use it in a `with` statement.

    The second signal does what it did before. Handlers are set in the main thread only
    and put back at the end. Several processes of one run stop together, through
    `jax.distributed`, which watches for SIGTERM itself.
    """

    def __init__(self):
        self._received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        import jax

        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            self._before = {s: signal.signal(s, self._handle) for s in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._put_back()

    def requested(self) -> bool:
        """Whether to stop; the same answer in every process, which all ask equally often."""
        import jax
        from jax.experimental import multihost_utils

        if jax.process_count() > 1:
            # JAX waits for the very number after the largest: none may be left out.
            return multihost_utils.reached_preemption_sync_point(next(_asked))
        return self._received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        self._received = True
        self._put_back()

    def _put_back(self) -> None:
        _set(self._before)
        self._before = {}


def _set(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        # None stands for a handler that Python did not set and cannot set again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
