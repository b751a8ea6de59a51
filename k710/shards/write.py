"""Writing one shard: the same members give the same bytes, and its marker, written last, says that it is whole."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710 import atomic
from k710.errors import FeedError

MARKER_SCHEMA = "k710.shard/1"
_BLOCK = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One clip as it goes into a shard."""

    key: str
    """Name of its files."""
    facts: Mapping[str, Any]
    """What ``KEY.json`` says."""
    canonical: int | None
    """What ``KEY.cls`` says; None: no such file."""
    sha256: str
    """Of the mp4."""
    size_bytes: int
    """Of the mp4."""

    @property
    def small_files(self) -> list[tuple[str, bytes]]:
        """Suffix and bytes of the members besides the mp4."""
        text = json.dumps(self.facts, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        return [("json", text), *([("cls", str(self.canonical).encode())] if self.canonical is not None else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Where a member's bytes are in a tar."""

    offset: int
    """First byte."""
    size_bytes: int
    """Number of bytes."""


Extents = dict[tuple[str, str], Extent]
"""By key and suffix."""


def content_digest(members: Sequence[Member]) -> str:
    """sha256 of all that a shard of these members holds: equal digests mean equal bytes."""
    digest = hashlib.sha256(MARKER_SCHEMA.encode())
    for member in members:
        digest.update(f"{member.key}\0{member.sha256}\0".encode())
        for suffix, data in member.small_files:
            digest.update(suffix.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()


def write_shard(
    path: Path, members: Sequence[Member], read_mp4: Callable[[str], bytes], facts: Mapping[str, Any]
) -> None:
    """Write the tar ``path``, then its marker; a kill in between leaves a tar without marker, which is written again.

    Raises:
        FeedError: the mp4 of a member is not the one that was verified.
    """
    marker = marker_path(path)
    # The old marker describes the old bytes; without it nobody takes the new tar for the old one.
    marker.unlink(missing_ok=True)
    with atomic.replacing(path) as partial, partial.open("wb") as handle:
        hashing = _Hashing(handle)
        with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for member in members:
                for suffix, data in [("mp4", _verified(member, read_mp4)), *member.small_files]:
                    tar.addfile(_header(f"{member.key}.{suffix}", len(data)), io.BytesIO(data))
    atomic.write_json(
        marker,
        {
            "schema": MARKER_SCHEMA,
            "clips": len(members),
            "size_bytes": path.stat().st_size,
            "sha256": hashing.sha256.hexdigest(),
            "md5": hashing.md5.hexdigest(),
            "content": content_digest(members),
            **facts,
        },
    )


def read_marker(path: Path) -> dict[str, Any] | None:
    """The marker of the shard at ``path``; None when there is none, or the tar is not the one it describes."""
    try:
        marker = json.loads(marker_path(path).read_bytes())
        same = marker["schema"] == MARKER_SCHEMA and path.stat().st_size == marker["size_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return marker if same else None


def marker_path(path: Path) -> Path:
    """Where the commit marker of a shard is."""
    return path.with_suffix(".json")


def planned_extents(members: Sequence[Member]) -> Extents:
    """Where the members of a shard lie, known from their sizes alone."""
    extents: Extents = {}
    offset = 0
    for member in members:
        sizes = [("mp4", member.size_bytes), *((s, len(d)) for s, d in member.small_files)]
        for suffix, size in sizes:
            extents[member.key, suffix] = Extent(offset=offset + _BLOCK, size_bytes=size)
            offset += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return extents


def scan_tar(path: Path) -> Iterator[tuple[str, Extent]]:
    """Key and place of each mp4 in a tar, by walking its headers; stops at the first damaged or cut off one."""
    try:
        size_bytes = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            yield from scan_open_tar(tar, size_bytes)
    except (tarfile.TarError, OSError):
        return


def scan_open_tar(tar: tarfile.TarFile, size_bytes: int) -> Iterator[tuple[str, Extent]]:
    """Key and place of each mp4 in an open tar of ``size_bytes``, up to the first damaged header, which it raises."""
    for info in tar:
        key, _, suffix = info.name.rpartition(".")
        if suffix == "mp4" and info.offset_data + info.size <= size_bytes:
            yield key, Extent(offset=info.offset_data, size_bytes=info.size)


def shard_files(folder: Path) -> Iterable[Path]:
    """Every tar under a build's shard folder, in order of name."""
    return sorted(folder.glob("*/t-*.tar"))


def _verified(member: Member, read_mp4: Callable[[str], bytes]) -> bytes:
    data = read_mp4(member.key)
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise FeedError(
            f"{member.key}: its bytes are not those that were encoded",
            hint="something else wrote to the build's folder; check the disk, then run `k710 build` again",
        )
    return data


def _header(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o444
    info.mtime = 0
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


class _Hashing(io.RawIOBase):
    """Hashes what is written through it, so that a shard is not read again for its checksums."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.md5.update(data)
        return int(self._handle.write(data))

    def tell(self) -> int:
        return int(self._handle.tell())

    def writable(self) -> bool:
        return True
