"""What a build says its clips and shards are: what they are checked against."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from k710 import schema
from k710.clips.outcomes import OK
from k710.clips.pieces import Piece, SmallFile
from k710.errors import FeedError
from k710.labels import TAXONOMIES
from k710.shards.executors import EXECUTORS
from k710.shards.executors.local import WorkerDied
from k710.shards.index import INDEX_FILE, ShardIndex
from k710.shards.plan import SHARDS_FOLDER
from k710.shards.shelf import CACHE_FOLDER
from k710.shards.write import marker_path, read_marker
from k710.tables import compute, read_table

MANIFEST_FILE = "manifest.parquet"

_READ_BYTES = 1 << 20
_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """A shard that a build should have."""

    file: Path
    """Where it is."""
    name: str
    """The same, relative to the build."""
    members: frozenset[str]
    """Names of its members."""
    plan_digest: str
    """What its marker must name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildClips:
    """The clips and shards of a build, as its tables say."""

    folder: Path
    """The build."""
    table: pa.Table
    """The rows of the index that have bytes."""
    class_names: Mapping[str, list[str]]
    """Names of the classes of each taxonomy, by index."""
    shards: list[ShardPlan]
    """Shards with a clip that has bytes."""
    without_bytes: int
    """Planned clips that have none."""
    problems: list[str]
    """What is wrong with the tables themselves."""

    def pieces(self) -> Iterator[Piece]:
        """The clips that have bytes, in the order of the index."""
        # A few thousand at a time: as rows, the whole of Kinetics would take gigabytes.
        for rows in self.table.to_batches(max_chunksize=_ROWS):
            for row in rows.to_pylist():
                yield _piece(self.folder, row, self.class_names)

    def check_shards(self, workers: int, progress: Callable[[str, int, int], None]) -> list[str]:
        """What is wrong with each shard as a file: its checksum, its marker, its members."""
        problems: list[str] = []
        results = (r for done in EXECUTORS["local"](check_shard, self.shards, workers=workers) for r in done)
        for number, (shard, found) in enumerate(results, start=1):
            problems += [f"{shard.name}: who read it died"] if isinstance(found, WorkerDied) else found
            progress("shards", number, len(self.shards))
        return problems

    def strangers(self) -> list[str]:
        """Files among the shards and in the cache that no plan names."""
        known = {path for shard in self.shards for path in (shard.file, marker_path(shard.file))}
        found = []
        for name in (SHARDS_FOLDER, CACHE_FOLDER):
            files = (Path(root) / n for root, _, names in os.walk(self.folder / name) for n in names)
            found += [f"{os.path.relpath(f, self.folder)}: no plan names it" for f in files if f not in known]
        return found


def read_build_clips(folder: Path) -> BuildClips:
    """The clips that the build in ``folder`` should have.

    Raises:
        FeedError: its lock, its manifest or its index cannot be read.
    """
    index = ShardIndex(folder)
    clips = read_table(folder / INDEX_FILE, schema.SHARDS)
    columns = [name for name in schema.MANIFEST.names if name != "rows"]
    manifest = read_table(folder / MANIFEST_FILE, schema.MANIFEST, columns)
    if not clips.select(columns).equals(manifest):
        raise FeedError(
            f"{folder / INDEX_FILE}: not the index of the manifest beside it",
            hint="run `k710 build` again, which writes it anew",
        )
    present = clips.filter(compute.equal(clips["status"], OK))
    in_shards = present.select(["shard", "key", "class"]).filter(compute.is_valid(present["shard"]))
    by_shard: dict[str, set[str]] = {}
    for shard, key, canonical in zip(*(column.to_pylist() for column in in_shards.columns), strict=True):
        suffixes = ["mp4", "json", *(["cls"] if canonical is not None else [])]
        by_shard.setdefault(shard, set()).update(f"{key}.{suffix}" for suffix in suffixes)
    digest = str(index.lock["digests"]["plan"])
    return BuildClips(
        folder=folder,
        table=present,
        class_names={taxonomy: index.labels.taxonomy_names(taxonomy) for taxonomy in TAXONOMIES},
        shards=[
            ShardPlan(file=folder / shard, name=shard, members=frozenset(by_shard[shard]), plan_digest=digest)
            for shard in sorted(by_shard)
        ],
        without_bytes=len(clips) - len(present),
        problems=_lost_views(folder, index),
    )


def check_shard(plan: ShardPlan) -> list[str]:
    """What is wrong with a shard as a file; that it is missing is said once, and of each of its clips."""
    if not plan.file.is_file():
        return [f"{plan.name}: missing, though the plan names it"]
    marker = read_marker(plan.file)
    if marker is None:
        why = "its marker is missing, unreadable, or of a file of another size"
        return [f"{plan.name}: {why}", *_wrong_members(plan)]
    problems = []
    if marker.get("plan") != plan.plan_digest:
        problems.append(f"{plan.name}: its marker names another plan")
    if marker.get("clips") != sum(name.endswith(".mp4") for name in plan.members):
        problems.append(f"{plan.name}: its marker counts {marker.get('clips')} clips")
    try:
        if _sha256(plan.file) != marker.get("sha256"):
            problems.append(f"{plan.name}: not the bytes that its marker was written for (sha256)")
    except OSError as error:
        return [f"{plan.name}: cannot be read ({error.strerror})"]
    return [*problems, *_wrong_members(plan)]


def _lost_views(folder: Path, index: ShardIndex) -> list[str]:
    documents = (f"views/{name}.json" for name in index.view_names)
    return [f"{document}: missing" for document in documents if not (folder / document).is_file()]


def _piece(folder: Path, row: Mapping[str, Any], names: Mapping[str, list[str]]) -> Piece:
    """A clip that has bytes: in a shard, or in place."""
    file = row["shard"] or row["path"]
    return Piece(
        file=str(folder / file),
        name=file,
        key=row["key"],
        shard=bool(row["shard"]),
        offset=row["mp4_offset"],
        size_bytes=row["mp4_size_bytes"],
        sha256=row["sha256"] or "",
        problem=_wrong_row(row),
        small=_small_files(row, names) if row["shard"] else (),
    )


def _wrong_row(row: Mapping[str, Any]) -> str:
    if row["mp4_offset"] is None or row["mp4_size_bytes"] is None:
        return "the index does not say where it is"
    if not row["shard"]:
        return ""
    if row["shard"] != row["leaf"]:
        return f"the plan puts it into {row['leaf']}"
    wanted = {"json": True, "cls": row["class"] is not None}
    wrong = [suffix for suffix, is_there in wanted.items() if (row[f"{suffix}_offset"] is not None) != is_there]
    return f"the index and the manifest differ on its .{wrong[0]}" if wrong else ""


def _small_files(row: Mapping[str, Any], names: Mapping[str, list[str]]) -> tuple[SmallFile, ...]:
    says: dict[str, Mapping[str, Any] | str] = {"json": _facts(row, names), "cls": str(row["class"])}
    return tuple(
        SmallFile(
            suffix=suffix, offset=row[f"{suffix}_offset"], size_bytes=row[f"{suffix}_size_bytes"], says=says[suffix]
        )
        for suffix in says
        if row[f"{suffix}_offset"] is not None
    )


def _facts(row: Mapping[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    """What ``KEY.json`` must say, by the manifest."""
    labels: dict[str, Any] = {} if row["class"] is None else {"k710": row["class"]}
    for taxonomy in TAXONOMIES:
        index = row[f"{taxonomy}_class"]
        if index is not None:
            labels[taxonomy] = {"index": index, "name": names[taxonomy][index]}
    several = {"classes": row["classes"]} if len(row["classes"]) > 1 else {}
    segment = {"start_s": row["start_s"], "end_s": row["end_s"]}
    return {"id": row["id"], "segment": segment, "labels": labels, "notes": row["notes"], **several}


def _wrong_members(plan: ShardPlan) -> list[str]:
    """Members that are missing, or that the plan does not name."""
    try:
        with tarfile.open(plan.file, "r:", errors="replace") as members:
            found = [member.name for member in members]
    except (tarfile.TarError, OSError, EOFError) as error:
        return [f"{plan.name}: no whole tar ({' '.join(str(error).split())})"]
    lost, strange = sorted(plan.members - set(found)), sorted(set(found) - plan.members)
    problems = [f"{plan.name}: members that are missing: {len(lost)}, the first is {lost[0]}"] if lost else []
    if strange:
        problems.append(f"{plan.name}: members that no plan names: {len(strange)}, the first is {strange[0]}")
    if len(found) > len(set(found)):
        problems.append(f"{plan.name}: several members of one name")
    return problems


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as handle:
        while data := handle.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
