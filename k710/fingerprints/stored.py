"""Fingerprints on the disk: a table for each shard, which a later run reads instead of decoding again.

What is there is decided by the sha256 of a clip's bytes: a build that changes keeps the fingerprints of what stays.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from k710 import atomic
from k710.errors import FeedError
from k710.fingerprints.frames import FIELDS, FORM, HASH_BYTES, FrameHashes, Unreadable, hash_frames, require_pdq
from k710.shards.executors import EXECUTORS
from k710.shards.executors.local import WorkerDied
from k710.store import Store
from k710.tables import named_schema, read_table, write_table

FINGERPRINTS = named_schema(
    "fingerprints",
    FORM,
    [
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("whole", pa.binary(), nullable=False),  # 32 bytes a sample
        pa.field("middle", pa.binary(), nullable=False),
        pa.field("quality", pa.binary(), nullable=False),  # 1 byte a sample
        pa.field("light", pa.binary(), nullable=False),  # 128 bytes a sample: 64 numbers, little-endian
        pa.field("middle_light", pa.binary(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # why there are no samples; else empty
    ],
)
"""The fingerprints of one shard's clips, in order of sha256."""

FOLDER = "fingerprints"
"""In a build."""
_FLUSH_CLIPS = 256
"""New fingerprints of one shard after which its table is written: what a kill costs, at most, for each shard."""
_MOST_BYTES = 1 << 30
_PARTS = ("whole", "middle", "quality", "light", "middle_light")
_LITTLE = np.dtype("<u2")

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipBytes:
    """Where the bytes of a clip are."""

    key: str
    """Its key."""
    file: str
    """Shard or file, as the store takes it."""
    offset: int
    """First byte."""
    size_bytes: int
    """Number of bytes."""
    sha256: str
    """Of the bytes; empty: unknown, and read to be known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What is known of one clip's pictures."""

    sha256: str
    """Of its bytes."""
    frames: FrameHashes
    """Its hashes; none where it has a reason."""
    reason: str = ""
    """Why it has no hashes, one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A clip that could not be looked at this time."""

    key: str
    """Its key."""
    reason: str
    """Why, one line; another run tries again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FingerprintSummary:
    """What a run did."""

    sha256: dict[str, str]
    """Per key the sha256 by which its fingerprint is found."""
    made: int
    """Clips that were decoded now."""
    failed: tuple[Failed, ...]
    """Clips that could not be looked at this time."""


class FingerprintFolder:
    """Tables of fingerprints in a folder, one for each shard, or for the files in place that share two hex digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where they are."""

    def path(self, clip: ClipBytes) -> Path:
        """The table that holds a clip's fingerprint."""
        name = clip.file if clip.file.endswith(".tar") else "in-place"
        if name == "in-place":
            name = f"in-place-{hashlib.sha256(clip.file.encode()).hexdigest()[:2]}"
        return self.folder / f"{name.removesuffix('.tar').replace('/', '-').lstrip('-')}.parquet"

    def read(self, path: Path) -> dict[str, Fingerprint]:
        """What a table holds, by sha256; nothing where there is none or it is of another version."""
        try:
            table = read_table(path, FINGERPRINTS)
            rows = table.to_pylist()
            return {row["sha256"]: _fingerprint(row) for row in rows}
        except (FeedError, ValueError):
            # Made again: a table that cannot be read is worth no more than one that is not there.
            return {}

    def write(self, path: Path, found: Mapping[str, Fingerprint]) -> None:
        """Replace a table."""
        rows = [_row(found[sha256]) for sha256 in sorted(found)]
        write_table(path, pa.Table.from_pylist(rows, schema=FINGERPRINTS), FINGERPRINTS)

    def sweep(self, clips: Iterable[ClipBytes]) -> None:
        """Remove the tables that none of ``clips`` belongs to, and what killed runs have left."""
        wanted = {self.path(clip) for clip in clips}
        for path in [*self.folder.glob("*.parquet"), *self.folder.glob(".*.partial")]:
            if path not in wanted:
                path.unlink(missing_ok=True)


def fingerprint_clips(
    clips: Sequence[ClipBytes],
    store: Store,
    folder: FingerprintFolder,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> FingerprintSummary:
    """Make the fingerprints that are not in ``folder`` yet; killed at any time, the same call goes on from there.

    Raises:
        UsageError: the hash library is missing, or the folder cannot be written.
        SourceError: workers cannot be started.
    """
    require_pdq()
    with atomic.writable(folder.folder):
        return _Run(clips, store, folder, progress or _silent).done(workers)


class _Run:
    """One call of ``fingerprint_clips``."""

    def __init__(self, clips: Sequence[ClipBytes], store: Store, folder: FingerprintFolder, progress: Progress) -> None:
        self._store, self._folder, self._progress = store, folder, progress
        self._total = len(clips)
        self._by_table: dict[Path, list[ClipBytes]] = {}
        for clip in clips:
            self._by_table.setdefault(folder.path(clip), []).append(clip)
        self._sha256: dict[str, str] = {}
        self._failed: list[Failed] = []
        self._tables: dict[Path, dict[str, Fingerprint]] = {}
        self._open: dict[Path, int] = {}
        self._made = 0

    def done(self, workers: int) -> FingerprintSummary:
        work = functools.partial(_look_at, self._store)
        for batch in EXECUTORS["local"](work, self._missing(), workers=workers):
            for clip, found in batch:
                self._take(clip, found)
                self._progress("fingerprints", len(self._sha256) + len(self._failed), self._total)
        self._progress("fingerprints", self._total, self._total)
        return FingerprintSummary(sha256=self._sha256, made=self._made, failed=tuple(self._failed))

    def _missing(self) -> Iterator[ClipBytes]:
        """The clips without a fingerprint, table after table."""
        for path, clips in self._by_table.items():
            known = self._folder.read(path)
            todo = []
            for clip in clips:
                if clip.sha256 in known:
                    self._sha256[clip.key] = clip.sha256
                else:
                    todo.append(clip)
            # What the table's clips no longer are goes, so that a folder does not grow with every build.
            wanted = {clip.sha256 for clip in clips} - {""}
            self._tables[path] = {sha256: f for sha256, f in known.items() if sha256 in wanted}
            self._open[path] = len(todo)
            if not todo:
                self._close(path, changed=len(self._tables[path]) != len(known))
            yield from todo

    def _take(self, clip: ClipBytes, found: Fingerprint | Failed | WorkerDied) -> None:
        path = self._folder.path(clip)
        if isinstance(found, Fingerprint):
            self._sha256[clip.key] = found.sha256
            self._tables[path][found.sha256] = found
            self._made += 1
        elif isinstance(found, Failed):
            self._failed.append(found)
        else:
            self._failed.append(Failed(key=clip.key, reason=f"who decoded it died (exit code {found.exit_code})"))
        self._open[path] -= 1
        if not self._open[path]:
            self._close(path, changed=True)
        elif self._open[path] % _FLUSH_CLIPS == 0:
            self._folder.write(path, self._tables[path])

    def _close(self, path: Path, *, changed: bool) -> None:
        found = self._tables.pop(path)
        if changed:
            self._folder.write(path, found)


def _look_at(store: Store, clip: ClipBytes) -> Fingerprint | Failed:
    """The fingerprint of one clip; for a worker."""
    if clip.size_bytes > _MOST_BYTES:
        return Failed(key=clip.key, reason=f"{clip.size_bytes:,} bytes are too many for a clip")
    try:
        video = store.read_range(clip.file, clip.offset, clip.size_bytes)
    except FeedError as error:
        return Failed(key=clip.key, reason=_line(error.message))
    sha256 = hashlib.sha256(video).hexdigest()
    if clip.sha256 not in ("", sha256):
        return Failed(key=clip.key, reason="its bytes are not those that the index was written for (sha256)")
    try:
        return Fingerprint(sha256=sha256, frames=hash_frames(video))
    except Unreadable as error:
        if error.is_passing:
            return Failed(key=clip.key, reason=_line(str(error)))
        return Fingerprint(sha256=sha256, frames=_hashes(*[b""] * 5), reason=_line(str(error)))


def _fingerprint(row: Mapping[str, object]) -> Fingerprint:
    parts = [row[name] for name in _PARTS]
    assert all(isinstance(part, bytes) for part in parts)
    return Fingerprint(
        sha256=str(row["sha256"]), frames=_hashes(*cast("list[bytes]", parts)), reason=str(row["reason"])
    )


def _hashes(whole: bytes, middle: bytes, quality: bytes, light: bytes, middle_light: bytes) -> FrameHashes:
    shape, fields = (len(quality), HASH_BYTES), (len(quality), FIELDS * FIELDS)
    return FrameHashes(
        whole=np.frombuffer(whole, dtype=np.uint8).reshape(shape),
        middle=np.frombuffer(middle, dtype=np.uint8).reshape(shape),
        quality=np.frombuffer(quality, dtype=np.uint8),
        light=np.frombuffer(light, dtype=_LITTLE).reshape(fields).astype(np.uint16),
        middle_light=np.frombuffer(middle_light, dtype=_LITTLE).reshape(fields).astype(np.uint16),
    )


def _row(found: Fingerprint) -> dict[str, object]:
    frames = found.frames
    return {
        "sha256": found.sha256,
        "whole": frames.whole.tobytes(),
        "middle": frames.middle.tobytes(),
        "quality": frames.quality.tobytes(),
        "light": frames.light.astype(_LITTLE).tobytes(),
        "middle_light": frames.middle_light.astype(_LITTLE).tobytes(),
        "reason": found.reason,
    }


def _line(reason: str) -> str:
    return " ".join(reason.split())[:300]


def _silent(stage: str, done: int, total: int) -> None:
    pass
