"""One run at a time in a folder."""

import contextlib
import contextvars
import errno
import json
import os
import pathlib
import socket
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import filelock

from trainers.paths import Path, in_bucket, located, look_again, remove
from trainers.placement.processes import together

_FILE = ".lock"  # in the folder, while somebody works there
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of some network disks
_own: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("own")


class InUseError(ValueError):
    """A folder in which another run is at work."""


@contextlib.contextmanager
def alone_in(workdir: str | os.PathLike) -> Iterator[None]:
    """Keeps other runs out of a folder; what is called within counts as the same run.

    On a disk by a lock of the kernel's, which ends with its process, however that ends. A
    bucket has no locks: there the later run takes over, which is what a machine that was
    lost needs, and `check_alone` stops the earlier one before it writes again.

    Args:
      workdir: made if need be, and removed again if nothing was written.

    Raises:
      InUseError: naming the other's process and host.
      ValueError: the folder cannot be made or written to.
    """
    place, before = located(workdir), _own.get({})
    if str(place) in before:
        yield
        return
    token = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        hold = _marked if in_bucket(place) else _locked
        together(
            lambda: stack.enter_context(hold(place, token)),
            error=InUseError,
            alone=True,
        )
        stack.callback(_own.reset, _own.set({**before, str(place): token}))
        yield


def check_alone(workdir: str | os.PathLike) -> None:
    """Raises an `InUseError` where another run has taken over a folder in a bucket."""
    place = located(workdir)
    token = _own.get({}).get(str(place))
    if token is not None and in_bucket(place):
        together(lambda: _check(place, token), error=InUseError, alone=True)


def unusable(argument: str, place: Path, error: OSError) -> ValueError:
    """The error for a folder that cannot be made or written to."""
    return ValueError(
        f"`{argument}` must be a folder that you may write to, or the name of a new one; got"
        f" {place}: {error.strerror or error}. Choose another one."
    )


@contextlib.contextmanager
def _locked(place: pathlib.Path, token: str) -> Iterator[None]:
    made = [p for p in (place, *place.parents) if not p.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable("workdir", place, error) from None
    file = place / _FILE

    def sign(descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _signature(token), 0)

    lock = filelock.FileLock(file, blocking=False, on_acquired=sign)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InUseError(
            f"`workdir` must be used by one run at a time; {_owner(file)} is at work in"
            f" {place}. Wait for it or stop it, or choose another `workdir`."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise unusable("workdir", place, error) from None
        warnings.warn(
            f"the disk of {place} knows no locks: see to it that no other run uses it.",
            RuntimeWarning,
            stacklevel=2,
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # who waits for it sees that it is gone
            file.unlink()
        lock.release()
        with contextlib.suppress(OSError):  # something was written
            for folder in made:
                folder.rmdir()


@contextlib.contextmanager
def _marked(place: Path, token: str) -> Iterator[None]:
    file = place / _FILE
    file.write_bytes(_signature(token))
    try:
        yield
    finally:
        if _read(file).get("token") == token:
            remove(file)


def _check(place: Path, token: str) -> None:
    look_again(place)
    found = _read(place / _FILE)
    if found and found.get("token") != token:
        raise InUseError(
            f"`workdir` must be used by one run at a time; {_owner(place / _FILE)} has taken"
            f" over {place}, and this run ends. What it saved before is kept."
        )


def _signature(token: str) -> bytes:
    about = {"pid": os.getpid(), "host": socket.gethostname(), "token": token}
    return json.dumps(about).encode()


def _owner(file: Path) -> str:
    about = _read(file)
    if not isinstance(about.get("pid"), int):
        return "another process"  # which has not signed yet
    return f"process {about['pid']} on {str(about.get('host'))[:100]!r}"


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
