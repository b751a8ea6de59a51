"""Bytes as they lie on a disk to the bytes of a list: gzip and tar undone in memory, within stated limits."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from k710.errors import InputError

MAX_BYTES = 1 << 30
"""A list that is larger unpacked (the largest published one is 0.14 GB) is refused, and so is an archive member."""
MAX_PACKED_BYTES = 1 << 28
"""A compressed file that is larger is no list and no archive of lists."""
MAX_ARCHIVE_BYTES = 1 << 30
"""Unpacked size up to which an archive is searched (the largest of DeepMind's is below 0.3 GB)."""
MAX_MEMBERS = 10_000
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_AGAIN = "fetch it again"


def read_file(path: Path, short: str | None = None) -> bytes:
    """The bytes of ``path``, which must be a file of sane size; ``short`` names it in messages about its content.

    Raises:
        InputError: it cannot be read, or is larger than any list.
    """
    take_out = "make it readable, or take it out of the folder"
    try:
        if not path.is_file():
            raise InputError(f"{path}: not a file", hint=take_out)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{short or path}: {size} bytes is too large for a list", hint=take_out)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({why})", hint=take_out) from error


def unpacked(raw: bytes, where: str) -> bytes:
    """``raw`` with up to two layers of gzip undone, whatever the file is called.

    Raises:
        InputError: a gzip layer is cut off or damaged, or gives more than ``MAX_BYTES``.
    """
    for _ in range(2):
        if raw[:2] != _GZIP:
            break
        raw = _gunzipped(raw, where)
    return raw


def is_archive(raw: bytes, where: str) -> bool:
    """Whether ``raw`` is a tar file, gzipped or not."""
    head = raw[:512]
    if head[:2] == _GZIP:
        try:
            head = zlib.decompressobj(31).decompress(raw, 512)
        except zlib.error as error:
            raise _broken_gzip(where, error) from error
    return head[257:262] == b"ustar"


def member_names(raw: bytes, where: str) -> list[str]:
    """Names of the regular files in an archive, in its order; ``._*`` files of macOS are passed over."""
    return [info.name for _, info in _members(raw, where)]


def read_members(raw: bytes, where: str, names: set[str]) -> dict[str, bytes]:
    """Unpacked bytes of the members called ``names``; of two with one name the later counts, as in extraction.

    Raises:
        InputError: the archive is damaged, or a wanted member is missing or larger than ``MAX_BYTES``.
    """
    found: dict[str, bytes] = {}
    for archive, info in _members(raw, where):
        if info.name not in names:
            continue
        if info.size > MAX_BYTES:
            raise InputError(f"{where}: {info.name} is too large for a list ({info.size} bytes)", hint=_AGAIN)
        handle = archive.extractfile(info)
        found[info.name] = handle.read() if handle is not None else b""
    missing = sorted(names - set(found))
    if missing:
        raise InputError(f"{where}: {missing[0]} is not in the archive", hint=_AGAIN)
    return {name: unpacked(data, f"{where}:{name}") for name, data in found.items()}


def _members(raw: bytes, where: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    # As a stream: sizes in a damaged header can then never lead backwards, which would not end.
    try:
        with tarfile.open(fileobj=_Bounded(raw, where), mode="r|", bufsize=_CHUNK) as archive:
            for number, info in enumerate(archive):
                if number >= MAX_MEMBERS:
                    raise InputError(f"{where}: more than {MAX_MEMBERS} files in the archive", hint=_AGAIN)
                if info.isreg() and info.size >= 0 and not PurePosixPath(info.name).name.startswith("._"):
                    yield archive, info
    # ValueError and IndexError: numbers in headers of other kinds that tarfile does not expect.
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{where}: not a whole tar archive ({error})", hint=_AGAIN) from error


class _Bounded(io.RawIOBase):
    """An archive's unpacked bytes from the start on, which end in an error past the limit."""

    def __init__(self, raw: bytes, where: str) -> None:
        plain = io.BytesIO(raw)
        self._source: io.BytesIO | gzip.GzipFile = gzip.GzipFile(fileobj=plain) if raw[:2] == _GZIP else plain
        self._left = MAX_ARCHIVE_BYTES
        self._where = where

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(_CHUNK if size < 0 else min(size, _CHUNK))
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"{self._where}: more than {MAX_ARCHIVE_BYTES} bytes unpacked", hint=_AGAIN)
        return data


def _gunzipped(raw: bytes, where: str) -> bytes:
    if len(raw) > MAX_PACKED_BYTES:
        raise InputError(f"{where}: {len(raw)} compressed bytes are too many for a list", hint=_AGAIN)
    try:
        first = zlib.decompressobj(31)
        text = first.decompress(raw, MAX_BYTES + 1)
        if len(text) <= MAX_BYTES and not first.eof:
            raise _broken_gzip(where, "it ends early")
        if len(text) <= MAX_BYTES and first.unused_data.strip(b"\0"):
            text = _all_members(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken_gzip(where, error) from error
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: more than {MAX_BYTES} bytes unpacked, too large for a list", hint=_AGAIN)
    return text


def _all_members(raw: bytes) -> bytes:
    parts, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        while size <= MAX_BYTES and (part := stream.read(_CHUNK)):
            parts.append(part)
            size += len(part)
    return b"".join(parts)


def _broken_gzip(where: str, error: object) -> InputError:
    return InputError(f"{where}: not a whole gzip file ({error})", hint=_AGAIN)
