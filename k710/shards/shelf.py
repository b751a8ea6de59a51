"""Where the shards of a build, their markers and the clips that wait to be packed lie: a folder on a disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from k710 import atomic
from k710.clips.outcomes import ClipOutcome
from k710.shards.index import INDEX_FILE
from k710.shards.plan import SHARDS_FOLDER
from k710.shards.write import Extent, Member, marker_path, read_marker, scan_tar, shard_files, write_shard
from k710.store import Store

CACHE_FOLDER = "cache"


class Shelf(Protocol):
    """What packing needs of the place where a build lies. Shards are named by their paths relative to the build."""

    @property
    def trusts_sizes(self) -> bool:
        """Whether what has the right size is whole, so that only what is packed need be read."""
        ...

    def marker(self, shard: str) -> dict[str, Any] | None:
        """The marker of a shard; None when there is none, or the tar is not the one it describes."""
        ...

    def put_marker(self, shard: str, marker: Mapping[str, Any]) -> None:
        """Replace the marker of a shard, whose bytes stay."""
        ...

    def shards(self) -> list[str]:
        """Every shard that is there, planned or not, with or without marker, in order of name."""
        ...

    def has_shard(self, shard: str) -> bool:
        """Whether the tar is there."""
        ...

    def contents(self, shard: str) -> dict[str, Extent]:
        """Where the mp4 of each clip in a shard is."""
        ...

    def read(self, shard: str, extent: Extent) -> bytes:
        """Bytes of a shard; a ``FeedError`` when they are not there."""
        ...

    def write(
        self, shard: str, members: Sequence[Member], read_mp4: Callable[[str], bytes], facts: Mapping[str, Any]
    ) -> None:
        """Write a shard, and its marker last."""
        ...

    def remove(self, shard: str) -> None:
        """Remove a shard and its marker."""
        ...

    def cached(self, key: str) -> Path:
        """Where on this machine the mp4 of a clip is put that waits to be packed."""
        ...

    def cached_size(self, key: str, *, anew: bool = False) -> int | None:
        """Bytes of the clip that waits to be packed; None: it does not, or others put it there and not ``anew``."""
        ...

    def read_cached(self, key: str) -> bytes:
        """Bytes of the clip that waits to be packed; a ``FileNotFoundError`` when it does not."""
        ...

    def put_cached(self, key: str, data: bytes) -> None:
        """Have a clip wait to be packed."""
        ...

    def gather(self, keys: Iterable[str]) -> None:
        """Get ready to read these clips, those among them that wait to be packed."""
        ...

    def drop_cached(self, keys: Iterable[str]) -> None:
        """Remove clips that wait no longer."""
        ...

    def commit(self, outcomes: Sequence[ClipOutcome]) -> None:
        """Make outcomes, and the clips that lie at ``cached``, safe where the build lies."""
        ...

    def withdraw_index(self) -> None:
        """Remove the index, before shards change under it."""
        ...

    def sweep(self, *, keep_clips: bool) -> None:
        """Remove what killed writes left, and the clips that wait."""
        ...


class LocalShelf:
    """A folder on a disk."""

    trusts_sizes = False
    """A file may be damaged under its name."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._store = Store(out)

    def marker(self, shard: str) -> dict[str, Any] | None:
        """As ``Shelf`` says; so do all others."""
        return read_marker(self._out / shard)

    def put_marker(self, shard: str, marker: Mapping[str, Any]) -> None:
        atomic.write_json(marker_path(self._out / shard), marker)

    def shards(self) -> list[str]:
        return [os.path.relpath(path, self._out) for path in shard_files(self._out / SHARDS_FOLDER)]

    def has_shard(self, shard: str) -> bool:
        return (self._out / shard).exists()

    def contents(self, shard: str) -> dict[str, Extent]:
        return dict(scan_tar(self._out / shard))

    def read(self, shard: str, extent: Extent) -> bytes:
        return self._store.read_range(shard, extent.offset, extent.size_bytes)

    def write(
        self, shard: str, members: Sequence[Member], read_mp4: Callable[[str], bytes], facts: Mapping[str, Any]
    ) -> None:
        write_shard(self._out / shard, members, read_mp4, facts)

    def remove(self, shard: str) -> None:
        path = self._out / shard
        marker_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def cached(self, key: str) -> Path:
        return self._out / cache_path(key)

    def cached_size(self, key: str, *, anew: bool = False) -> int | None:  # noqa: ARG002 - a disk is always asked
        try:
            return self.cached(key).stat().st_size
        except FileNotFoundError:
            return None

    def read_cached(self, key: str) -> bytes:
        return self.cached(key).read_bytes()

    def put_cached(self, key: str, data: bytes) -> None:
        if not self.cached(key).exists():
            atomic.write_bytes(self.cached(key), data)

    def gather(self, keys: Iterable[str]) -> None:
        """They are at hand."""

    def drop_cached(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.cached(key).unlink(missing_ok=True)

    def commit(self, outcomes: Sequence[ClipOutcome]) -> None:
        """They are safe: the ledger and the clips lie on the disk."""

    def withdraw_index(self) -> None:
        (self._out / INDEX_FILE).unlink(missing_ok=True)

    def sweep(self, *, keep_clips: bool) -> None:
        remove_unfinished(self._out)
        if not keep_clips:
            shutil.rmtree(self._out / CACHE_FOLDER, ignore_errors=True)


def cache_path(key: str) -> str:
    """Where in a build the mp4 of a clip waits to be packed."""
    return f"{CACHE_FOLDER}/{key[:2]}/{key}.mp4"


def remove_unfinished(out: Path) -> None:
    """Remove the temporary files that killed writes left in the build at ``out``."""
    for folder in (".", "views", f"{SHARDS_FOLDER}/*", f"{CACHE_FOLDER}/*"):
        for partial in list(out.glob(f"{folder}/.*.partial")):
            partial.unlink()
