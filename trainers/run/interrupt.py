"""Requests to stop: SIGTERM and Ctrl-C, noticed between two calls to the device."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer in every process."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._received = True
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that Python did not set and cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
