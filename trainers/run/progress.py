"""The progress of a run: a bar in a terminal, plain lines elsewhere. On standard error."""

import sys
import time
from types import TracebackType
from typing import Self

from rich import console, progress

_TITLES = {"valid": "held-out"}


def show_progress(num_steps: int, *, enabled: bool) -> "Bar | Lines | Quiet":
    """What suits where standard error goes; use it in a `with` statement.

    Args:
      num_steps: of the whole run.
      enabled: False shows nothing.
    """
    if not enabled:
        return Quiet()
    screen = console.Console(stderr=True)
    return Bar(num_steps, screen) if screen.is_terminal else Lines(num_steps)


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def advanced(self, step: int, loss: float) -> None:
        """After a dispatch of training steps, the last of them `step`."""

    def evaluated(self, step: int, scores: dict[str, float]) -> None:
        """After an evaluation at `step`."""


class Bar(Quiet):
    """Loss, held-out score, steps a second and the time left."""

    def __init__(self, num_steps: int, screen: console.Console):
        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[scores]}", markup=False),
            _StepsPerSecond(),
            progress.TimeRemainingColumn(),
            console=screen,
        )
        self._task = self._bar.add_task("training", total=num_steps, scores="")
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advanced(self, step: int, loss: float) -> None:
        """After a dispatch of training steps, the last of them `step`."""
        self._update(step, {"loss": loss})

    def evaluated(self, step: int, scores: dict[str, float]) -> None:
        """After an evaluation at `step`."""
        self._update(step, scores)

    def _update(self, step, values):
        self._shown |= values
        self._bar.update(self._task, completed=step, scores=_text(self._shown))


class Lines(Quiet):
    """One line for each evaluation."""

    def __init__(self, num_steps: int):
        self._num_steps = num_steps
        self._last: tuple[int, float] | None = None  # step and time

    def evaluated(self, step: int, scores: dict[str, float]) -> None:
        """After an evaluation at `step`."""
        now = time.monotonic()
        speed = ""
        if self._last is not None and step > self._last[0]:
            rate = (step - self._last[0]) / (now - self._last[1])
            left = (self._num_steps - step) / rate
            speed = f"  {rate:.0f} steps/s, {left:.0f} s left"
        self._last = step, now
        line = f"step {step}/{self._num_steps}  {_text(scores)}{speed}"
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def _text(values: dict[str, float]) -> str:
    return "  ".join(f"{_TITLES.get(k, k)} {v:.4f}" for k, v in values.items())


class _StepsPerSecond(progress.ProgressColumn):
    def render(self, task: progress.Task) -> str:
        return f"{task.speed:.0f} steps/s" if task.speed else ""
