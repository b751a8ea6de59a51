"""From planned clips and folders of videos to shards and their index; goes on wherever an earlier run stopped."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from k710 import schema
from k710.clip_figures import SoFar, room_for, usable_by_view
from k710.clip_rounds import ClipRounds
from k710.clip_stage import Crew
from k710.clips.encodings import EncodeConfig
from k710.clips.ledger import LEDGER_FILE, Ledger
from k710.clips.sources.candidates import Round, Wanted
from k710.config import to_mapping
from k710.home import Home
from k710.labels import LabelMap
from k710.lists.manifest import digest
from k710.segments import Segment
from k710.shards.executors import EXECUTORS, on_ray
from k710.shards.executors.array import ArrayTask
from k710.shards.index import INDEX_FILE
from k710.shards.packing import Packing, leaves_of
from k710.shards.shelf import CACHE_FOLDER
from k710.tables import write_table

Progress = Callable[[SoFar], None]
"""Called when clips have come to an outcome."""
Say = Callable[[str], None]
"""Called with a line that people should read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStage:
    """What the stage works on."""

    home: Home
    """Where the build lies."""
    out: Path
    """Folder of the build."""
    manifest: pa.Table
    """The planned clips."""
    labels: LabelMap
    """The class table."""
    rounds: Sequence[Round]
    """Where videos may be, in order of preference."""
    rivals: Mapping[str, Sequence[Wanted]]
    """Every segment of each video that has several in some list, planned or not."""
    encode: EncodeConfig
    """How clips are encoded."""
    plan_digest: str
    """Recorded in each shard's marker."""
    workers: int
    """Processes that encode."""
    keep_clips: bool
    """Whether encoded clips stay in the cache after they are packed."""
    ffmpeg: str
    """The build of ffmpeg on this machine."""
    still_ours: Callable[[], None]
    """Called before anything is committed; raises when another run has taken over."""
    reopen: frozenset[str] = frozenset()
    """Statuses whose clips are tried again although nothing has changed."""
    tries_pending: bool = True
    """Whether clips that were pending are tried again; not where another task of this plan has just done so."""
    ray_address: str | None = None
    """The Ray cluster that makes the clips; empty: one of this run's own; None: processes on this machine."""

    @property
    def encode_digest(self) -> str:
        """Of the encode arguments, as lines of the ledger have it."""
        return digest(to_mapping(self.encode))

    def crew(self, task: ArrayTask | None) -> Crew:
        """Who makes the clips, of one task if there is one."""
        name = f"tmp-{task.name}-" if task is not None else "tmp-"
        return Crew(
            run=EXECUTORS["local"] if self.ray_address is None else on_ray(self.ray_address),
            workers=self.workers,
            scratch=(self.out / CACHE_FOLDER / f"{name}{os.getpid()}-{secrets.token_hex(4)}").resolve(),
            leftovers=f"{name}*",
            still_ours=self.still_ours,
            ffmpeg="" if self.ray_address is None else self.ffmpeg,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeShards:
    """What the stage did."""

    tried: int
    """Clips that this run tried, to whatever outcome."""
    made: int
    """Clips that this run made."""
    size_bytes: int
    """Their bytes."""
    seconds: float
    """What the clips and their packing took."""
    outcomes: dict[str, int]
    """Planned clips per outcome, most frequent first."""
    usable: dict[str, tuple[int, int]]
    """For each view the clips that are ``ok``, and those planned."""
    count: int
    """Shards that the build has."""


def make_shards(stage: ShardStage, progress: Progress, say: Say) -> MadeShards:
    """Make the clips that are not made yet, pack every shard that is not as planned, and write the index.

    Raises:
        SourceError: no clip has a video, or the workers die one after the other.
    """
    with Ledger(stage.out / LEDGER_FILE, stage.encode_digest, also=stage.home.note) as ledger:
        packing = Packing(stage.out, stage.manifest, stage.labels, ledger.outcomes, shelf=stage.home.shelf)
        so_far = _make_and_pack(stage, ledger, packing, stage.crew(None), progress, say)
        stage.still_ours()
        packing.restamp(stage.plan_digest)
        packing.sweep(keep_clips=stage.keep_clips)
        index = packing.index()
        write_table(stage.out / INDEX_FILE, index, schema.SHARDS)
    return MadeShards(
        tried=so_far.tried,
        made=so_far.made,
        size_bytes=so_far.size_bytes,
        seconds=so_far.seconds,
        outcomes=clip_outcomes(index),
        usable=usable_by_view(index),
        count=len(index["shard"].drop_null().unique()),
    )


def make_part(stage: ShardStage, task: ArrayTask, progress: Progress, say: Say) -> MadeShards:
    """Make the clips and shards of one task of several; the index is left to whoever finds all of them done.

    Raises:
        SourceError: no clip has a video, or the workers die one after the other.
    """
    with Ledger(stage.out / LEDGER_FILE, stage.encode_digest, task=task.name, also=stage.home.note) as ledger:
        packing = Packing(stage.out, stage.manifest, stage.labels, ledger.outcomes, task=task, shelf=stage.home.shelf)
        so_far = _make_and_pack(stage, ledger, packing, stage.crew(task), progress, say)
    return MadeShards(
        tried=so_far.tried,
        made=so_far.made,
        size_bytes=so_far.size_bytes,
        seconds=so_far.seconds,
        outcomes=dict(so_far.counts.most_common()),
        usable={},
        count=sum(bool(packing.members(leaf)) for leaf in packing.leaves),
    )


def all_is_made(stage: ShardStage) -> bool:
    """Whether every shard of the plan is there, whichever tasks made them."""
    outcomes = Ledger(stage.out / LEDGER_FILE, stage.encode_digest).outcomes
    # The keys first: looking at a leaf costs as much as it has clips.
    if any(key not in outcomes for key in stage.manifest["key"].to_pylist()):
        return False
    packing = Packing(stage.out, stage.manifest, stage.labels, outcomes, shelf=stage.home.shelf)
    return all(map(packing.is_done, packing.leaves))


def clip_outcomes(index: pa.Table) -> dict[str, int]:
    """Clips per outcome in the ``status`` of an index, most frequent first."""
    return dict(Counter(str(status) for status in index["status"].to_pylist()).most_common())


def _make_and_pack(
    stage: ShardStage, ledger: Ledger, packing: Packing, crew: Crew, progress: Progress, say: Say
) -> SoFar:
    clips = ClipRounds(
        stage.rounds,
        _wanted(stage.manifest),
        stage.rivals,
        ledger,
        packing,
        encode=stage.encode,
        reopen=stage.reopen,
        tries_pending=stage.tries_pending,
    )
    open_keys = set(clips.open)
    waiting = leaves_of(packing, open_keys)
    pending = sorted(leaf for leaf in packing.leaves if leaf in waiting or not packing.is_done(leaf))
    if pending:
        # From here on shards change under the index; a reader that comes after a kill must not trust its offsets.
        packing.shelf.withdraw_index()
    # Of a build in an object store little lies on the disk at a time.
    if open_keys and not stage.home.url:
        largest = max(len(packing.leaves[leaf]) for leaf in waiting)
        twice = len(open_keys) if stage.keep_clips else largest
        say(room_for(clips, stage.encode, twice, stage.out).line())
    packing.rescue(pending)
    for leaf in (leaf for leaf in pending if leaf not in waiting):
        packing.pack(leaf, stage.plan_digest, keep_clips=stage.keep_clips)
    keys = packing.keys
    known = (ledger.outcomes[key].status for key in keys if key not in open_keys)
    so_far = SoFar(total=len(keys), counts=Counter(known))
    progress(so_far)
    for outcomes in clips.make(crew):
        so_far.add(outcomes)
        for leaf, number in leaves_of(packing, [outcome.key for outcome in outcomes]).items():
            waiting[leaf] -= number
            if not waiting[leaf] and not packing.is_done(leaf):
                packing.pack(leaf, stage.plan_digest, keep_clips=stage.keep_clips)
        progress(so_far)
    packing.shelf.commit([])
    return so_far


def _wanted(manifest: pa.Table) -> dict[str, Wanted]:
    columns = manifest.select(["key", "id", "start_s", "end_s", "rows"]).to_pylist()
    return {
        c["key"]: Wanted(
            segment=Segment(id=c["id"], start_s=c["start_s"], end_s=c["end_s"]),
            releases=frozenset(row["release"] for row in c["rows"]),
        )
        for c in columns
    }
