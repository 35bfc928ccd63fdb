"""The program `rbig-nnx`, which can be stopped while it loads."""

import sys

from trainers.run import interrupt


def program() -> int:
    """Runs the command of `sys.argv`, as `cli.main` does."""
    try:
        with interrupt.interruptible():
            from trainers.command import cli
    except KeyboardInterrupt:
        sys.stderr.write("rbig-nnx: interrupted; no file was written over.\n")
        return interrupt.exit_code()
    return cli.main()
