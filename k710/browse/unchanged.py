"""Whether a build is still the one that was read: it may be built anew, taken down or removed meanwhile."""

from __future__ import annotations

import hashlib
from pathlib import Path

from k710.errors import FeedError
from k710.shards.index import INDEX_FILE, LOCK_FILE
from k710.store import Store
from k710.takedown.forgotten import FORGOTTEN_FILE

MANIFEST_FILE = "manifest.parquet"
_FILES = (LOCK_FILE, FORGOTTEN_FILE, INDEX_FILE, MANIFEST_FILE)

Look = tuple[tuple[int, int, int] | None, ...]
"""When each file was changed, its size and which file of the disk it is; None: it is not there."""


class AsRead:
    """What a build was when this was made: to be made before anything of it is read.

    A build in a folder goes by lock, takedowns, index and manifest; one elsewhere by its lock alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._look = self._look_now()
        self._digest = self._digest_now()

    @property
    def is_same(self) -> bool:
        """Whether the build holds the same as then; little work as long as no file was written anew."""
        look = self._look_now()
        if self._store.is_local and look == self._look:
            return True
        if self._digest_now() != self._digest:
            return False
        self._look = look
        return True

    def require_same(self) -> None:
        """Refuse to go on with what was read of a build that is another by now.

        Raises:
            FeedError: it is, or is gone.
        """
        if not self.is_same:
            what = "has changed" if self._store.exists(LOCK_FILE) else "has been removed"
            raise FeedError(
                f"{self._store.root}: the build {what} since it was read",
                hint="run the same command again when nothing writes to the build",
            )

    def _look_now(self) -> Look:
        if not self._store.is_local:
            return ()
        return tuple(_stat(Path(self._store.url(name))) for name in _FILES)

    def _digest_now(self) -> str:
        digest = hashlib.sha256()
        for name in _FILES if self._store.is_local else (LOCK_FILE,):
            data = self._store.read(name) if self._store.exists(name) else b""
            digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
