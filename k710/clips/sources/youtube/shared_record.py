"""A small record that processes of one machine share: a file, locked while it is changed.

The system lets go of the lock of a process that ends, however it ends, and a record is written by one call, so that a
killed process leaves either the old one or the new one. Times in records are seconds since the machine was started: no
clock that is set, back or forth, changes them. The file's name has that start in it, so a machine has a record of its
own on a disk that it shares with others, and a new one each time it is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from k710.errors import SourceError, UsageError

SIZE_BYTES = 1024
"""Of a record on the disk."""


def now_s() -> float:
    """Seconds since this machine was started, those asleep included where the system tells."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def state_folder(named: Path | None) -> Path:
    """The folder for records, made if need be: ``named``, or one of this user's among the temporary files.

    Raises:
        UsageError: it cannot be had, or somebody else's stands in its place.
    """
    folder = Path(tempfile.gettempdir()) / f"k710-youtube-{os.getuid()}" if named is None else named
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be made ({error.strerror})", hint="set TMPDIR to a folder of yours"
        ) from error
    # Where everybody may write, somebody else may have come first.
    if named is None and (not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid()):
        raise UsageError(f"{folder}: not a folder of yours", hint="set TMPDIR to a folder of yours")
    return folder.absolute()


class SharedRecord:
    """One record in ``folder``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}-{_start_of_machine()}.json"

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The record, for one process at a time; what the block leaves in it is stored.

        It is empty when there is none yet, and has the key ``damaged`` when what is there cannot be read.

        Raises:
            SourceError: the disk cannot be written or knows no locks.
        """
        with _failures_named(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _failures_named(self.path):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                before = os.pread(descriptor, SIZE_BYTES, 0)
            record = _read(before)
            yield record
            after = _written(record)
            if after != before:
                with _failures_named(self.path):
                    os.pwrite(descriptor, after, 0)
        finally:
            os.close(descriptor)


def _read(data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    try:
        record = json.loads(data, parse_constant=_refuse)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"damaged": True}


def _refuse(word: str) -> None:
    """Refuse NaN, which no comparison holds for."""
    raise ValueError(word)


def _written(record: dict[str, Any]) -> bytes:
    data = json.dumps(record, ensure_ascii=False).encode(errors="replace").ljust(SIZE_BYTES)
    assert len(data) == SIZE_BYTES
    return data


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be locked or written ({error.strerror})",
            hint="processes agree there on how often YouTube is asked; set TMPDIR to a folder on this machine's disk",
        ) from error


def _start_of_machine() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()
