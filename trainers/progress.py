"""The progress of a run: a bar in a terminal, and nothing elsewhere."""

import types

import jax
from rich import console, progress


class ProgressBar:
    """Loss, held-out score, steps a second and the time left; a `with` statement.

    Args:
      num_steps: of the whole run.
    """

    def __init__(self, num_steps: int):
        screen = console.Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[scores]}"),
            _StepsPerSecond(),
            progress.TimeRemainingColumn(),
            console=screen,
            disable=not screen.is_terminal or jax.process_index() > 0,
        )
        self._task = self._bar.add_task("training", total=num_steps, scores="")
        self._shown: dict[str, float] = {}

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ):
        self._bar.stop()

    def update(self, step: int, **scores: float):
        """Moves the bar to `step`; scores that are not named keep their last value."""
        self._shown |= scores
        text = "  ".join(f"{name} {value:.4f}" for name, value in self._shown.items())
        self._bar.update(self._task, completed=step, scores=text)


class _StepsPerSecond(progress.ProgressColumn):
    def render(self, task: progress.Task) -> str:
        return f"{task.speed:.0f} steps/s" if task.speed else ""
