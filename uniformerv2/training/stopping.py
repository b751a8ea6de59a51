"""Being asked to stop: a signal sets a flag, the loop saves at the end of its step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from k710.errors import StoppedOnPurposeError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""SIGUSR1 is what schedulers send some time before a job's time is up."""


class StopFlag:
    """Which signal asked for a stop, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal is not None

    def leave(self, where: str) -> NoReturn:
        """End what runs: as interrupted after SIGINT, else as stopped on purpose, ``where`` saying at what point."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise StoppedOnPurposeError(f"stopped {where}", hint="run the same command again to go on")


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that SIGTERM, SIGUSR1 and SIGINT set inside the block; a second SIGINT interrupts at once."""
    flag = StopFlag()

    def ask(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and flag.signal == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started inside the block never hear SIGUSR1, which would end them.

    Sent to a whole process group, it is for the trainer: workers still have to feed the step that is then saved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
