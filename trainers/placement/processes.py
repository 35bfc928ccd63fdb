"""What several processes do as one: all of it, or none with the same error everywhere."""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from trainers.placement.sharding import gathered

T = TypeVar("T")
_MOST = 1_000  # bytes of an error that the other processes get to see


def together(
    action: Callable[[], T], *, error: type[Exception] = ValueError, alone: bool = False
) -> T | None:
    """Runs the action in every process: where it fails in one, all of them raise.

    Every process must call this; none goes on before all are done.

    Args:
      action: what to do.
      error: what the other processes raise, with the text of the first that failed.
      alone: process 0 does it, and the others wait; they get None.
    """
    if jax.process_count() == 1:
        return action()
    result, failed = None, None
    if not alone or jax.process_index() == 0:
        try:
            result = action()
        except Exception as found:  # whatever it is, the others must not wait for it
            failed = found
    words = "" if failed is None else str(failed) or repr(failed)
    told = np.zeros(_MOST, np.uint8)
    text = words.encode()[:_MOST]
    told[: len(text)] = np.frombuffer(text, np.uint8)
    everywhere = [row.tobytes().rstrip(b"\0") for row in gathered(told)]
    if failed is not None:
        raise failed
    for index, other in enumerate(everywhere):
        if other:
            raise error(f"{other.decode(errors='replace')} (in process {index})")
    return result


def of_first(number: int | None) -> int:
    """The number that process 0 has."""
    return int(gathered(np.int64(number or 0))[0])
