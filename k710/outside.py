"""What a command writes for people or other tools lies in no build, whose every file is accounted for."""

from __future__ import annotations

import os
from pathlib import Path

from k710.errors import UsageError
from k710.shards.index import LOCK_FILE


def require_outside_builds(folder: Path, flag: str, *, except_for: Path | None = None) -> None:
    """Refuse a folder that is a build, or lies in one; ``except_for`` is a build's own place for such files.

    Raises:
        UsageError: it is, or does, and does not lie in ``except_for``.
    """
    wanted = folder.resolve()
    allowed = None if except_for is None else except_for.resolve()
    for place in (wanted, *wanted.parents):
        if place == allowed:
            return
        # Not Path.exists: a parent that may not be looked into is no reason to stop.
        if os.path.lexists(place / LOCK_FILE):
            raise UsageError(
                f"{flag} {folder}: belongs to the build {place}",
                hint="give a folder outside of every build" + (f", or one in {except_for}" if except_for else ""),
            )
