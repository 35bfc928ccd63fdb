"""The progress of a whole job on standard error: one line in a terminal, few elsewhere.

A job goes through phases, such as reading, warm start, compiling, training and baselines.
Without JAX, so that the first of them shows before it is imported.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

WIDTH = 80  # columns, at most
_MINUTE = 60.0  # seconds
_LASTS = 1.0  # seconds, after which a phase is worth a line that stays
_BAR = range(6, 21)  # widths of the bar, where a line leaves room


def visible(text: Any) -> str:
    """Text from outside for a terminal: control characters as their escapes, not lines."""
    return "".join(
        c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text)
    )


class Progress:
    """Shows nothing; what shows something has the same methods.

    Use it in a `with` statement, for one job, and hand it on to `fit(progress=...)` and,
    as `progress.layer`, to what calls back after each layer.

    Example:
      >>> from trainers.run.progress import show_progress
      >>> with show_progress(enabled=False) as progress:
      ...     progress.phase("reading rows.csv")
      ...     progress.phase("baselines", total=6)
      ...     progress.advance(1, "1 component")
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def phase(self, name: str, *, total: int | None = None, done: int = 0) -> None:
        """Begins a phase, which ends the one before.

        Args:
          name: what happens: "warm start".
          total: how many parts it has, if that is known.
          done: how many of them an earlier start has done.
        """

    def advance(self, done: int, note: str = "") -> None:
        """`done` parts of the phase are over; the note says what the last one was."""

    def layer(self, report: Any) -> None:
        """A layer of a warm start is fitted; `report` is its `LayerReport`."""
        self.advance(report.index + 1, f"{report.name}, log p {report.log_prob:.4f}")

    def evaluated(
        self, step: int, scores: Mapping[str, float], *, best: float | None = None
    ) -> None:
        """A model in training was scored, after `step` parts of the phase.

        Args:
          step: of the training.
          scores: by data set; "valid" is shown, or "train" where there is none.
          best: the best score on "valid" so far.
        """

    def say(self, text: str) -> None:
        """A line that stays."""


def show_progress(*, enabled: bool = True) -> Progress:
    """What suits where standard error goes.

    Args:
      enabled: False shows nothing.
    """
    if not enabled:
        return Progress()
    screen = Console(stderr=True, markup=False, highlight=False)
    return _Screen(screen) if screen.is_terminal else _Lines()


def as_progress(
    progress: Progress | bool,  # noqa: FBT001  `fit` takes either
    *,
    enabled: bool = True,
) -> contextlib.AbstractContextManager[Progress]:
    """What `fit` was given: a job's display, which stays open, or whether to have one."""
    if not enabled:
        return Progress()
    if isinstance(progress, Progress):
        return contextlib.nullcontext(progress)
    return show_progress(enabled=bool(progress))


class _Phase:
    """Where a phase stands, and the texts that tell it."""

    def __init__(self, name: str, total: int | None, done: int):
        self.name, self.total, self.done = name, total, done
        self.started = time.monotonic()
        self.note, self.scores = "", ""
        self._first = done

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def line(self) -> str:
        """Of what is under way, in at most 80 columns where numbers are below a million."""
        if not self.scores:
            parts = f" {self.done}/{self.total}" if self.total else ""
            note = f"  {self.note}" if self.note else ""
            return f"{self.name}{parts}{note}  {_clock(self.seconds())}"
        line = f"step {self.done}/{self.total}  {self.scores}"
        rate = (self.done - self._first) / max(self.seconds(), 1e-9)
        if not rate or not self.total:
            return line
        left = (self.total - self.done) / rate
        return f"{line}  {rate:.{int(rate < 10)}f}/s  {_clock(left)} left"

    def ended(self) -> str:
        """What stays of it."""
        what = f"step {self.done}/{self.total}  {self.scores}" if self.scores else ""
        what = f"  {what}" if what else (f"  {self.note}" if self.note else "")
        return f"{self.name}{what}  {self.seconds():.1f} s"


class _Lines(Progress):
    """A line for each phase that lasts, and in a long one an evaluation's once a minute."""

    def __init__(self):
        self._phase: _Phase | None = None
        self._told = time.monotonic()
        self._soon = threading.Timer(_LASTS, self.say)

    def __exit__(self, *error: Any) -> None:
        self._soon.cancel()

    def phase(self, name: str, *, total: int | None = None, done: int = 0) -> None:
        self._soon.cancel()
        self._phase = _Phase(name, total, done)
        self._told = time.monotonic()
        self._soon = threading.Timer(_LASTS, self.say, [name])
        self._soon.daemon = True
        self._soon.start()

    def advance(self, done: int, note: str = "") -> None:
        if self._phase is not None:
            self._phase.done, self._phase.note = done, note

    def evaluated(
        self, step: int, scores: Mapping[str, float], *, best: float | None = None
    ) -> None:
        if self._phase is not None:
            self._phase.done, self._phase.scores = step, _told(scores, best)
            if time.monotonic() - self._told >= _MINUTE:
                self._told = time.monotonic()
                self.say(self._phase.line())

    def say(self, text: str) -> None:
        print(visible(text), file=sys.stderr, flush=True)  # noqa: T201


class _Screen(_Lines):
    """One line that changes; above it what is over."""

    def __init__(self, screen: Console):
        super().__init__()
        self._screen = screen
        # What a command prints elsewhere must not land here.
        together = sys.stdout.isatty()
        self._live = Live(
            self, console=screen, transient=True, redirect_stdout=together
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end()
        self._phase = None  # of what failed, the error tells
        self._live.stop()

    def __rich__(self) -> Any:
        phase, width = self._phase, min(WIDTH, self._screen.width)
        if phase is None:
            return Text()
        line = Text(visible(phase.line()))
        line.truncate(width, overflow="ellipsis")
        room = width - line.cell_len - 1
        if not phase.total or room < _BAR.start:
            return line
        both = Table.grid(padding=(0, 1, 0, 0))
        bar = ProgressBar(phase.total, phase.done, width=min(room, _BAR[-1]))
        both.add_row(bar, line)
        return both

    def phase(self, name: str, *, total: int | None = None, done: int = 0) -> None:
        self._end()
        self._phase = _Phase(name, total, done)
        self._live.refresh()

    def evaluated(
        self, step: int, scores: Mapping[str, float], *, best: float | None = None
    ) -> None:
        if self._phase is not None:
            self._phase.done, self._phase.scores = step, _told(scores, best)

    def say(self, text: str) -> None:
        self._screen.print(Text(visible(text)), soft_wrap=True)

    def _end(self):
        phase, self._phase = self._phase, None
        if phase is not None:
            self.say(phase.ended())


def _told(scores: Mapping[str, float], best: float | None) -> str:
    name = "valid" if "valid" in scores else "train"
    told = f"{name} {_short(scores[name])}" if name in scores else "evaluated"
    return told if best is None else f"{told}  best {_short(best)}"


def _short(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1_000 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
