"""The build: annotation files and videos to views, verified clips, shards, index and audit. One call a stage."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from k710 import atomic
from k710.array_stage import share_lists
from k710.before_build import changes, changes_of_shards, refuse_foreign, refuse_url
from k710.build_files import outcomes_so_far, rivals, write_arguments, write_audit, write_plan, write_unclaimed
from k710.claims import Held, TakenError
from k710.clip_figures import SoFar, falls_short
from k710.clips.encodings import EncodeConfig
from k710.clips.media import ffmpeg_build
from k710.clips.sources.candidates import VideosAre
from k710.clips.sources.local import LocalFolders
from k710.config import to_mapping
from k710.errors import AnswerIsNo, UsageError
from k710.list_stage import Inputs, ListPlan, Progress, plan_lists, read_lists
from k710.lists.annotations import ReadOptions
from k710.lists.policy import Policy
from k710.lists.views import ViewSpec
from k710.shard_stage import MadeShards, Say, ShardStage, all_is_made, make_part, make_shards
from k710.shards.executors import Executor, chosen_task
from k710.shards.executors.array import ArrayTask
from k710.shards.index import INDEX_FILE, LOCK_FILE
from k710.takedown.forgotten import read_forgotten, summed
from k710.timing import stage
from k710.writers import sole_writer, task_writer

_POLICIES = ("protect", "leaks", "unit", "prefer", "conflicts")

_ONCE = ("out", "manifest_only", "replan", "locked", "executor", "task_index", "num_tasks", "ray_address")
"""Settings of one run, which the next has of its own."""


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
    videos_are: VideosAre = "auto"
    """What video files without times in their names are."""
    min_clips_pct: float | None = None
    """Percentage of the planned clips, of each view and of all, without which the answer is no; None: any will do."""
    executor: Executor = "local"
    """Who makes the clips: this machine, one task of an array job, or a Ray cluster."""
    task_index: int | None = None
    """Number of the task from 0, for ``array``."""
    num_tasks: int | None = None
    """How many tasks there are, for ``array``."""
    ray_address: str = ""
    """Of the cluster, for ``ray``; empty: one of this run's own, on this machine."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, got {self.workers}")
        if self.clips_per_shard < 1:
            raise UsageError(f"clips_per_shard must be at least 1, got {self.clips_per_shard}")
        if self.locked and self.replan:
            raise UsageError("locked keeps the plan as it is, and replan changes it; leave one of them out")
        if self.videos_are not in get_args(VideosAre):
            raise UsageError(f"videos_are must be one of {', '.join(get_args(VideosAre))}, got {self.videos_are}")
        if self.min_clips_pct is not None and not 0 <= self.min_clips_pct <= 100:
            raise UsageError(f"min_clips_pct must be between 0 and 100, got {self.min_clips_pct:g}")
        if self.min_clips_pct is not None and self.manifest_only:
            raise UsageError("min_clips_pct counts clips, and manifest_only makes none; leave one of them out")
        if self.task is not None and (self.replan or self.manifest_only):
            raise UsageError(
                "a task of an array cannot replan, nor stop after the lists: it is one of several that share a plan",
                hint="run `k710 build --manifest-only --replan` first, and then the tasks",
            )

    @property
    def task(self) -> ArrayTask | None:
        """The task that this run is; None: it builds all."""
        return chosen_task(self.executor, self.task_index, self.num_tasks, self.ray_address)

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
    tried: int
    """Clips that this run tried, to whatever outcome."""
    made: int
    """Clips that this run made."""
    size_bytes: int
    """Their bytes."""
    seconds: float
    """What the clips and their packing took."""
    clips_per_s: float
    """Clips tried in a second of that."""
    usable: dict[str, tuple[int, int]]
    """For each view the clips that are ``ok``, and those planned; empty after ``manifest_only``."""
    falls_short: list[str]
    """What has fewer usable clips than ``min_clips_pct`` asks for."""
    unclaimed: int
    """Video files that no annotation row can use; `unclaimed_files.csv` lists them."""
    shards: int
    """Shards of the build."""
    audit: dict[str, Any]
    """The audit document."""
    notes: list[str]
    """What a user of these settings should know."""
    replanned: list[str]
    """What changed against the build that was there."""
    task: str = ""
    """The task of an array whose part alone ``clips`` and ``shards`` count; empty: they count the whole build."""


def build(
    config: BuildConfig,
    progress: Progress | None = None,
    *,
    on_clips: Callable[[SoFar], None] | None = None,
    say: Say | None = None,
    reopen: frozenset[str] = frozenset(),
) -> BuildSummary:
    """Run the whole path, or go on where an earlier run of it stopped.

    Args:
        config: what to build.
        progress: called with a stage's name, what is done and the total.
        on_clips: called with how far the clips are, in place of ``progress``.
        say: called with a line that people should read meanwhile.
        reopen: statuses whose clips are tried again although nothing has changed.

    Raises:
        UsageError: settings that cannot be, or ``out`` holds another build or cannot be written.
        InputError: an annotation file is wrong.
        SourceError: no clip has a video, or ffmpeg cannot be run.
    """
    if not config.videos and not config.manifest_only:
        raise UsageError("no videos given", hint="--videos DIR, or --manifest-only to stop after the lists")
    progress = progress or _silent
    refuse_url(config.annotations, "--annotations")
    refuse_url(config.out, "--out")
    # Before the lists, which take their time.
    with atomic.writable(config.out):
        refuse_foreign(config.out)
    if config.locked and not (config.out / LOCK_FILE).exists():
        raise UsageError(f"{config.out}: no {LOCK_FILE} to keep to", hint="put the lock there, or leave out --locked")
    folders = LocalFolders([Path(v) for v in config.videos], config.videos_are) if not config.manifest_only else None
    forgotten = read_forgotten(config.out)
    plan = plan_build(config, progress)
    run = _Run(
        config=config,
        plan=plan,
        folders=folders,
        forgotten=forgotten,
        watch=on_clips or (lambda so_far: progress("clips", so_far.done, so_far.total)),
        say=say or _unsaid,
        reopen=reopen,
    )
    with atomic.writable(config.out):
        return run.alone("") if config.task is None else run.as_task(config.task)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What a run writes once its lists are planned."""

    config: BuildConfig
    plan: ListPlan
    folders: LocalFolders | None
    forgotten: tuple[int, ...]
    watch: Callable[[SoFar], None]
    say: Say
    reopen: frozenset[str]

    def alone(self, plan_digest: str) -> BuildSummary:
        """Write all that is not there; tasks of the plan ``plan_digest`` may wait until this is done."""
        config, plan, out = self.config, self.plan, self.config.out
        with sole_writer(out, plan=plan_digest) as held:
            self._require_the_same_forgotten()
            changed = changes(out, plan.lock, locked=config.locked, replan=config.replan)
            if changed:
                changed += changes_of_shards(out, plan.manifest)
                # The index of the old plan beside the views of the new one would be read as a build.
                (out / INDEX_FILE).unlink(missing_ok=True)
            plan.audit.update(outcomes_so_far(out))
            with stage("write"):
                write_plan(out, plan)
            if self.folders is None:
                return _summary(config, plan, None, changed=changed, unclaimed=0)
            told = {name: value for name, value in to_mapping(config).items() if name not in _ONCE}
            write_arguments(out, told)
            unclaimed = write_unclaimed(out, self.folders, plan.lists.catalog)
            ffmpeg = ffmpeg_build()
            atomic.write_json(out / LOCK_FILE, {**plan.lock, "ffmpeg": ffmpeg})
            shards = make_shards(self._stage(ffmpeg, held), self.watch, self.say)
            plan.audit["clips"] = shards.outcomes
            write_audit(out, plan.audit)
        return _summary(config, plan, shards, changed=changed, unclaimed=unclaimed)

    def as_task(self, task: ArrayTask) -> BuildSummary:
        """Write the part of one task; whoever finds that no other is left writes the index."""
        plan_digest = self.plan.lock["digests"]["plan"]
        ffmpeg = ffmpeg_build()
        with task_writer(self.config.out, task, plan_digest) as held:
            self._require_the_same_forgotten()
            changes(self.config.out, self.plan.lock, locked=self.config.locked, replan=False)
            share_lists(self.config.out, self.plan, ffmpeg)
            made = self._stage(ffmpeg, held)
            part = make_part(made, task, self.watch, self.say)
        summary = dataclasses.replace(_summary(self.config, self.plan, part, changed=[], unclaimed=0), task=str(task))
        if all_is_made(made):
            # Another that is there will find the same, later.
            with suppress(TakenError):
                whole = self.alone(plan_digest)
                own = ("tried", "made", "size_bytes", "seconds", "clips_per_s")
                return dataclasses.replace(whole, **{name: getattr(summary, name) for name in own})
        return summary

    def _require_the_same_forgotten(self) -> None:
        out = self.config.out
        if read_forgotten(out) != self.forgotten:
            raise UsageError(f"{out}: videos were forgotten meanwhile", hint="run the same command again")

    def _stage(self, ffmpeg: str, held: Held) -> ShardStage:
        config, plan = self.config, self.plan
        assert self.folders is not None
        return ShardStage(
            out=config.out,
            manifest=plan.manifest,
            labels=plan.lists.labels,
            folders=self.folders,
            rivals=rivals(plan.lists.catalog),
            encode=config.encode,
            plan_digest=plan.lock["digests"]["plan"],
            workers=config.workers,
            keep_clips=config.keep_clips,
            ffmpeg=ffmpeg,
            still_ours=held.require,
            reopen=self.reopen,
            ray_address=config.ray_address if config.executor == "ray" else None,
        )


def require_clips(summary: BuildSummary) -> None:
    """Answer no when a view of a finished build, or all of it, has fewer clips than ``min_clips_pct`` asked for."""
    if summary.falls_short:
        raise AnswerIsNo(
            f"fewer usable clips than --min-clips asks for: {'; '.join(summary.falls_short)}",
            hint=f"everything is written to {summary.out}; audit.md counts what is wrong with the others",
        )


def _summary(
    config: BuildConfig, plan: ListPlan, shards: MadeShards | None, *, changed: list[str], unclaimed: int
) -> BuildSummary:
    made = shards or MadeShards(tried=0, made=0, size_bytes=0, seconds=0.0, outcomes={}, usable={}, count=0)
    short = [] if config.min_clips_pct is None else falls_short(made.outcomes, made.usable, config.min_clips_pct)
    return BuildSummary(
        out=config.out,
        rows=plan.lock["counts"]["rows"],
        bad_rows=plan.lists.bad_rows.num_rows,
        num_classes=len(plan.lists.labels.rows),
        views={v["name"]: v["clips"] for v in plan.view_documents},
        excluded={v["view"]: v["excluded"] for v in plan.audit["views"]},
        clips=made.outcomes,
        tried=made.tried,
        made=made.made,
        size_bytes=made.size_bytes,
        seconds=round(made.seconds, 3),
        clips_per_s=round(made.tried / made.seconds, 3) if made.tried else 0.0,
        usable=made.usable,
        falls_short=short,
        unclaimed=unclaimed,
        shards=made.count,
        audit=plan.audit,
        notes=list(plan.notes),
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


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def _unsaid(line: str) -> None:
    """Says nothing."""
