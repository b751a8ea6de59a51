"""A limit to the time that some work takes, whatever it waits for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What is raised where code in C calls Python may get lost there.
_AGAIN_S = 5.0


class OutOfTime(BaseException):
    """The time is over; no handler of errors on the way takes it for one."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``OutOfTime`` in the block after so many seconds; only in a process's main thread, the only one it can be.

    An alarm that is set already goes off when it would have, or right after the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, _raise)
    left_s, again_s = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - began), 1e-3), again_s)


def _raise(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
    raise OutOfTime
