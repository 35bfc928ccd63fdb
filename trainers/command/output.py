"""What a job prints: on standard output, or beside a table that goes there."""

from typing import Any

from rich.console import Console


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
            self._console.print(table)

    def warn(self, text: str) -> None:
        """What must not be missed."""
        self.result(f"warning: {text}")

    def result(self, text: str) -> None:
        """What was asked for, on one line."""
        self._console.print(text, soft_wrap=True)
