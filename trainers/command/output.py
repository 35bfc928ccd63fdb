"""What a job prints: on standard output, or beside a table that goes there."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from trainers.run.progress import visible


class Printer:
    """Lines and tables for people.

    Args:
      quiet: leaves out what is not the essence.
      silent: prints nothing at all.
      aside: whether standard output holds a table, so that people read standard error.
    """

    def __init__(
        self, *, quiet: bool = False, silent: bool = False, aside: bool = False
    ):
        # In names of files and columns brackets are brackets.
        self._console = Console(
            stderr=aside, markup=False, highlight=False, quiet=silent
        )
        self.quiet = quiet

    def line(self, text: str) -> None:
        """What is good to know."""
        if not self.quiet:
            self.result(text)

    def table(self, table: Any) -> None:
        """A table of rich."""
        if not self.quiet:
            self._console.print(_Visible(table))

    def warn(self, text: str) -> None:
        """What must not be missed."""
        self.result(f"warning: {text}")

    def result(self, text: str) -> None:
        """What was asked for, on one line."""
        self._console.print(visible(text), soft_wrap=True)


class _Visible:
    """A table whose cells send nothing to the terminal but what is seen."""

    def __init__(self, table: Any):
        self._table = table

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[Segment]:
        for segment in console.render(self._table, options):
            yield (
                segment
                if segment.control
                else segment._replace(text=visible(segment.text))
            )
