"""From verified clips to shards: which leaves are already as planned, where each clip's bytes are, and what to write.

A clip is committed when its mp4 is in the cache or in a shard and the ledger says so. No committed clip is made twice:
a shard that changes takes the clips that stay from the old shards, by byte range.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from k710 import schema
from k710.clips.outcomes import OK, ClipOutcome
from k710.errors import FeedError
from k710.labels import TAXONOMIES, LabelMap
from k710.shards.executors.array import ArrayTask
from k710.shards.plan import ROOT
from k710.shards.shelf import LocalShelf, Shelf
from k710.shards.write import Extent, Extents, Member, content_digest, planned_extents

_PLACED = tuple(name for name in schema.SHARDS.names if name not in schema.MANIFEST.names)
"""Columns of the index that the plan does not have."""


class Packing:
    """The shards of one build as they are planned and as they stand on the disk."""

    def __init__(
        self,
        out: Path,
        manifest: pa.Table,
        labels: LabelMap,
        outcomes: Mapping[str, ClipOutcome],
        *,
        task: ArrayTask | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        """``outcomes`` is read when a leaf is packed, so it may grow in the meantime; ``task`` packs its own only."""
        self.out = out
        """Folder of the build."""
        self.shelf: Shelf = LocalShelf(out) if shelf is None else shelf
        """Where shards and waiting clips lie."""
        self._names = {taxonomy: labels.taxonomy_names(taxonomy) for taxonomy in TAXONOMIES}
        self._outcomes = outcomes
        self._planned = manifest
        self.clips: dict[str, dict[str, Any]] = {c["key"]: c for c in manifest.drop_columns(["rows"]).to_pylist()}
        self.leaves: dict[str, list[str]] = {}
        for key, clip in self.clips.items():
            self.leaves.setdefault(clip["leaf"], []).append(key)
        if task is not None:
            self.leaves = {leaf: self.leaves[leaf] for leaf in task.own(self.leaves)}
        self._walked: dict[str, dict[str, Extent]] = {}
        self._near: dict[str, list[str]] = {}
        self._anywhere: dict[str, str] | None = None

    @property
    def keys(self) -> list[str]:
        """The clips of the leaves that are to be packed here."""
        return [key for key, clip in self.clips.items() if clip["leaf"] in self.leaves]

    def cached(self, key: str) -> Path:
        """Where the mp4 of a clip waits to be packed."""
        return self.shelf.cached(key)

    def is_done(self, leaf: str) -> bool:
        """Whether every clip of a leaf has an outcome and its shard holds just those that have bytes."""
        if any(key not in self._outcomes for key in self.leaves[leaf]):
            return False
        members = self.members(leaf)
        marker = self.shelf.marker(leaf)
        if not members:
            return not self.shelf.has_shard(leaf)
        return marker is not None and marker["content"] == content_digest(members)

    def has_bytes(self, key: str) -> bool:
        """Whether the mp4 of a clip is in the cache or in some shard on the disk, as it was encoded, or in place."""
        if self._outcomes[key].path:
            return True
        if self.shelf.trusts_sizes:
            return self._outcomes[key].size_bytes == self._size_there(key)
        try:
            data = self._read_mp4(key)
        except (KeyError, FeedError):
            return False
        return hashlib.sha256(data).hexdigest() == self._outcomes[key].sha256

    def is_ready(self, leaf: str) -> bool:
        """Whether every clip of a leaf has an outcome, and bytes where it should."""
        outcomes = [self._outcomes.get(key) for key in self.leaves[leaf]]
        return all(o is not None and (o.status != OK or self.has_bytes(o.key)) for o in outcomes)

    def members(self, leaf: str) -> list[Member]:
        """The clips of a leaf whose bytes belong in its shard, in order of key."""
        ordered = ((key, self._outcomes[key]) for key in sorted(self.leaves[leaf]))
        return [self._member(key) for key, outcome in ordered if outcome.status == OK and not outcome.path]

    def rescue(self, leaves: Iterable[str]) -> None:
        """Copy to the cache each clip that would lose its bytes when these leaves are written anew."""
        for leaf in leaves:
            for key, extent in self._contents(leaf).items():
                if key in self.clips and self.clips[key]["leaf"] != leaf:
                    self._to_cache(key, leaf, extent)

    def dissolve(self, shard: str) -> None:
        """Remove a shard, planned or not; its clips that are planned wait in the cache to be packed."""
        for key, extent in self._contents(shard).items():
            if key in self.clips:
                self._to_cache(key, shard, extent)
        self._remove(shard)

    def pack(self, leaf: str, plan_digest: str, *, keep_clips: bool) -> None:
        """Write the shard of a leaf and drop its cache entries; a leaf without bytes has no shard."""
        members = self.members(leaf)
        if members:
            self.shelf.gather(member.key for member in members)
            self.shelf.write(leaf, members, self._read_mp4, {"plan": plan_digest})
            self._walked.pop(leaf, None)
        else:
            self._remove(leaf)
        if not keep_clips:
            self.shelf.drop_cached(member.key for member in members)

    def restamp(self, plan_digest: str) -> None:
        """Make the markers of shards that a new plan left as they were name that plan."""
        for leaf in self.leaves:
            marker = self.shelf.marker(leaf)
            if marker is not None and marker.get("plan") != plan_digest:
                self.shelf.put_marker(leaf, marker | {"plan": plan_digest})

    def sweep(self, *, keep_clips: bool) -> int:
        """Remove shards that are no longer planned, the cache and what killed writes left; returns how many shards."""
        stale = self.stale()
        for shard in stale:
            self._remove(shard)
        self.shelf.sweep(keep_clips=keep_clips)
        return len(stale)

    def stale(self) -> list[str]:
        """Shards on the disk that are not planned."""
        return [shard for shard in self.shelf.shards() if shard not in self.leaves]

    def keys_in(self, shard: str) -> set[str]:
        """Keys of the clips whose bytes are in a shard on the disk."""
        return set(self._contents(shard))

    def index(self) -> pa.Table:
        """One row per planned clip: where its bytes are, or why it has none."""
        # By column, and a leaf at a time: as many rows as there are clips would take several times as long.
        made: dict[str, list[Any]] = {name: [] for name in _PLACED}
        leaf, extents = "", Extents()
        for key, clip in self.clips.items():
            if clip["leaf"] != leaf:
                leaf = clip["leaf"]
                extents = planned_extents(self.members(leaf))
            row = self._placed(key, leaf, extents)
            for name in _PLACED:
                made[name].append(row.get(name))
        arrays = {name: pa.array(values, schema.SHARDS.field(name).type) for name, values in made.items()}
        columns = [arrays[name] if name in arrays else self._planned[name] for name in schema.SHARDS.names]
        return pa.table(columns, schema=schema.SHARDS)

    def _placed(self, key: str, leaf: str, extents: Extents) -> dict[str, Any]:
        outcome = self._outcomes[key]
        row: dict[str, Any] = {"status": outcome.status, "notes": outcome.notes}
        if outcome.status != OK:
            return row
        if outcome.path:
            row |= {"path": outcome.path, "mp4_offset": 0, "mp4_size_bytes": outcome.size_bytes}
        else:
            row["shard"] = leaf
        for suffix in ("mp4", "json", "cls"):
            if (key, suffix) in extents:
                row[f"{suffix}_offset"] = extents[key, suffix].offset
                row[f"{suffix}_size_bytes"] = extents[key, suffix].size_bytes
        row |= {name: getattr(outcome, name) for name in ("frames", "fps", "width_px", "height_px", "codec")}
        return row | {"sha256": outcome.sha256 or None}

    def _member(self, key: str) -> Member:
        clip, outcome = self.clips[key], self._outcomes[key]
        labels: dict[str, Any] = {} if clip["class"] is None else {"k710": clip["class"]}
        for taxonomy in TAXONOMIES:
            index = clip[f"{taxonomy}_class"]
            if index is not None:
                labels[taxonomy] = {"index": index, "name": self._names[taxonomy][index]}
        facts: dict[str, Any] = {
            "id": clip["id"],
            "segment": {"start_s": clip["start_s"], "end_s": clip["end_s"]},
            "labels": labels,
            "source": {"kind": outcome.kind, "file": outcome.source},
            "notes": list(outcome.notes),
        }
        if len(clip["classes"]) > 1:
            facts["classes"] = clip["classes"]
        return Member(
            key=key, facts=facts, canonical=clip["class"], sha256=outcome.sha256, size_bytes=outcome.size_bytes
        )

    def _read_mp4(self, key: str) -> bytes:
        try:
            data = self._found(key)
        except (KeyError, FeedError):
            if self.shelf.cached_size(key, anew=True) is None:
                raise
            data = b""
        # Another task that packs the shard anew in which it was has put it into the cache before.
        is_another = hashlib.sha256(data).hexdigest() != self._outcomes[key].sha256
        if is_another and self.shelf.cached_size(key, anew=True) is not None:
            data = self.shelf.read_cached(key)
            if self.shelf.trusts_sizes and hashlib.sha256(data).hexdigest() != self._outcomes[key].sha256:
                # Its size is right, so nobody would make it again.
                self.shelf.drop_cached([key])
        return data

    def _found(self, key: str) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self.shelf.read_cached(key)
        shard, extent = self._place(key)
        return self.shelf.read(shard, extent)

    def _size_there(self, key: str) -> int | None:
        size = self.shelf.cached_size(key)
        if size is not None:
            return size
        with contextlib.suppress(KeyError):
            return self._place(key)[1].size_bytes
        # Another task may have put it there since.
        return self.shelf.cached_size(key, anew=True)

    def _to_cache(self, key: str, shard: str, extent: Extent) -> None:
        if self.shelf.cached_size(key) is None:
            self.shelf.put_cached(key, self.shelf.read(shard, extent))

    def _remove(self, shard: str) -> None:
        self.shelf.remove(shard)
        self._walked.pop(shard, None)

    def _place(self, key: str) -> tuple[str, Extent]:
        """The shard that holds the mp4 of a clip, and where; a ``KeyError`` when none does."""
        for shard in self._relatives(self.clips[key]["leaf"]):
            if key in self._contents(shard):
                return shard, self._contents(shard)[key]
        if self._anywhere is None:
            # A shard as planned has the clips of its own leaf only.
            others = (s for s in self.shelf.shards() if s not in self.leaves or not self.is_done(s))
            self._anywhere = {key: shard for shard in others for key in self._contents(shard)}
        shard = self._anywhere[key]
        return shard, self._contents(shard)[key]

    def _relatives(self, leaf: str) -> list[str]:
        """The shards that most clips of a leaf are in: itself, those it is split from, and those it is merged of."""
        if leaf not in self._near:
            own = PurePosixPath(leaf)
            beside = (PurePosixPath(shard) for shard in self.shelf.shards())
            others = (p for p in beside if p.parent == own.parent and p != own and _are_related(p, own))
            self._near[leaf] = [leaf, *map(str, others)]
        return self._near[leaf]

    def _contents(self, shard: str) -> dict[str, Extent]:
        # Walked once, and only when something is to be packed anew: a finished build needs none of it.
        if shard not in self._walked:
            self._walked[shard] = self.shelf.contents(shard)
        return self._walked[shard]


def leaves_of(packing: Packing, keys: Iterable[str]) -> dict[str, int]:
    """How many of ``keys`` each leaf waits for."""
    waiting: dict[str, int] = {}
    for key in keys:
        leaf = packing.clips[key]["leaf"]
        waiting[leaf] = waiting.get(leaf, 0) + 1
    return waiting


def _are_related(a: PurePosixPath, b: PurePosixPath) -> bool:
    """Whether one of two leaves of a trie lies above the other."""
    first, second = ("" if p.stem == f"t-{ROOT}" else p.stem.removeprefix("t-") for p in (a, b))
    return first.startswith(second) or second.startswith(first)
