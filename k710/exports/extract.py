"""Clips as files: bytes from the shards under the clips' keys, each once; a run that was ended goes on.

A folder of ours is known by its marker; another that is not empty is refused, so that nobody's videos are replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from k710 import atomic
from k710.errors import FeedError, UsageError
from k710.exports.clips import Clip
from k710.exports.job import Progress
from k710.processes import only_writer
from k710.store import Store

MARKER_FILE = "k710-extract.json"
SCHEMA = "k710.extract/1"
_GUARD_FILE = ".k710-extract-guard"
_THREADS = 8
"""Waits for the disk or an object store overlap; the bytes themselves are few."""
_BATCH = 256
_READ_BYTES = 1 << 20
_BLOCK_BYTES = 4096
"""What a file takes on most disks is a multiple of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """What an extraction did."""

    written: int
    """Files that this run wrote."""
    kept: int
    """Files that were there."""
    strangers: tuple[str, ...]
    """Files in the folder that no view of this export names, in order."""


def clip_file(clip: Clip) -> str:
    """Path of a clip in the folder: its key, in one of 256 folders; many file systems are slow with 650,000 names."""
    suffix = PurePosixPath(clip.path).suffix.lower() if clip.path else ""
    suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ".mp4"
    return f"{hashlib.sha256(clip.key.encode()).hexdigest()[:2]}/{clip.key}{suffix}"


def extract(store: Store, clips: Iterable[Clip], folder: Path, progress: Progress) -> Extracted:
    """Write the clips to ``folder``, whole or not at all; those that are there with the right bytes are kept.

    Clips that are files in place are linked, not copied.

    Raises:
        UsageError: the folder is somebody's, another process writes to it, or the disk has no room.
        FeedError: a shard cannot be read, or its bytes are not those of the index.
    """
    wanted = {clip.key: clip for clip in clips}
    _require_ours(folder)
    with atomic.writable(folder), _only_export(folder):
        atomic.write_json(folder / MARKER_FILE, {"schema": SCHEMA})
        strangers = _swept(folder, {clip_file(clip) for clip in wanted.values()})
        missing = _missing(store, list(wanted.values()), folder, progress)
        _require_room(store, missing, folder)
        _write(store, missing, folder, progress)
    return Extracted(
        written=len(missing),
        kept=len(wanted) - len(missing),
        strangers=strangers,
    )


@contextlib.contextmanager
def _only_export(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other exports."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(only_writer(folder / _GUARD_FILE, f"another export is writing to {folder}"))
        except UsageError as error:
            raise UsageError(error.message, hint="wait for it, or give another --extract") from error
        yield


def _require_ours(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        found = json.loads((folder / MARKER_FILE).read_bytes())["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        # The guard is the first file; a kill may have come before the second.
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= {_GUARD_FILE}:
            return
        what = "not empty, and not made by `k710 export`" if folder.is_dir() else "is a file"
        raise UsageError(f"--extract {folder}: {what}", hint="give a new folder") from error
    if found != SCHEMA:
        raise UsageError(f"--extract {folder}: made by another version ({found})", hint="give a new folder")


def _swept(folder: Path, wanted: set[str]) -> tuple[str, ...]:
    """Remove what killed writes left; returns the files there that are not ``wanted``."""
    strangers = []
    for place in folder.iterdir():
        if not re.fullmatch("[0-9a-f]{2}", place.name) or not place.is_dir():
            continue
        for name in os.listdir(place):  # noqa: PTH208 - 650,000 names, of which few are looked at
            if name.startswith(".") and name.endswith(".partial"):
                (place / name).unlink(missing_ok=True)
            elif f"{place.name}/{name}" not in wanted:
                strangers.append(f"{place.name}/{name}")
    return tuple(sorted(strangers))


def _missing(store: Store, clips: Sequence[Clip], folder: Path, progress: Progress) -> list[Clip]:
    """The clips whose file is not there with the right bytes, in the order in which shards hold them."""
    missing = []
    done = 0
    with _pool() as pool:
        for batch in _batches(clips):
            there = pool.map(lambda clip: _is_there(store, clip, folder / clip_file(clip)), batch)
            missing += [clip for clip, found in zip(batch, there, strict=True) if not found]
            done += len(batch)
            progress("looking at files", done, len(clips))
    return sorted(missing, key=lambda clip: (clip.shard or "", clip.offset, clip.key))


def _is_there(store: Store, clip: Clip, path: Path) -> bool:
    if (source := _in_place(store, clip)) is not None:
        return path.is_symlink() and path.readlink() == source
    try:
        if path.is_symlink() or path.stat().st_size != clip.size_bytes:
            return False
        return clip.sha256 is None or _sha256(path) == clip.sha256
    except OSError:
        return False


def _in_place(store: Store, clip: Clip) -> Path | None:
    """The file that a clip is, on this machine; None: its bytes are in a shard or elsewhere."""
    return Path(store.url(clip.path)).absolute() if clip.path and store.is_local else None


def _require_room(store: Store, clips: Sequence[Clip], folder: Path) -> None:
    copied = [clip.size_bytes for clip in clips if _in_place(store, clip) is None]
    needed = sum(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES for size in copied)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"--extract {folder}: {_sized(needed)} needed for {len(copied):,} clips, {_sized(free)} free",
            hint="make room, or give a folder on another disk; `--view` takes less",
        )


def _sized(size_bytes: float) -> str:
    """``size_bytes`` for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.{0 if unit == 'B' else 1}f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def _write(store: Store, clips: Sequence[Clip], folder: Path, progress: Progress) -> None:
    done = 0
    with _pool() as pool:
        for batch in _batches(clips):
            for _ in pool.map(lambda clip: _write_one(store, clip, folder / clip_file(clip)), batch):
                done += 1
            progress("extracting clips", done, len(clips))


def _write_one(store: Store, clip: Clip, path: Path) -> None:
    if (source := _in_place(store, clip)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(source)
        return
    file = clip.shard or clip.path
    assert file is not None, "a clip without bytes is not extracted"
    data = store.read_range(file, clip.offset, clip.size_bytes)
    if clip.sha256 is not None and hashlib.sha256(data).hexdigest() != clip.sha256:
        raise FeedError(
            f"{store.url(file)}: the bytes of {clip.key} are not those of the index",
            hint="`k710 verify` says what else is damaged; then run `k710 build` again",
        )
    atomic.write_bytes(path, data)


@contextlib.contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that do not begin anything new once this one is interrupted or fails."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    for start in range(0, len(clips), _BATCH):
        yield clips[start : start + _BATCH]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as handle:
        while data := handle.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
