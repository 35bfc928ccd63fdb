"""How failures of Orbax and TensorStore are told: once, in the words of the system."""

import contextlib
import gc
import logging
import os
import re
import sys
import textwrap
import time

from trainers.checkpoints.meta.reading import CheckpointError
from trainers.paths import Path

_NO_NEWS = ("Skipping merge of OCDBT", "Metadata file does not exist")
_IN_FLIGHT = 0.2  # seconds, after a failed read: the others end within it


def be_quiet():
    """Keeps what Orbax logs of every file, and of errors that it raises too, off the screen."""
    logger = logging.getLogger("absl")
    logger.setLevel(logging.WARNING)  # Orbax tells of every file
    logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message is more than the traceback of an error that Orbax raises as well.

    Nor is it news that a bucket has its arrays one by one, as we want them there, or that a
    step which was cut off while it was written lacks a file that nothing here reads.
    """
    if any(known in record.getMessage() for known in _NO_NEWS):
        return False
    return record.exc_info is None or "orbax" not in record.pathname


@contextlib.contextmanager
def writing(what: str, where: Path):
    """Says what could not be written and where, in the system's own words if it has any."""
    try:
        with without_echoes():
            yield
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # TensorStore's are of the second kind
        number = re.search(r"os_error_code='(\d+)'", str(error))
        why = (
            os.strerror(int(number[1])) if number else getattr(error, "strerror", None)
        )
        raise CheckpointError(
            f"no {what} can be written to {where}: {why or beginning(error)}. What was there"
            " is whole; with room or rights the same call or line goes on after it."
        ) from error


def beginning(error: BaseException) -> str:
    """What an error of a library says first."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return textwrap.shorten(line, 200, placeholder=" ...")


@contextlib.contextmanager
def without_echoes():
    """Silences what Orbax leaves in flight when a read or a write of several fails.

    Each finds its event loop closed, or its error not asked for, and prints a traceback after
    the error that counts, or before where a thread writes.
    """
    hooks, logger = (sys.unraisablehook, sys.excepthook), logging.getLogger("asyncio")

    def unraisable(found):
        if not _is_echo(found.exc_value):
            hooks[0](found)

    def uncaught(kind, error, trace):
        if not _is_echo(error):
            hooks[1](kind, error, trace)

    level = logger.level
    sys.unraisablehook, sys.excepthook = unraisable, uncaught
    try:
        yield
    except BaseException:
        logger.setLevel(logging.CRITICAL)
        logger.addFilter(
            _is_asked_for
        )  # for good: on a busy machine some end later still
        gc.collect()
        time.sleep(_IN_FLIGHT)
        raise
    finally:
        sys.unraisablehook, sys.excepthook = hooks
        logger.setLevel(level)


def _is_asked_for(record: logging.LogRecord) -> bool:
    """Whether a message is more than the error of a read that nobody waits for any more."""
    text = record.getMessage()
    return "never retrieved" not in text or "tensorstore" not in text


def _is_echo(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and "Event loop is closed" in str(error)
