"""Memory and CPU time of a build and its workers, from Linux's /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What the processes of a build use."""

    main_bytes: int = 0
    """Anonymous memory of the one that was started."""
    main_cpu_s: float = 0.0
    """Its CPU time."""
    workers_bytes: int = 0
    """Anonymous memory of all below it."""
    workers_cpu_s: float = 0.0
    """CPU time of those, and of what they started and waited for."""

    def after(self, before: Used) -> Used:
        """The same, with the CPU time that workers which have ended since had used."""
        return replace(self, workers_cpu_s=max(self.workers_cpu_s, before.workers_cpu_s))

    def columns(self) -> dict[str, Any]:
        """By name, as a row has them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def look_at(main: int) -> Used | None:
    """What a process and all below it use now; None when it is gone."""
    try:
        main_bytes, main_cpu_s = _anonymous_bytes(main), sum(_cpu_s(main)[:2])
    except OSError:
        return None
    size_bytes, cpu_s = 0, 0.0
    for child in _children(main):
        below = _children(child)
        with suppress(OSError):
            # Without what the fork server's own children used: they are counted one by one while they live.
            cpu_s += sum(_cpu_s(child)[:2])
            size_bytes += _anonymous_bytes(child)
        for worker in below:
            with suppress(OSError):
                cpu_s += sum(_cpu_s(worker))
                size_bytes += _anonymous_bytes(worker)
                size_bytes += sum(map(_anonymous_bytes, _children(worker)))
    return Used(main_bytes=main_bytes, main_cpu_s=main_cpu_s, workers_bytes=size_bytes, workers_cpu_s=cpu_s)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _cpu_s(pid: int) -> list[float]:
    """User and system time of a process, then of the children that it has waited for."""
    # The name of the program may hold blanks; it ends with the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(ticks) / _TICKS for ticks in fields[11:15]]


def _anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
