"""The build: annotation files and videos to views, verified clips, shards, index and audit. One call a stage."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from k710 import atomic
from k710.array_stage import share_lists
from k710.before_build import changes, changes_of_shards, refuse_url
from k710.build_files import (
    outcomes_so_far,
    rivals,
    rows_by_key,
    write_arguments,
    write_audit,
    write_plan,
    write_unclaimed,
)
from k710.build_summary import BuildSummary, summed_up
from k710.claims import TakenError
from k710.clip_figures import SoFar
from k710.clips.encodings import EncodeConfig
from k710.clips.media import ffmpeg_build
from k710.clips.sources.candidates import VideosAre
from k710.clips.sources.chosen import YOUTUBE, Chosen, Clips, SourceSettings, choose
from k710.config import to_mapping
from k710.errors import UsageError
from k710.fetch.videos import TERMS
from k710.home import HeldClaim, Home
from k710.list_stage import Inputs, ListPlan, Progress, plan_lists, read_lists
from k710.lists.annotations import ReadOptions
from k710.lists.policy import NEAR_DUPLICATES, Policy
from k710.lists.views import ViewSpec
from k710.objects.home import build_home
from k710.shard_stage import MadeShards, Say, ShardStage, all_is_made, make_part, make_shards
from k710.shards.executors import Executor, chosen_task
from k710.shards.executors.array import ArrayTask
from k710.shards.index import LOCK_FILE
from k710.takedown.forgotten import read_forgotten, summed
from k710.timing import stage
from k710.writers import sole_writer, task_writer

if TYPE_CHECKING:
    from k710.clips.sources.youtube import Access

_POLICIES = ("protect", "leaks", "unit", "prefer", "conflicts")

_ONCE = (
    "out",
    "store",
    "work",
    "unguarded",
    "manifest_only",
    "replan",
    "locked",
    "executor",
    "task_index",
    "num_tasks",
    "ray_address",
)
"""Settings of one run, which the next has of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildConfig:
    """What to build, from what."""

    annotations: Path
    """Folder with one folder of lists per release."""
    out: Path = Path("k710-data")
    """Folder of the build; of no account where ``store`` is given."""
    store: str = ""
    """URL of an object store that the build lies in; empty: it lies in ``out``."""
    work: Path | None = None
    """Folder of this machine that a build in ``store`` works in; None: one in the user's cache."""
    unguarded: bool = False
    """Whether a ``store`` will do that cannot keep two builds from writing at the same time."""
    videos: tuple[str, ...] = ()
    """Sources of videos, in order of preference: folders, and the kinds of ``SOURCES``."""
    sources: SourceSettings = field(default_factory=SourceSettings)
    """How sources elsewhere are used."""
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
        if self.task is not None and self.task.num > 1 and "cvdf:" in self.videos:
            raise UsageError(
                "--videos cvdf: is not for several tasks, each of which would download every archive",
                hint="`k710 fetch videos` downloads them once, and --videos cvdf:DIR reads them",
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
            "selection": {name: value for name, value in to_mapping(selection).items() if name not in NEAR_DUPLICATES}
            | {"exclude_ids": summed(selection.exclude_ids), "forgotten": summed(selection.forgotten)}
            # Only where there are any: locks from before they could be left out stay what they are.
            | {name: summed(ids) for name in NEAR_DUPLICATES if (ids := getattr(selection, name))},
            "columns": dict(self.options.columns),
            "class_order": self.options.class_order,
            "clips_per_shard": self.clips_per_shard,
            "encode": to_mapping(self.encode),
        }


def build(
    config: BuildConfig,
    progress: Progress | None = None,
    *,
    on_clips: Callable[[SoFar], None] | None = None,
    say: Say | None = None,
    reopen: frozenset[str] = frozenset(),
    access: Access | None = None,
) -> BuildSummary:
    """Run the whole path, or go on where an earlier run of it stopped.

    Args:
        config: what to build.
        progress: called with a stage's name, what is done and the total.
        on_clips: called with how far the clips are, in place of ``progress``.
        say: called with a line that people should read meanwhile.
        reopen: statuses whose clips are tried again although nothing has changed.
        access: what YouTube is to be shown, which is kept nowhere.

    Raises:
        UsageError: settings that cannot be, or ``out`` holds another build or cannot be written.
        InputError: an annotation file is wrong.
        SourceError: no clip has a video, a source cannot be read, or ffmpeg cannot be run.
    """
    if not config.videos and not config.manifest_only:
        raise UsageError("no videos given", hint="--videos DIR, or --manifest-only to stop after the lists")
    refuse_url(config.annotations, "--annotations")
    refuse_url(config.out, "--out")
    if config.store and config.encode.encode == "none":
        raise UsageError(
            f"{config.store}: clips that stay where they are have no place in an object store",
            hint="--encode copy takes them as they are; or give a folder as --out",
        )
    with build_home(
        config.store, config.work, config.out, who=config.task.name if config.task else "", unguarded=config.unguarded
    ) as home:
        at_home = dataclasses.replace(config, out=home.out)
        return _build_at(home, at_home, progress or _silent, on_clips, say or _unsaid, reopen, access)


def _build_at(
    home: Home,
    config: BuildConfig,
    progress: Progress,
    on_clips: Callable[[SoFar], None] | None,
    say: Say,
    reopen: frozenset[str],
    access: Access | None,
) -> BuildSummary:
    # Before the lists, which take their time.
    with atomic.writable(config.out):
        home.look()
    if config.locked and not (config.out / LOCK_FILE).exists():
        raise UsageError(f"{config.out}: no {LOCK_FILE} to keep to", hint="put the lock there, or leave out --locked")
    chosen = None if config.manifest_only else _chosen(config, access, say)
    forgotten = read_forgotten(config.out)
    plan = plan_build(config, progress)
    run = _Run(
        home=home,
        config=config,
        plan=plan,
        chosen=chosen,
        forgotten=forgotten,
        watch=on_clips or (lambda so_far: progress("clips", so_far.done, so_far.total)),
        say=say,
        reopen=reopen,
    )
    with atomic.writable(config.out):
        return run.alone("") if config.task is None else run.as_task(config.task)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What a run writes once its lists are planned."""

    home: Home
    config: BuildConfig
    plan: ListPlan
    chosen: Chosen | None
    forgotten: tuple[int, ...]
    watch: Callable[[SoFar], None]
    say: Say
    reopen: frozenset[str]

    def alone(self, plan_digest: str) -> BuildSummary:
        """Write all that is not there; tasks of the plan ``plan_digest`` may wait until this is done."""
        config, plan, out = self.config, self.plan, self.config.out
        with sole_writer(out, plan=plan_digest, home=self.home) as held:
            self._require_the_same_forgotten()
            changed = changes(out, plan.lock, locked=config.locked, replan=config.replan)
            if changed:
                changed += changes_of_shards(out, plan.manifest)
                # The index of the old plan beside the views of the new one would be read as a build.
                self.home.shelf.withdraw_index()
            plan.audit.update(outcomes_so_far(out))
            with stage("write"):
                write_plan(out, plan)
            if self.chosen is None:
                self.home.publish()
                return self._summary(None, changed, 0)
            told = {name: value for name, value in to_mapping(config).items() if name not in _ONCE}
            write_arguments(out, told)
            unclaimed = write_unclaimed(out, self.chosen.folders, plan.lists.catalog)
            ffmpeg = ffmpeg_build()
            atomic.write_json(out / LOCK_FILE, {**plan.lock, "ffmpeg": ffmpeg})
            self.home.publish()
            shards = make_shards(self._stage(ffmpeg, held, tries_pending=not plan_digest), self.watch, self.say)
            plan.audit["clips"] = shards.outcomes
            write_audit(out, plan.audit)
            self.home.merged()
            self.home.publish()
        return self._summary(shards, changed, unclaimed)

    def as_task(self, task: ArrayTask) -> BuildSummary:
        """Write the part of one task; whoever finds that no other is left writes the index."""
        plan_digest = self.plan.lock["digests"]["plan"]
        ffmpeg = ffmpeg_build()
        with task_writer(self.home, task, plan_digest) as held:
            self._require_the_same_forgotten()
            changes(self.config.out, self.plan.lock, locked=self.config.locked, replan=False)
            share_lists(self.home, held, self.plan, ffmpeg)
            made = self._stage(ffmpeg, held)
            part = make_part(made, task, self.watch, self.say)
        summary = dataclasses.replace(self._summary(part, [], 0), task=str(task))
        self.home.pull(None)
        if all_is_made(made):
            # Another that is there will find the same, later.
            with suppress(TakenError):
                whole = self.alone(plan_digest)
                own = ("tried", "made", "size_bytes", "seconds", "clips_per_s")
                return dataclasses.replace(whole, **{name: getattr(summary, name) for name in own})
        return summary

    def _summary(self, shards: MadeShards | None, changed: list[str], unclaimed: int) -> BuildSummary:
        config = self.config
        place = config.store or config.out
        return summed_up(place, self.plan, shards, config.min_clips_pct, changed=changed, unclaimed=unclaimed)

    def _require_the_same_forgotten(self) -> None:
        out = self.config.out
        if read_forgotten(out) != self.forgotten:
            raise UsageError(f"{out}: videos were forgotten meanwhile", hint="run the same command again")

    def _stage(self, ffmpeg: str, held: HeldClaim, *, tries_pending: bool = True) -> ShardStage:
        config, plan = self.config, self.plan
        assert self.chosen is not None
        others = rivals(plan.lists.catalog)
        clips = Clips(
            work=config.out / "archives",
            rivals=others,
            rows=functools.partial(rows_by_key, plan.manifest),
            say=self.say,
        )
        return ShardStage(
            home=self.home,
            out=config.out,
            manifest=plan.manifest,
            labels=plan.lists.labels,
            rounds=self.chosen.rounds(clips),
            rivals=others,
            encode=config.encode,
            plan_digest=plan.lock["digests"]["plan"],
            workers=config.workers,
            keep_clips=config.keep_clips,
            ffmpeg=ffmpeg,
            still_ours=held.require,
            reopen=self.reopen,
            tries_pending=tries_pending,
            ray_address=config.ray_address if config.executor == "ray" else None,
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


def _chosen(config: BuildConfig, access: Access | None, say: Say) -> Chosen:
    """The sources of videos; whose videos they are is said before anybody is asked for one."""
    chosen = choose(
        config.videos, encode=config.encode, videos_are=config.videos_are, settings=config.sources, access=access
    )
    if "cvdf:" in config.videos:
        say(TERMS)
    if YOUTUBE in chosen.kinds:
        from k710.clips.sources.youtube import terms_notice, version_note

        for line in filter(None, (terms_notice(), version_note())):
            say(line)
    return chosen


def _silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def _unsaid(line: str) -> None:
    """Says nothing."""
