"""The encoded bytes of a view's clips, by planned position: from shards or files, on a disk or an object store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from k710.errors import FeedError
from k710.shards.index import View
from k710.store import Store
from uniformerv2.data.clip_cache import ClipCache
from uniformerv2.data.read_ahead import Extent, ReadAhead

_OPEN_FILES = 64
"""Local files that a process keeps open: more than a window of shards needs, fewer than any limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingConfig:
    """How a process reads from an object store; a local disk needs none of it."""

    cache: Path | None = None
    """Local folder that keeps the clips that were read; None: every epoch reads them anew."""
    cache_bytes: int = 100 * 2**30
    """The most that the folder takes, over all processes that use it."""
    ahead_bytes: int = 64 * 2**20
    """The most that each process holds of clips that come next; 0: none is fetched ahead."""
    requests: int = 8
    """Requests of each process at a time."""

    def __post_init__(self) -> None:
        if self.cache_bytes < 1 or self.requests < 1 or self.ahead_bytes < 0:
            raise ValueError("cache_bytes and requests must be at least 1, ahead_bytes at least 0")


class ClipBytes:
    """Where the bytes of a view's clips are, in a form that is cheap to hand to a worker."""

    def __init__(
        self,
        store: Store,
        view: View,
        *,
        reading: ReadingConfig | None = None,
        sha256: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """The clips of ``view`` in ``store``; ``sha256`` [clip, 32] is that of each clip's bytes, zeros: unknown.

        Raises:
            UsageError: the folder of the cache cannot be written to.
        """
        self._store = Store(store.root, open_files=_OPEN_FILES)
        self._reading = reading or ReadingConfig()
        self._shards = sorted({s for s in view.shards if s is not None})
        number = {s: i for i, s in enumerate(self._shards)}
        self._shard_of = np.array([-1 if s is None else number[s] for s in view.shards], dtype=np.int32)
        self._offsets, self._sizes = view.offsets, view.sizes_bytes
        self._sha256 = sha256
        self.frames = view.frames
        if self._reading.cache is not None and sha256 is None:
            raise ValueError("a cache needs the sha256 of the clips")
        self._open_in_this_process()
        if self._cache is not None:
            self._cache.prepare()

    @property
    def is_local(self) -> bool:
        """Whether reads take no longer than a disk does, so that none need be announced."""
        return self._store.is_local

    def shard_of(self, position: int) -> str:
        """The file, a shard or one in place, that has the clip at a planned position that has bytes."""
        return str(self._shards[self._shard_of[position]])

    def expect(self, positions: Iterable[int]) -> None:
        """Say which clips are read next, in order: from an object store they are fetched in the background."""
        self._of_this_process()
        if self._ahead is not None:
            extents = [self._extent(p) for p in positions if not self._is_cached(p)]
            self._ahead.expect(extents)

    def read(self, position: int) -> bytes:
        """The encoded clip at a planned position that has bytes.

        The first clip of every file is compared with the index, so that a shard of another build is not taken for ours.

        Raises:
            FeedError: they cannot be read, or the file is another than the index was made of.
        """
        self._of_this_process()
        digest = self._digest(position)
        if self._cache is not None and digest and (kept := self._cache.get(digest)) is not None:
            return kept
        extent = self._extent(position)
        try:
            data = self._ahead.take(extent) if self._ahead is not None else self._fetch(extent)
        except OSError as error:  # no permission, a disk or a network that fails
            raise FeedError(f"{extent.file}: cannot be read: {error.strerror or error}") from error
        shard = self._shard_of[position]
        if self._cache is not None or not self._compared[shard]:
            if self.differs(position, data):
                raise FeedError(
                    f"{extent.file}: another file than the one that the index was made of, {_where(extent)}"
                )
            self._compared[shard] = True
        if self._cache is not None and digest:
            self._cache.put(digest, data)
        return data

    def differs(self, position: int, data: bytes) -> bool:
        """Whether ``data`` is known not to be what was written for the clip."""
        digest = self._digest(position)
        return bool(digest) and hashlib.sha256(data).hexdigest() != digest

    def _digest(self, position: int) -> str:
        """sha256 of the clip; empty: unknown."""
        if self._sha256 is None or not self._sha256[position].any():
            return ""
        return bytes(self._sha256[position]).hex()

    def _extent(self, position: int) -> Extent:
        return Extent(
            file=self.shard_of(position), offset=int(self._offsets[position]), size_bytes=int(self._sizes[position])
        )

    def _is_cached(self, position: int) -> bool:
        digest = self._digest(position) if self._cache is not None else ""
        return self._cache is not None and bool(digest) and self._cache.has(digest)

    def _fetch(self, extent: Extent) -> bytes:
        return self._store.read_range(extent.file, extent.offset, extent.size_bytes)

    def _of_this_process(self) -> None:
        if self._pid != os.getpid():
            self._open_in_this_process()

    def _open_in_this_process(self) -> None:
        """Threads do not survive a fork, and what they held can never be let go."""
        self._pid = os.getpid()
        self._compared = np.zeros(len(self._shards), dtype=bool)
        config, self._ahead, self._cache = self._reading, None, None
        if self.is_local:
            return
        if config.cache is not None:
            self._cache = ClipCache(config.cache, max_bytes=config.cache_bytes, wanted=self._wants)
        if config.ahead_bytes:
            self._ahead = ReadAhead(self._fetch, max_bytes=config.ahead_bytes, num_threads=config.requests)

    def _wants(self, digest: str) -> bool:
        """Whether a clip of this view has the digest."""
        if not hasattr(self, "_known"):
            assert self._sha256 is not None
            self._known = {row.tobytes()[:8] for row in self._sha256}
        try:
            return bytes.fromhex(digest)[:8] in self._known
        except ValueError:  # not ours: it may go
            return False

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_ahead", "_cache", "_compared", "_known", "_pid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_in_this_process()


def _where(extent: Extent) -> str:
    return f"bytes {extent.offset}-{extent.end - 1}"
