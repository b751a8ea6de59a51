"""Videos out of tar archives, read once from front to back, so that a hostile or torn archive can do no harm.

What an archive is, is told by its content: a published ``.tar.gz`` has been found to be a plain tar. Of a member's path
nothing is used but the last part, nothing but regular files is looked at, and nothing is written here at all.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from k710.clips.containers import SUFFIXES
from k710.errors import SourceError
from k710.store import Readable

APPLE_DOUBLE = "a ._ file of macOS"
NOT_A_VIDEO = "not a video by its name"
OUTSIDE = "its path leads out of the archive"
LINK = "a link"
DEVICE = "a device or a pipe"
SPARSE = "a file with holes"
BAD_NAME = "a name that no file should have"
TWICE = "a name that stands twice in the archive"
EMPTY = "an empty file"
TOO_LARGE = "larger than any clip"

_GZIP = b"\x1f\x8b"
_BLOCK = 512
_CHUNK = 1 << 20
_MAX_NAME_BYTES = 200
_MAX_HEADERS_BYTES = 1 << 20
"""Between two members; tarfile would read any length of names into memory."""
_AGAIN = "fetch the archive again"
_TOO_MUCH = "it is not an archive of videos as they are published; nothing more of it is read"
# ValueError, IndexError, OverflowError: numbers in damaged headers that tarfile does not expect.
_TORN = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, IndexError, OverflowError, MemoryError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where an archive stops being one of videos."""

    max_members: int = 100_000
    """Members of any kind; published archives have some thousand."""
    max_member_bytes: int = 1 << 33
    """Size of one video; larger ones are passed over."""
    max_ratio: float = 20.0
    """Unpacked bytes for each packed one: videos do not get smaller by packing."""
    free_bytes: int = 1 << 26
    """Unpacked bytes that are no matter, whatever the ratio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A video in an archive, open for reading until the next one is asked for."""

    name: str
    """File name, without folders: never empty, no separator or control character in it."""
    path: str
    """As the archive has it, printable."""
    size_bytes: int
    """Its size."""
    stream: Readable
    """Its bytes; a ``SourceError`` where they end early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A member that is passed over."""

    path: str
    """As the archive has it, printable."""
    reason: str
    """Why, in the words above."""


def read_members(
    path: Path, *, limits: Limits | None = None, on_skip: Callable[[Skipped], None] = lambda _: None
) -> Iterator[Member]:
    """The videos in the tar archive at ``path``, gzipped or not, in its order.

    Args:
        path: the archive.
        limits: what is too much.
        on_skip: told of each member that is passed over; folders are not worth a word.

    Raises:
        SourceError: it is no tar archive, cannot be read, is torn or damaged from some place on (what came before is
            whole), or is more than ``limits`` allow.
    """
    limits = limits or Limits()
    try:
        packed = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})", hint="check the path") from error
    with packed:
        try:
            source = _Unpacked(packed, path, limits)
            yield from _videos(source, path, limits, on_skip)
            source.require_end()
        except _TORN as error:
            raise _torn(path, error) from error


def check_archive(path: Path, *, limits: Limits | None = None, check: Callable[[], None] = lambda: None) -> str:
    """What is wrong with an archive that is read to its end; empty when nothing is. ``check`` may end it early."""
    try:
        for _ in read_members(path, limits=limits, on_skip=lambda _: check()):
            check()
    except SourceError as error:
        return error.message.removeprefix(f"{path}: ")
    return ""


def _videos(source: _Unpacked, path: Path, limits: Limits, on_skip: Callable[[Skipped], None]) -> Iterator[Member]:
    seen: set[str] = set()
    with _opened(source, path) as archive:
        number = 0
        while (info := _following(archive, source)) is not None:
            number += 1
            if number > limits.max_members:
                raise SourceError(f"{path}: more than {limits.max_members:,} members", hint=_TOO_MUCH)
            # tarfile keeps every header it has seen.
            archive.members.clear()  # type: ignore[attr-defined]
            if info.isdir():
                continue
            name = PurePosixPath(info.name).name
            reason = _unfit(info, name, limits) or (TWICE if name in seen else "")
            if reason:
                on_skip(Skipped(path=_printable(info.name), reason=reason))
                continue
            seen.add(name)
            stream = archive.extractfile(info)
            assert stream is not None
            member = _Stream(stream, path, info.size)
            yield Member(name=name, path=_printable(info.name), size_bytes=info.size, stream=member)


def _opened(source: _Unpacked, path: Path) -> tarfile.TarFile:
    """The archive, after its first header was read."""
    source.allow(_MAX_HEADERS_BYTES)
    try:
        return tarfile.TarFile(fileobj=source, mode="r", errors="surrogateescape")
    except tarfile.ReadError as error:
        if source.tell() > _BLOCK:
            raise
        raise SourceError(f"{path}: not a tar archive", hint=_AGAIN) from error


def _following(archive: tarfile.TarFile, source: _Unpacked) -> tarfile.TarInfo | None:
    """The next member; tarfile may read up to it, and not much of headers."""
    source.allow(archive.offset + _MAX_HEADERS_BYTES)
    info = archive.next()
    source.allow(None)
    return info


def _unfit(info: tarfile.TarInfo, name: str, limits: Limits) -> str:
    """Why a member is passed over; empty when it is not."""
    parts = PurePosixPath(info.name.replace("\\", "/"))
    rules = (
        (info.issym() or info.islnk(), LINK),
        (not info.isreg(), DEVICE),
        (info.issparse(), SPARSE),
        (parts.is_absolute() or ".." in parts.parts, OUTSIDE),
        (name.startswith("._"), APPLE_DOUBLE),
        (PurePosixPath(name).suffix.lower() not in SUFFIXES, NOT_A_VIDEO),
        (not _is_plain(name), BAD_NAME),
        (info.size == 0, EMPTY),
        (not 0 < info.size <= limits.max_member_bytes, TOO_LARGE),
    )
    return next((reason for applies, reason in rules if applies), "")


def _is_plain(name: str) -> bool:
    """Whether a name is text that every disk takes."""
    return name.isprintable() and not set(name) & set('\\/:*?"<>|') and len(name.encode()) <= _MAX_NAME_BYTES


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


def _torn(path: Path, error: BaseException) -> SourceError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return SourceError(f"{path}: torn or damaged archive ({_printable(str(why))})", hint=_AGAIN)


class _Stream:
    """The bytes of a member."""

    def __init__(self, stream: IO[bytes], path: Path, size_bytes: int) -> None:
        self._stream, self._path, self._left = stream, path, size_bytes

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        try:
            data = self._stream.read(size)
        except _TORN as error:
            raise _torn(self._path, error) from error
        self._left -= len(data)
        if not data and size and self._left > 0:
            raise _torn(self._path, EOFError(f"{self._left:,} bytes of a member are missing"))
        return data


class _Unpacked(io.RawIOBase):
    """The bytes of a tar, forwards only, within limits."""

    def __init__(self, packed: IO[bytes], path: Path, limits: Limits) -> None:
        head = packed.read(_BLOCK)
        size = packed.seek(0, io.SEEK_END)
        packed.seek(0)
        self._source: Any = gzip.GzipFile(fileobj=packed) if head[:2] == _GZIP else packed
        self._path = path
        self._most = int(limits.max_ratio * size) + limits.free_bytes
        self._allowed: int | None = None
        self._position = 0
        self._last = b""

    def allow(self, position: int | None) -> None:
        """How far may be read for now; None: as far as the limits go."""
        self._allowed = position

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or position < self._position:
            raise tarfile.StreamError("a header leads backwards")
        while self._position < position:
            if not self.read(min(_CHUNK, position - self._position)):
                break
        return self._position

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a header with a size below zero")
        if self._allowed is not None and self._position + size > self._allowed:
            raise tarfile.TarError(f"more than {_MAX_HEADERS_BYTES:,} bytes of headers")
        pieces, left = [], size
        while left > 0 and (data := self._source.read(min(left, _CHUNK))):
            pieces.append(data)
            left -= len(data)
            self._position += len(data)
            if self._position > self._most:
                raise SourceError(
                    f"{self._path}: unpacks to more than {self._most:,} bytes, as no archive of videos does",
                    hint=_TOO_MUCH,
                )
        self._last = b"".join(pieces)
        return self._last

    def require_end(self) -> None:
        """Raise when the archive did not end in its mark; else read what is left, which checks the checksum of gzip."""
        if self._last != bytes(_BLOCK):
            raise tarfile.ReadError("no end mark" if not self._last else "no header where one should be")
        while self.read(_CHUNK):
            pass
