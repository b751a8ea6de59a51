"""The build: annotation files and videos to views, verified clips, shards, index and audit. One call a stage."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k710 import atomic, schema
from k710.clips.media import EncodeConfig, ffmpeg_build
from k710.clips.sources.local import LocalFolders, Wanted
from k710.config import to_mapping
from k710.errors import FeedError, UsageError
from k710.list_stage import Inputs, ListPlan, Progress, plan_lists, read_lists
from k710.lists.annotations import ReadOptions
from k710.lists.catalog import Catalog
from k710.lists.compare import shard_changes
from k710.lists.manifest import bad_rows_csv, lock_differences
from k710.lists.policy import Policy
from k710.lists.views import ViewSpec
from k710.processes import GUARD_FILE, only_writer
from k710.report.markdown import audit_markdown
from k710.segments import Segment
from k710.shard_stage import MadeShards, ShardStage, clip_outcomes, make_shards
from k710.shards.index import INDEX_FILE, LOCK_FILE
from k710.tables import picked, read_table
from k710.takedown.forgotten import FORGOTTEN_FILE, read_forgotten, summed
from k710.timing import stage

_NOT_STRANGE = (GUARD_FILE, FORGOTTEN_FILE)
"""What may lie in a folder before its first build."""
_POLICIES = ("protect", "leaks", "unit", "prefer", "conflicts")

BAD_ROWS_FILE = "bad_rows.csv"
MANIFEST_FILE = "manifest.parquet"


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
    options: ReadOptions = field(default_factory=ReadOptions)
    """How lists are read whose content alone does not tell."""
    class_table: Path | None = None
    """A user's class table; None for the packaged one."""
    policy: Policy = field(default_factory=Policy)
    """Which rows are taken, and what happens to videos that several lists name."""
    views: tuple[str, ...] = ("default",)
    """Views to build."""
    require_complete: bool = False
    """Whether a list that was not given is an error."""
    replan: bool = False
    """Whether a build of other lists or settings may be changed into this one."""
    locked: bool = False
    """Whether the plan must be just what the lock in ``out`` says."""
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
        if self.locked and self.replan:
            raise ValueError("locked keeps the plan as it is, and replan changes it; leave one of them out")

    @property
    def inputs(self) -> Inputs:
        """Which annotation files, and how to read them."""
        return Inputs(
            annotations=self.annotations,
            releases=self.releases,
            options=self.options,
            class_table=self.class_table,
            require_complete=self.require_complete,
        )

    def decisive(self, views: Sequence[ViewSpec]) -> dict[str, Any]:
        """The settings that decide what is built, as the lock has them; ``views`` is what the words stand for."""
        selection = self.policy.selection
        return {
            "views": [spec.name for spec in views],
            **{name: to_mapping(getattr(self.policy, name)) for name in _POLICIES},
            "selection": to_mapping(selection)
            | {"exclude_ids": summed(selection.exclude_ids), "forgotten": summed(selection.forgotten)},
            "columns": dict(self.options.columns),
            "class_order": self.options.class_order,
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
    bad_rows: int
    """Rows that could not be used; `bad_rows.csv` lists them."""
    num_classes: int
    """Classes of the class table."""
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
    if config.locked and not (config.out / LOCK_FILE).exists():
        raise UsageError(f"{config.out}: no {LOCK_FILE} to keep to", hint="put the lock there, or leave out --locked")
    folders = LocalFolders([Path(v) for v in config.videos]) if not config.manifest_only else None
    forgotten = read_forgotten(config.out)
    plan = plan_build(config, progress)
    with (
        atomic.writable(config.out),
        only_writer(config.out / GUARD_FILE, f"another k710 build is writing to {config.out}"),
    ):
        if read_forgotten(config.out) != forgotten:
            raise UsageError(f"{config.out}: videos were forgotten meanwhile", hint="run the same command again")
        changed = _changes(config, plan.lock)
        if changed:
            changed += _shard_changes(config.out, plan.manifest)
            # The index of the old plan beside the views of the new one would be read as a build.
            (config.out / INDEX_FILE).unlink(missing_ok=True)
        plan.audit.update(_outcomes_so_far(config.out))
        with stage("write"):
            write_plan(config.out, plan)
        shards = None if folders is None else _make_shards(config, plan, folders, progress)
    return BuildSummary(
        out=config.out,
        rows=plan.lock["counts"]["rows"],
        bad_rows=plan.lists.bad_rows.num_rows,
        num_classes=len(plan.lists.labels.rows),
        views={v["name"]: v["clips"] for v in plan.view_documents},
        excluded={v["view"]: v["excluded"] for v in plan.audit["views"]},
        clips=shards.outcomes if shards else {},
        made=shards.made if shards else 0,
        shards=shards.count if shards else 0,
        audit=plan.audit,
        replanned=changed,
    )


def plan_build(config: BuildConfig, progress: Progress) -> ListPlan:
    """What ``config`` would build, by its lists; writes nothing."""
    lists = read_lists(config.inputs, progress)
    forgotten = read_forgotten(config.out)
    if forgotten:
        selection = dataclasses.replace(config.policy.selection, forgotten=forgotten)
        config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, selection=selection))
    specs = lists.view_specs(config.views)
    return plan_lists(
        lists,
        specs,
        config.policy,
        clips_per_shard=config.clips_per_shard,
        config=config.decisive(specs),
        progress=progress,
    )


def write_plan(out: Path, plan: ListPlan) -> None:
    """Write all that the lists decide into the folder of a build."""
    # The lock first: whatever a kill leaves behind is then known as a build, and the next run writes the rest again.
    _write_lock(out, plan.lock)
    for name, data in plan.tables.items():
        atomic.write_bytes(out / name, data)
    if plan.lists.bad_rows.num_rows:
        atomic.write_text(out / BAD_ROWS_FILE, bad_rows_csv(plan.lists.bad_rows))
    else:
        (out / BAD_ROWS_FILE).unlink(missing_ok=True)
    planned = {f"{v['name']}.json" for v in plan.view_documents}
    for document in plan.view_documents:
        atomic.write_json(out / "views" / f"{document['name']}.json", document)
    for stale in (p for p in (out / "views").glob("*.json") if p.name not in planned):
        stale.unlink()
    _write_audit(out, plan.audit)


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def _rivals(catalog: Catalog) -> dict[str, list[Wanted]]:
    """Every segment of each video that has more than one in any list."""
    several = np.bincount(catalog.clip_video)[catalog.clip_video] > 1
    rows = np.flatnonzero(several[catalog.clip])
    releases: dict[int, set[str]] = {}
    for clip, code in zip(catalog.clip[rows].tolist(), catalog.list_code[rows].tolist(), strict=True):
        releases.setdefault(clip, set()).add(catalog.lists[code].release)
    rivals: dict[str, list[Wanted]] = {}
    ids = picked(catalog.ids, catalog.clip_video[list(releases)]).to_pylist()
    for video_id, (clip, names) in zip(ids, releases.items(), strict=True):
        segment = Segment(id=str(video_id), start_s=float(catalog.start_s[clip]), end_s=float(catalog.end_s[clip]))
        rivals.setdefault(segment.id, []).append(Wanted(segment=segment, releases=frozenset(names)))
    return rivals


def _refuse_foreign(out: Path) -> None:
    """Refuse an ``out`` with files that are not a build's."""
    if not out.exists() or (out / LOCK_FILE).exists():
        return
    strangers = sorted(p.name for p in out.iterdir() if p.name not in _NOT_STRANGE and not _is_unfinished(p.name))
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
    if changed and config.locked:
        listed = "\n  ".join(changed)
        raise UsageError(
            f"--locked: these lists and settings do not give what {path} says; they differ in\n  {listed}",
            hint="get the lists and settings that the lock names, or leave out --locked",
        )
    if changed and not config.replan:
        listed = "\n  ".join(changed)
        raise UsageError(
            f"{out} holds another build; it differs in\n  {listed}",
            hint="--replan changes it and keeps every clip that can stay; or give another --out",
        )
    return changed


def _shard_changes(out: Path, manifest: pa.Table) -> list[str]:
    """What becomes of the shards that the old plan has; nothing where its manifest cannot be read."""
    columns = [name for name in schema.MANIFEST.names if name != "rows"]
    try:
        old = read_table(out / MANIFEST_FILE, schema.MANIFEST, columns)
    except FeedError:
        return []
    return shard_changes(old, manifest).lines()


def _is_unfinished(name: str) -> bool:
    """Whether ``name`` is that of a temporary file of ours."""
    return name.startswith(".") and name.endswith(".partial")


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


def _make_shards(config: BuildConfig, plan: ListPlan, folders: LocalFolders, progress: Progress) -> MadeShards:
    out = config.out
    atomic.write_json(out / LOCK_FILE, {**plan.lock, "ffmpeg": ffmpeg_build()})
    shards = make_shards(
        ShardStage(
            out=out,
            manifest=plan.manifest,
            labels=plan.lists.labels,
            folders=folders,
            rivals=_rivals(plan.lists.catalog),
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
