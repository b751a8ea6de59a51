"""The build: annotation files and videos to views, verified clips, shards, index and audit. One call a stage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from k710 import atomic, schema
from k710.clips.media import EncodeConfig, ffmpeg_build
from k710.clips.sources.local import LocalFolders, Wanted
from k710.config import load_releases, to_mapping
from k710.errors import FeedError, UsageError
from k710.labels import load_labels
from k710.lists.annotations import AnnotationList, find_lists, read_list
from k710.lists.catalog import build_catalog
from k710.lists.clips import plan_clips
from k710.lists.manifest import (
    digest,
    excluded_table,
    lists_not_given,
    lock_differences,
    lock_document,
    parquet_bytes,
    view_document,
)
from k710.lists.views import BuiltView, Policy, ViewSpec, build_views, choose_views
from k710.processes import only_writer
from k710.report.audit import audit_document
from k710.report.markdown import audit_markdown
from k710.segments import Segment, id_hash
from k710.shard_stage import MadeShards, ShardStage, clip_outcomes, make_shards
from k710.shards.index import HELD_OUT_FILE, INDEX_FILE, LOCK_FILE
from k710.tables import read_table, write_table

_GUARD_FILE = ".build-guard"

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """What to build, from what."""

    annotations: Path
    """Folder with one folder of lists per release."""
    out: Path = Path("k710-data")
    """Folder of the build."""
    videos: tuple[str, ...] = ()
    """Folders of video files, in order of preference."""
    manifest_only: bool = False
    """Stop after the lists: no clips, no shards."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that encode; one encode uses one core."""
    releases: tuple[str, ...] | None = None
    """Releases to take; None for those whose folders are there."""
    policy: Policy = field(default_factory=Policy)
    """What happens to leaks."""
    views: tuple[str, ...] = ("default",)
    """Views to build."""
    require_complete: bool = False
    """Whether a list that was not given is an error."""
    replan: bool = False
    """Whether a build of other lists or settings may be changed into this one."""
    clips_per_shard: int = 1000
    """Most clips in one shard."""
    keep_clips: bool = False
    """Whether encoded clips stay in the cache after they are packed."""
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    """How clips are encoded."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard must be at least 1, got {self.clips_per_shard}")

    def decisive(self, views: Sequence[ViewSpec]) -> dict[str, Any]:
        """The settings that decide what is built, as the lock has them; ``views`` is what the words stand for."""
        return {
            "views": [spec.name for spec in views],
            "protect": list(self.policy.protect),
            "leaks": self.policy.leaks,
            "clips_per_shard": self.clips_per_shard,
            "encode": to_mapping(self.encode),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSummary:
    """What a build did."""

    out: Path
    """Where it is."""
    rows: int
    """Annotation rows read."""
    views: dict[str, int]
    """Clips listed per view."""
    excluded: dict[str, dict[str, int]]
    """Rows excluded per view and reason."""
    clips: dict[str, int]
    """Planned clips per outcome; empty after ``manifest_only``."""
    made: int
    """Clips encoded by this run."""
    shards: int
    """Shards of the build."""
    audit: dict[str, Any]
    """The audit document."""
    replanned: list[str]
    """What changed against the build that was there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """All that the lists decide, before anything is written."""

    lists: list[AnnotationList]
    views: list[BuiltView]
    manifest: pa.Table
    lock: dict[str, Any]
    view_documents: list[dict[str, Any]]
    audit: dict[str, Any]
    held_out: pa.Table
    excluded: pa.Table
    rivals: dict[str, list[Wanted]]


def build(config: BuildConfig, progress: Progress | None = None) -> BuildSummary:
    """Run the whole path, or go on where an earlier run of it stopped.

    Raises:
        UsageError: settings that cannot be, or ``out`` holds another build or cannot be written.
        InputError: an annotation file is wrong.
        SourceError: no clip has a video, or ffmpeg cannot be run.
    """
    if not config.videos and not config.manifest_only:
        raise UsageError("no videos given", hint="--videos DIR, or --manifest-only to stop after the lists")
    progress = progress or _silent
    # Before the lists, which take their time.
    with atomic.writable(config.out):
        _refuse_foreign(config.out)
    folders = LocalFolders([Path(v) for v in config.videos]) if not config.manifest_only else None
    plan = _plan(config, progress)
    with (
        atomic.writable(config.out),
        only_writer(config.out / _GUARD_FILE, f"another k710 build is writing to {config.out}"),
    ):
        changed = _changes(config, plan.lock)
        if changed:
            # The index of the old plan beside the views of the new one would be read as a build.
            (config.out / INDEX_FILE).unlink(missing_ok=True)
        plan.audit.update(_outcomes_so_far(config.out))
        _write_lists(config.out, plan)
        shards = None if folders is None else _make_shards(config, plan, folders, progress)
    return BuildSummary(
        out=config.out,
        rows=sum(len(item.rows) for item in plan.lists),
        views={v["name"]: v["clips"] for v in plan.view_documents},
        excluded={v["view"]: v["excluded"] for v in plan.audit["views"]},
        clips=shards.outcomes if shards else {},
        made=shards.made if shards else 0,
        shards=shards.count if shards else 0,
        audit=plan.audit,
        replanned=changed,
    )


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def _plan(config: BuildConfig, progress: Progress) -> _Plan:
    labels = load_labels()
    files = find_lists(config.annotations, config.releases)
    lists = []
    for done, file in enumerate(files):
        progress("reading lists", done, len(files))
        lists.append(read_list(file, labels))
    progress("reading lists", len(files), len(files))
    chosen = list(dict.fromkeys(f.release.name for f in files))
    releases = [r for r in load_releases().values() if r.name in (config.releases or chosen)]
    not_checked = lists_not_given(releases, lists)
    if config.require_complete and not_checked:
        raise UsageError(f"lists not given: {', '.join(not_checked)}", hint="add them, or leave out --require-complete")
    specs = choose_views(config.views, releases, [(f.release.name, f.split) for f in files])
    progress("planning", 0, 3)
    catalog = build_catalog(lists)
    views = build_views(catalog, specs, config.policy)
    progress("planning", 1, 3)
    manifest = plan_clips(catalog, views, labels, config.clips_per_shard)
    progress("planning", 2, 3)
    documents = [view_document(v, manifest, labels.digest, to_mapping(config.encode)) for v in views]
    excluded = pa.Table.from_pandas(excluded_table(views), schema=schema.EXCLUDED, preserve_index=False)
    held_out = _held_out(catalog)
    lock = lock_document(
        config=config.decisive(specs),
        releases=releases,
        lists=lists,
        policy=config.policy,
        views=documents,
        manifest_digest=digest(parquet_bytes(manifest)),
        left_out_digest=digest(parquet_bytes(excluded) + parquet_bytes(held_out)),
        class_table=labels.digest,
    )
    progress("planning", 3, 3)
    return _Plan(
        lists=lists,
        views=views,
        manifest=manifest,
        lock=lock,
        view_documents=documents,
        audit=audit_document(catalog, views, config.policy, not_checked),
        held_out=held_out,
        excluded=excluded,
        rivals=_rivals(catalog),
    )


def _rivals(catalog: pd.DataFrame) -> dict[str, list[Wanted]]:
    """Every segment of each video that has more than one in any list."""
    several = catalog[catalog.groupby("video")["clip"].transform("nunique") > 1]
    releases: dict[Segment, set[str]] = {}
    for video_id, start_s, end_s, release in several[["id", "start_s", "end_s", "release"]].to_numpy().tolist():
        releases.setdefault(Segment(id=video_id, start_s=start_s, end_s=end_s), set()).add(release)
    rivals: dict[str, list[Wanted]] = {}
    for segment, names in releases.items():
        rivals.setdefault(segment.id, []).append(Wanted(segment=segment, releases=frozenset(names)))
    return rivals


def _held_out(catalog: pd.DataFrame) -> pa.Table:
    rows = catalog[catalog["split"] != "train"][["release", "split", "id"]].drop_duplicates()
    hashes = pa.array([id_hash(i) for i in rows["id"]], pa.uint64())
    table = pa.table([pa.array(rows["release"]), pa.array(rows["split"]), hashes], schema=schema.HELD_OUT)
    return table.sort_by([(n, "ascending") for n in schema.HELD_OUT.names])


def _refuse_foreign(out: Path) -> None:
    """Refuse an ``out`` with files that are not a build's."""
    if not out.exists() or (out / LOCK_FILE).exists():
        return
    strangers = sorted(p.name for p in out.iterdir() if p.name != _GUARD_FILE and not _is_unfinished(p.name))
    if strangers:
        raise UsageError(f"{out}: not empty and not a build (it has {strangers[0]})", hint="--out takes a new folder")


def _changes(config: BuildConfig, lock: dict[str, Any]) -> list[str]:
    """What changes against the build in ``out``; refused unless ``--replan``."""
    out = config.out
    path = out / LOCK_FILE
    if not path.exists():
        return []
    try:
        changed = lock_differences(json.loads(path.read_bytes()), lock)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a lock of this version ({error})", hint="build into a new folder") from error
    if changed and not config.replan:
        listed = "\n  ".join(changed)
        raise UsageError(
            f"{out} holds another build; it differs in\n  {listed}",
            hint="--replan changes it and keeps every clip that can stay; or give another --out",
        )
    return changed


def _is_unfinished(name: str) -> bool:
    """Whether ``name`` is that of a temporary file of ours."""
    return name.startswith(".") and name.endswith(".partial")


def _write_lists(out: Path, plan: _Plan) -> None:
    # The lock first: whatever a kill leaves behind is then known as a build, and the next run writes the rest again.
    _write_lock(out, plan.lock)
    write_table(out / "manifest.parquet", plan.manifest, schema.MANIFEST)
    write_table(out / "excluded.parquet", plan.excluded, schema.EXCLUDED)
    write_table(out / HELD_OUT_FILE, plan.held_out, schema.HELD_OUT)
    planned = {f"{v['name']}.json" for v in plan.view_documents}
    for document in plan.view_documents:
        atomic.write_json(out / "views" / f"{document['name']}.json", document)
    for stale in (p for p in (out / "views").glob("*.json") if p.name not in planned):
        stale.unlink()
    _write_audit(out, plan.audit)


def _write_lock(out: Path, lock: dict[str, Any]) -> None:
    path = out / LOCK_FILE
    known = json.loads(path.read_bytes()).get("ffmpeg") if path.exists() else None
    atomic.write_json(path, {"ffmpeg": known, **lock})


def _write_audit(out: Path, audit: dict[str, Any]) -> None:
    atomic.write_json(out / "audit.json", audit)
    atomic.write_text(out / "audit.md", audit_markdown(audit))


def _outcomes_so_far(out: Path) -> dict[str, dict[str, int]]:
    """The ``clips`` of the audit by the index that stands; nothing without one that can be read."""
    try:
        return {"clips": clip_outcomes(read_table(out / INDEX_FILE, schema.SHARDS, ["status"]))}
    except FeedError:
        return {}


def _make_shards(config: BuildConfig, plan: _Plan, folders: LocalFolders, progress: Progress) -> MadeShards:
    out = config.out
    atomic.write_json(out / LOCK_FILE, {**plan.lock, "ffmpeg": ffmpeg_build()})
    shards = make_shards(
        ShardStage(
            out=out,
            manifest=plan.manifest,
            folders=folders,
            rivals=plan.rivals,
            encode=config.encode,
            plan_digest=plan.lock["digests"]["plan"],
            workers=config.workers,
            keep_clips=config.keep_clips,
        ),
        lambda done, total: progress("clips", done, total),
    )
    plan.audit["clips"] = shards.outcomes
    _write_audit(out, plan.audit)
    return shards
