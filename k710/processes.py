"""Processes and each other: children that do not outlive their parent, and folders that one process writes to."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

from k710.errors import UsageError

GUARD_FILE = ".build-guard"
"""What the writer of a build holds."""


@contextmanager
def only_writer(guard: Path, refusal: str) -> Iterator[None]:
    """Hold the file ``guard`` against other processes on this machine; let go when this one ends, however it ends.

    Raises:
        UsageError: another process holds it; ``refusal`` says so.
    """
    guard.parent.mkdir(parents=True, exist_ok=True)
    with guard.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(refusal, hint="wait for it, or use another folder") from error
        yield


def require_room_for_sockets() -> None:
    """Refuse a temporary folder whose path is too long for the sockets of the server that forks workers.

    Raises:
        UsageError: it is.
    """
    folder = tempfile.gettempdir()
    # The system takes 107 bytes; what the library adds is `/pymp-xxxxxxxx/listener-xxxxxxxx`.
    if len(os.fsencode(folder)) > 107 - len("/pymp-xxxxxxxx/listener-xxxxxxxx"):
        raise UsageError(
            f"{folder}: too long a path for temporary files, worker processes cannot be started",
            hint="name a shorter folder by the environment variable TMPDIR, such as TMPDIR=/tmp",
        )


def end_with_parent() -> None:
    """Make this child process end when its parent does, however that ends.

    Without it the children of a parent that was killed would wait for work for ever.
    """
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
