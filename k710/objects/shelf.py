"""Shards, markers and waiting clips of a build in an object store."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from k710 import atomic
from k710.clips.ledger import LEDGER_FILE
from k710.clips.outcomes import OK, ClipOutcome
from k710.errors import FeedError
from k710.objects.objects import Listed, Objects, OvertakenError
from k710.objects.parts import LedgerParts
from k710.shards.index import INDEX_FILE
from k710.shards.plan import SHARDS_FOLDER
from k710.shards.shelf import CACHE_FOLDER, cache_path, remove_unfinished
from k710.shards.write import (
    MARKER_SCHEMA,
    Extent,
    Member,
    marker_path,
    scan_open_tar,
    write_shard,
)

_WINDOW_BYTES = 16 << 10
"""What is read at once of a tar whose members are looked for: the headers between two clips."""
_CLIP = re.compile(rf"{CACHE_FOLDER}/([^/]{{2}})/\1[^/]*\.mp4")
"""An object that ``cache_path`` names; others in that folder are not the build's."""


class ObjectShelf:
    """A prefix of an object store, with a folder of this machine where clips and shards are made.

    What lies there is known from one listing and from what this run has written since. A clip stays on this machine
    until it is packed, a shard until it is sent.
    """

    trusts_sizes = True
    """An object is whole or absent."""

    def __init__(self, objects: Objects, work: Path, parts: LedgerParts) -> None:
        self._objects, self._work, self._parts = objects, work, parts
        self.there: dict[str, Listed] = {}
        """What lies in the store."""
        self.require: Callable[[], None] = unclaimed
        """Called before anything is written; raises when the build is not ours any more."""

    def marker(self, shard: str) -> dict[str, Any] | None:
        """As ``Shelf`` says; so do all others."""
        name = _marker_name(shard)
        try:
            marker = json.loads((self._work / name).read_bytes()) if name in self.there else {}
            same = marker["schema"] == MARKER_SCHEMA and self.there[shard].size_bytes == marker["size_bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return marker if same else None

    def put_marker(self, shard: str, marker: Mapping[str, Any]) -> None:
        self.require()
        path = self._work / _marker_name(shard)
        atomic.write_json(path, marker)
        self._put(_marker_name(shard), path.read_bytes())

    def shards(self) -> list[str]:
        own = (p for p in self.there if p.count("/") == 2 and p.startswith(f"{SHARDS_FOLDER}/"))
        return sorted(p for p in own if Path(p).match("*/t-*.tar"))

    def has_shard(self, shard: str) -> bool:
        return shard in self.there

    def contents(self, shard: str) -> dict[str, Extent]:
        if shard not in self.there:
            return {}
        size_bytes = self.there[shard].size_bytes
        found: dict[str, Extent] = {}
        # A store that does not answer is an error: clips that are not found would be made again.
        stream = io.BufferedReader(_Ranged(self._objects, shard, size_bytes), _WINDOW_BYTES)
        try:
            with suppress(tarfile.TarError), tarfile.open(fileobj=stream, mode="r:") as tar:
                for key, extent in scan_open_tar(tar, size_bytes):
                    found[key] = extent
        except FeedError:
            now = self._objects.size_bytes(shard) if self._objects.exists(shard) else None
            if now == size_bytes:
                raise
            # Written anew by its task, which put into the cache before what others need of it.
            return {}
        return found

    def read(self, shard: str, extent: Extent) -> bytes:
        return self._objects.read_range(shard, extent.offset, extent.size_bytes)

    def write(
        self, shard: str, members: Sequence[Member], read_mp4: Callable[[str], bytes], facts: Mapping[str, Any]
    ) -> None:
        path = self._work / shard
        write_shard(path, members, read_mp4, facts)
        self.require()
        marker = _marker_name(shard)
        # The old marker describes the old bytes; without it nobody takes the new tar for the old one.
        self._delete([marker])
        self._objects.abort_uploads(shard)
        self._objects.upload(path, shard)
        self.there[shard] = Listed(size_bytes=path.stat().st_size, etag="")
        path.unlink()
        self.require()
        data = marker_path(path).read_bytes()
        try:
            self._objects.put_new(marker, data)
        except OvertakenError:
            marker_path(path).unlink()
            raise
        self.there[marker] = Listed(size_bytes=len(data), etag="")

    def remove(self, shard: str) -> None:
        self.require()
        # The marker goes first, and by itself: of many that are removed at once some may stay.
        self._delete([_marker_name(shard)])
        self._delete([shard])
        marker_path(self._work / shard).unlink(missing_ok=True)

    def cached(self, key: str) -> Path:
        return self._work / cache_path(key)

    def cached_size(self, key: str, *, anew: bool = False) -> int | None:
        path = cache_path(key)
        if path not in self.there and anew and self._objects.exists(path):
            self.there[path] = Listed(size_bytes=self._objects.size_bytes(path) or 0, etag="")
        return self.there[path].size_bytes if path in self.there else None

    def read_cached(self, key: str) -> bytes:
        path = cache_path(key)
        if path not in self.there:
            raise FileNotFoundError(path)
        return self.cached(key).read_bytes() if self.cached(key).exists() else self._objects.read(path)

    def put_cached(self, key: str, data: bytes) -> None:
        self.require()
        self._put(cache_path(key), data)

    def gather(self, keys: Iterable[str]) -> None:
        paths = (cache_path(key) for key in keys)
        away = [p for p in paths if p in self.there and not (self._work / p).exists()]
        # Whole files only: what a break leaves has another name.
        partial = [(p, self._work / f"{p}.partial") for p in away]
        self._objects.get_files(partial)
        for path, file in partial:
            file.replace(self._work / path)

    def drop_cached(self, keys: Iterable[str]) -> None:
        paths = [cache_path(key) for key in keys]
        self._delete(paths)
        for path in paths:
            (self._work / path).unlink(missing_ok=True)

    def commit(self, outcomes: Sequence[ClipOutcome]) -> None:
        # The clips before the ledger: a line whose clip is not there would be read as one that is lost.
        made = [outcome for outcome in outcomes if outcome.status == OK and not outcome.path]
        self._objects.put_files([(self.cached(outcome.key), cache_path(outcome.key)) for outcome in made])
        for outcome in made:
            self.there[cache_path(outcome.key)] = Listed(size_bytes=outcome.size_bytes, etag="")
        self._parts.flush()

    def withdraw_index(self) -> None:
        self.require()
        (self._work / INDEX_FILE).unlink(missing_ok=True)
        self._delete([INDEX_FILE])

    def put_index(self) -> None:
        """Write the index, which lies on this machine."""
        self.require()
        path = self._work / INDEX_FILE
        self._objects.upload(path, INDEX_FILE)
        self.there[INDEX_FILE] = Listed(size_bytes=path.stat().st_size, etag="")

    def sweep(self, *, keep_clips: bool) -> None:
        self.require()
        remove_unfinished(self._work)
        for prefix in (f"{SHARDS_FOLDER}/", LEDGER_FILE, INDEX_FILE):
            self._objects.abort_uploads(prefix)
        if not keep_clips:
            self._delete([path for path in self.there if _CLIP.fullmatch(path)])
        shutil.rmtree(self._work / CACHE_FOLDER, ignore_errors=True)

    def use_parts(self, parts: LedgerParts) -> None:
        """Write lines of the ledger into these parts from now on."""
        self._parts = parts

    def _put(self, path: str, data: bytes) -> None:
        self._objects.put(path, data)
        self.there[path] = Listed(size_bytes=len(data), etag="")

    def _delete(self, paths: Iterable[str]) -> None:
        there = [path for path in paths if path in self.there]
        self._objects.delete(there)
        for path in there:
            self.there.pop(path)


class _Ranged(io.RawIOBase):
    """An object as a file, of which only what is asked for is read."""

    def __init__(self, objects: Objects, path: str, size_bytes: int) -> None:
        self._objects, self._path, self._size_bytes = objects, path, size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._size_bytes)[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size_bytes - self._position))
        if wanted:
            buffer[:wanted] = self._objects.read_range(self._path, self._position, wanted)
            self._position += wanted
        return wanted


def _marker_name(shard: str) -> str:
    return str(marker_path(Path(shard)))


def unclaimed() -> None:
    """Refuse to write."""
    raise AssertionError("written before the build was claimed")
