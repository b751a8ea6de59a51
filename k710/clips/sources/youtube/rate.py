"""How often the site is asked: a token bucket that all processes of a machine draw from.

It is kept as one time, at which it will be full again (the generic cell rate algorithm): a draw moves that time by one
interval, and is allowed when it is not further off than the bucket is large. So in any span of ``t`` hours there are at
most ``rate * t + burst`` draws, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from k710.clips.sources.youtube.shared_record import SharedRecord, now_s

_FULL_AT = "full_at_s"


class Bucket:
    """The bucket in ``folder``."""

    def __init__(self, folder: Path, *, rate_per_h: float, burst: int, clock: Callable[[], float] = now_s) -> None:
        self._record = SharedRecord(folder, "bucket")
        self._interval_s = 3600.0 / rate_per_h
        self._burst = burst
        self._clock = clock

    def draw(self) -> float:
        """Take a token, and return 0; or the seconds until there may be one, and take none.

        Raises:
            SourceError: the record cannot be locked or written.
        """
        with self._record.changing() as record:
            # Within the lock: a time taken before it may be older than what others have stored meanwhile.
            now = self._clock()
            full_at = max(self._full_at(record, now), now)
            wait_s = full_at - now - (self._burst - 1) * self._interval_s
            if wait_s <= 0:
                full_at += self._interval_s
            record.clear()
            record[_FULL_AT] = full_at
        return max(wait_s, 0.0)

    def _full_at(self, record: dict[str, object], now: float) -> float:
        if not record:
            return now
        empty = now + self._burst * self._interval_s
        stored = record.get(_FULL_AT)
        # Damaged, or further off than any draw puts it, as after a clock that went back: the bucket counts as empty.
        return min(float(stored), empty) if isinstance(stored, int | float) else empty
