"""Being asked to stop: a signal sets a flag, the loop saves at the end of its step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from k710.errors import StoppedOnPurposeError


class StopFlag:
    """Which signal asked for a stop, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal is not None

    def leave(self, step: int) -> None:
        """End the run, which has just been saved: as interrupted after SIGINT, else as stopped on purpose."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise StoppedOnPurposeError(f"stopped at step {step}, saved", hint="run the same command again to go on")


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that SIGTERM and SIGINT set inside the block; a second SIGINT interrupts at once."""
    flag = StopFlag()

    def ask(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and flag.signal == signal.SIGINT:
            raise KeyboardInterrupt
        flag.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
