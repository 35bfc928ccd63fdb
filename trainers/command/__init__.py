"""The program `rbig-nnx`, which can be stopped while it loads."""

import sys
import threading

from trainers.run import interrupt


def program() -> int:
    """Runs the command of `sys.argv`, as `cli.main` does."""
    try:
        with interrupt.interruptible():
            from trainers.command import cli
    except KeyboardInterrupt:
        sys.stderr.write("rbig-nnx: interrupted; no file was written over.\n")
        return interrupt.exit_code()
    code = cli.main()
    for thread in threading.enumerate():
        # JAX's waits a minute for TPUs, and the end of the program would wait for it.
        if isinstance(thread, threading.Timer):
            thread.cancel()
    return code
