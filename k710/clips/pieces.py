"""Pieces of files that should each be a clip: what a worker looks at, and what it found."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from k710.clips.outcomes import CORRUPT, MISSING, NOT_A_VIDEO, OK, TRUNCATED, Unusable
from k710.clips.verify import Decoded, Mode, decode

_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallFile:
    """A member of a shard beside the clip."""

    suffix: str
    """``json`` or ``cls``."""
    offset: int
    """First byte in the shard."""
    size_bytes: int
    """Number of bytes."""
    says: Mapping[str, Any] | str
    """What a ``json`` must say, field by field (others are free), or the text of another file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A clip on the disk: a file, or a range of one."""

    file: str
    """The file that is opened."""
    name: str
    """That file as reports name it."""
    key: str = ""
    """The clip, in a shard or a build."""
    shard: bool = False
    """Whether the file is a shard."""
    offset: int = 0
    """First byte."""
    size_bytes: int | None = None
    """Number of bytes; None: up to the end."""
    sha256: str = ""
    """What the bytes must give; empty: unknown."""
    problem: str = ""
    """What is wrong already, by the listing alone; it is not opened then."""
    small: tuple[SmallFile, ...] = ()
    """The members beside the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a worker looks at in one go."""

    pieces: tuple[Piece, ...]
    """The clips."""
    mode: Mode
    """How much of each is decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What was found of one clip."""

    path: str
    """The file, or the shard that holds it."""
    key: str
    """The clip; empty for a file that is only known by its path."""
    status: str
    """``ok``, or what is wrong: a status of ``outcomes.STATUSES``."""
    reason: str = ""
    """One line for people."""
    frames: int = 0
    """Frames; 0 where it cannot be decoded."""
    duration_s: float = 0.0
    """From the first frame's start to the last one's end."""
    width_px: int = 0
    """Displayed width."""
    height_px: int = 0
    """Displayed height."""
    codec: str = ""
    """Name as ffmpeg has it."""
    sha256: str = ""
    """Of the clip's bytes; empty where they were not all read."""
    notes: tuple[str, ...] = ()
    """``black`` and ``frozen``."""


class ByteRange(io.RawIOBase):
    """A part of an open file as a file of its own, to be read and sought."""

    def __init__(self, handle: BinaryIO, offset: int, size_bytes: int) -> None:
        super().__init__()
        self._descriptor = handle.fileno()
        self._offset = offset
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to ``offset``, counted as files do."""
        start = (0, self._position, self._size_bytes)[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes; all that are left when it is negative."""
        left = max(0, self._size_bytes - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self._offset + self._position)
        self._position += len(data)
        return data


def check(batch: Batch) -> list[Checked]:
    """What there is to say of each piece of a batch, in its order."""
    return [_check(piece, batch.mode) for piece in batch.pieces]


def dead(piece: Piece, exit_code: int) -> Checked:
    """What there is to say of a piece that killed the process which looked at it."""
    return _bad(piece, CORRUPT, f"the process that decoded it died (exit code {exit_code})")


def _check(piece: Piece, mode: Mode) -> Checked:
    if piece.problem:
        return _bad(piece, CORRUPT, piece.problem)
    path = Path(piece.file)
    try:
        # A pipe would be waited for, a device never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            return _bad(piece, NOT_A_VIDEO, "not a regular file")
        with path.open("rb", buffering=0) as handle:
            return _check_opened(piece, mode, cast(BinaryIO, handle))
    except FileNotFoundError:
        gone = (
            "a link that leads nowhere" if path.is_symlink() else "its shard is gone" if piece.shard else "it is gone"
        )
        return _bad(piece, MISSING, gone)
    except OSError as error:
        return _bad(piece, CORRUPT, f"cannot be read ({error.strerror or error})")


def _check_opened(piece: Piece, mode: Mode, handle: BinaryIO) -> Checked:
    file_bytes = os.fstat(handle.fileno()).st_size
    size_bytes = file_bytes - piece.offset if piece.size_bytes is None else piece.size_bytes
    end = piece.offset + size_bytes
    if end > file_bytes:
        return _bad(piece, TRUNCATED, f"{piece.name} ends at byte {file_bytes:,}, the clip at {end:,}")
    if not piece.shard and end < file_bytes:
        return _bad(piece, CORRUPT, f"{file_bytes:,} bytes, the index says {size_bytes:,}")
    source = ByteRange(handle, piece.offset, size_bytes)
    # A file that nobody knows the checksum of is read whole only where it is decoded whole.
    digest = _sha256(source) if piece.shard or piece.sha256 or mode == "full" else ""
    if piece.sha256 and digest != piece.sha256:
        return _bad(piece, CORRUPT, "its bytes are not those that the index was written for (sha256)", digest)
    found = decode(cast(BinaryIO, source), mode)
    if isinstance(found, Unusable):
        return _bad(piece, found.status, found.detail, digest)
    wrong = _wrong_small_file(piece, handle, file_bytes)
    if wrong:
        return _bad(piece, CORRUPT, wrong, digest)
    return _good(piece, found, digest)


def _wrong_small_file(piece: Piece, handle: BinaryIO, file_bytes: int) -> str:
    """What a member beside the clip says that it should not; empty when all is well."""
    for small in piece.small:
        name = f"{piece.key}.{small.suffix}"
        if small.offset + small.size_bytes > file_bytes:
            return f"{name} lies behind the end of the shard"
        data = os.pread(handle.fileno(), small.size_bytes, small.offset)
        if isinstance(small.says, str):
            if data != small.says.encode():
                return f"{name} is not {small.says}"
            continue
        try:
            found = json.loads(data)
            different = [field for field, value in small.says.items() if found.get(field) != value]
        except (ValueError, AttributeError):
            return f"{name} is no JSON"
        if different:
            return f"{name} differs from the manifest in {', '.join(different)}"
    return ""


def _sha256(source: ByteRange) -> str:
    digest = hashlib.sha256()
    while data := source.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()


def _bad(piece: Piece, status: str, reason: str, sha256: str = "") -> Checked:
    return Checked(path=piece.name, key=piece.key, status=status, reason=reason, sha256=sha256)


def _good(piece: Piece, found: Decoded, sha256: str) -> Checked:
    seen = {"black": found.black, "frozen": found.frozen}
    return Checked(
        path=piece.name,
        key=piece.key,
        status=OK,
        frames=found.frames,
        duration_s=round(found.duration_s, 3),
        width_px=found.width_px,
        height_px=found.height_px,
        codec=found.codec,
        sha256=sha256,
        notes=tuple(name for name, is_so in seen.items() if is_so),
    )
