"""From verified clips to shards: which leaves are already as planned, where each clip's bytes are, and what to write.

A clip is committed when its mp4 is in the cache or in a shard and the ledger says so. No committed clip is made twice:
a shard that changes takes the clips that stay from the old shards, by byte range.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import atomic, schema
from k710.clips.outcomes import OK, ClipOutcome
from k710.errors import FeedError
from k710.labels import TAXONOMIES, LabelMap
from k710.shards.executors.array import ArrayTask
from k710.shards.plan import ROOT, SHARDS_FOLDER
from k710.shards.write import (
    Extent,
    Extents,
    Member,
    content_digest,
    marker_path,
    planned_extents,
    read_marker,
    scan_tar,
    shard_files,
    write_shard,
)
from k710.store import Store

CACHE_FOLDER = "cache"

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
    ) -> None:
        """``outcomes`` is read when a leaf is packed, so it may grow in the meantime; ``task`` packs its own only."""
        self.out = out
        """Folder of the build."""
        self._names = {taxonomy: labels.taxonomy_names(taxonomy) for taxonomy in TAXONOMIES}
        self._outcomes = outcomes
        self._planned = manifest
        self.clips: dict[str, dict[str, Any]] = {c["key"]: c for c in manifest.drop_columns(["rows"]).to_pylist()}
        self.leaves: dict[str, list[str]] = {}
        for key, clip in self.clips.items():
            self.leaves.setdefault(clip["leaf"], []).append(key)
        if task is not None:
            self.leaves = {leaf: self.leaves[leaf] for leaf in task.own(self.leaves)}
        self._store = Store(out)
        self._walked: dict[Path, dict[str, Extent]] = {}
        self._near: dict[str, list[Path]] = {}
        self._anywhere: dict[str, Path] | None = None

    @property
    def keys(self) -> list[str]:
        """The clips of the leaves that are to be packed here."""
        return [key for key, clip in self.clips.items() if clip["leaf"] in self.leaves]

    def cached(self, key: str) -> Path:
        """Where the mp4 of a clip waits to be packed."""
        return self.out / CACHE_FOLDER / key[:2] / f"{key}.mp4"

    def is_done(self, leaf: str) -> bool:
        """Whether every clip of a leaf has an outcome and its shard holds just those that have bytes."""
        if any(key not in self._outcomes for key in self.leaves[leaf]):
            return False
        members = self.members(leaf)
        marker = read_marker(self.out / leaf)
        if not members:
            return not (self.out / leaf).exists()
        return marker is not None and marker["content"] == content_digest(members)

    def has_bytes(self, key: str) -> bool:
        """Whether the mp4 of a clip is in the cache or in some shard on the disk, as it was encoded, or in place."""
        if self._outcomes[key].path:
            return True
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
            for key, extent in self._contents(self.out / leaf).items():
                if key in self.clips and self.clips[key]["leaf"] != leaf:
                    self._to_cache(key, leaf, extent)

    def dissolve(self, shard: str) -> None:
        """Remove a shard, planned or not; its clips that are planned wait in the cache to be packed."""
        path = self.out / shard
        for key, extent in self._contents(path).items():
            if key in self.clips:
                self._to_cache(key, shard, extent)
        self._remove(path)

    def pack(self, leaf: str, plan_digest: str, *, keep_clips: bool) -> None:
        """Write the shard of a leaf and drop its cache entries; a leaf without bytes has no shard."""
        members = self.members(leaf)
        path = self.out / leaf
        if members:
            write_shard(path, members, self._read_mp4, {"plan": plan_digest})
            self._walked.pop(path, None)
        else:
            self._remove(path)
        if not keep_clips:
            for member in members:
                self.cached(member.key).unlink(missing_ok=True)

    def restamp(self, plan_digest: str) -> None:
        """Make the markers of shards that a new plan left as they were name that plan."""
        for path in (self.out / leaf for leaf in self.leaves):
            marker = read_marker(path)
            if marker is not None and marker.get("plan") != plan_digest:
                atomic.write_json(marker_path(path), marker | {"plan": plan_digest})

    def sweep(self, *, keep_clips: bool) -> int:
        """Remove shards that are no longer planned, the cache and what killed writes left; returns how many shards."""
        remove_unfinished(self.out)
        stale = self.stale()
        for shard in stale:
            self._remove(self.out / shard)
        if not keep_clips:
            shutil.rmtree(self.out / CACHE_FOLDER, ignore_errors=True)
        return len(stale)

    def stale(self) -> list[str]:
        """Shards on the disk that are not planned."""
        found = (os.path.relpath(path, self.out) for path in shard_files(self.out / SHARDS_FOLDER))
        return [shard for shard in found if shard not in self.leaves]

    def keys_in(self, shard: str) -> set[str]:
        """Keys of the clips whose bytes are in a shard on the disk."""
        return set(self._contents(self.out / shard))

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
            if not self.cached(key).exists():
                raise
            data = b""
        # Another task that packs the shard anew in which it was has put it into the cache before.
        is_another = hashlib.sha256(data).hexdigest() != self._outcomes[key].sha256
        return self.cached(key).read_bytes() if is_another and self.cached(key).exists() else data

    def _found(self, key: str) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self.cached(key).read_bytes()
        shard, extent = self._place(key)
        return self._store.read_range(shard, extent.offset, extent.size_bytes)

    def _to_cache(self, key: str, shard: str, extent: Extent) -> None:
        if not self.cached(key).exists():
            atomic.write_bytes(self.cached(key), self._store.read_range(shard, extent.offset, extent.size_bytes))

    def _remove(self, path: Path) -> None:
        marker_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        self._walked.pop(path, None)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()

    def _place(self, key: str) -> tuple[str, Extent]:
        """The shard that holds the mp4 of a clip, and where; a ``KeyError`` when none does."""
        for path in self._relatives(self.clips[key]["leaf"]):
            if key in self._contents(path):
                return os.path.relpath(path, self.out), self._contents(path)[key]
        if self._anywhere is None:
            self._anywhere = {k: p for p in shard_files(self.out / SHARDS_FOLDER) for k in self._contents(p)}
        path = self._anywhere[key]
        return os.path.relpath(path, self.out), self._contents(path)[key]

    def _relatives(self, leaf: str) -> list[Path]:
        """The shards that most clips of a leaf are in: itself, those it is split from, and those it is merged of."""
        if leaf not in self._near:
            own = self.out / leaf
            others = (p for p in sorted(own.parent.glob("t-*.tar")) if p != own and _are_related(p, own))
            self._near[leaf] = [own, *others]
        return self._near[leaf]

    def _contents(self, path: Path) -> dict[str, Extent]:
        # Walked once, and only when something is to be packed anew: a finished build needs none of it.
        if path not in self._walked:
            self._walked[path] = dict(scan_tar(path))
        return self._walked[path]


def remove_unfinished(out: Path) -> None:
    """Remove the temporary files that killed writes left in the build at ``out``."""
    for folder in (".", "views", f"{SHARDS_FOLDER}/*", f"{CACHE_FOLDER}/*"):
        for partial in list(out.glob(f"{folder}/.*.partial")):
            partial.unlink()


def leaves_of(packing: Packing, keys: Iterable[str]) -> dict[str, int]:
    """How many of ``keys`` each leaf waits for."""
    waiting: dict[str, int] = {}
    for key in keys:
        leaf = packing.clips[key]["leaf"]
        waiting[leaf] = waiting.get(leaf, 0) + 1
    return waiting


def _are_related(a: Path, b: Path) -> bool:
    """Whether one of two leaves of a trie lies above the other."""
    first, second = ("" if p.stem == f"t-{ROOT}" else p.stem.removeprefix("t-") for p in (a, b))
    return first.startswith(second) or second.startswith(first)
