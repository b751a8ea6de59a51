"""A folder of clips that were read from an object store, shared by all processes of the machine.

A clip lies under the sha256 of its bytes, which is checked whenever it is read: what is damaged or half written is
never served. Files come by rename, so that a process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from k710.errors import UsageError

_TOTAL_FILE = "total_bytes"
"""What the clips take together, and the lock of those who change it."""
_PARTIAL_S = 3600
"""Age at which a temporary file is nobody's any more."""
_ROOM = 0.9
"""Share of the largest size that is left after clips were removed, so that it does not happen at every clip."""


class ClipCache:
    """Clips by digest, up to a size.

    When it is full, clips that are not ``wanted`` go, those first that were not read for longest. When all that is left
    is wanted, it stays as it is: each clip is read once an epoch, in another order, so that one that takes another's
    place gains nothing, and clips that go before they come again would be all that the cache ever does.
    """

    def __init__(self, folder: Path, *, max_bytes: int, wanted: Callable[[str], bool]) -> None:
        self._folder, self._max_bytes, self._wanted = folder, max_bytes, wanted
        self._full = False

    def prepare(self) -> None:
        """Make the folder; one that cannot be written to is a ``UsageError``."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise UsageError(
                f"--cache {self._folder}: cannot be written ({error.strerror or error})", hint="give another folder"
            ) from error

    def has(self, digest: str) -> bool:
        """Whether there is a file for the clip, sound or not."""
        return self._path(digest).exists()

    def get(self, digest: str) -> bytes | None:
        """The clip of this sha256; None when it is not there, or was damaged and is now removed."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == digest:
                os.utime(path)
                return data
            path.unlink()
        except OSError:  # gone, or a disk that fails: the store has it
            pass
        return None

    def put(self, digest: str, data: bytes) -> None:
        """Keep a clip whose sha256 was checked, when there is room; a disk that takes no more ends the keeping."""
        if self._full or self.has(digest):
            return
        try:
            partial = self._reserve(self._path(digest).parent, len(data))
            if partial is None:
                self._full = True
                return
            try:
                with partial.open("r+b") as file:  # never shorter than it was counted
                    file.write(data)
                partial.replace(self._path(digest))
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._full = True
            warnings.warn(f"--cache {self._folder}: takes no more clips ({error.strerror or error})", stacklevel=2)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _reserve(self, folder: Path, size_bytes: int) -> Path | None:
        """A temporary file for a clip, counted; None when there is no room, and nothing may go."""
        with self._locked() as total:
            text = os.pread(total, 32, 0)
            used = int(text) if text.isdigit() else self._count()
            if used + size_bytes > self._max_bytes:
                used = self._make_room(size_bytes)
            fits = used + size_bytes <= self._max_bytes
            os.ftruncate(total, 0)
            os.pwrite(total, str(used + size_bytes * fits).encode(), 0)
            if not fits:
                return None
            folder.mkdir(exist_ok=True)
            handle, partial = tempfile.mkstemp(prefix=".", dir=folder)
            try:
                os.ftruncate(handle, size_bytes)  # so that whoever counts meanwhile sees it
            finally:
                os.close(handle)
            return Path(partial)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        total = os.open(self._folder / _TOTAL_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(total, fcntl.LOCK_EX)
            yield total
        finally:
            os.close(total)

    def _count(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _make_room(self, size_bytes: int) -> int:
        """Remove what may go, until there is room; the bytes that are left."""
        files = sorted(self._files(), key=lambda file: file[2])
        used, old = sum(size for _, size, _ in files), time.time() - _PARTIAL_S
        for path, size, read_s in files:
            if used + size_bytes <= self._max_bytes * _ROOM:
                break
            if read_s < old if path.name.startswith(".") else not self._wanted(path.name):
                path.unlink(missing_ok=True)
                used -= size
        return used

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Path, size and time of the last use of every file."""
        for folder in self._folder.iterdir():
            for entry in os.scandir(folder) if folder.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):  # renamed just now
                    facts = entry.stat()
                    yield Path(entry.path), facts.st_size, facts.st_mtime
