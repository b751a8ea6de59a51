"""From planned clips and folders of videos to shards and their index; goes on wherever an earlier run stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from k710 import schema
from k710.clip_figures import SoFar, room_for, usable_by_view
from k710.clip_stage import clips_to_make, make_clips
from k710.clips.encodings import EncodeConfig
from k710.clips.ledger import Ledger
from k710.clips.make import ClipJob
from k710.clips.outcomes import OK
from k710.clips.sources.local import LocalFolders, Wanted
from k710.config import to_mapping
from k710.errors import SourceError
from k710.labels import LabelMap
from k710.lists.manifest import digest
from k710.segments import Segment
from k710.shards.index import INDEX_FILE
from k710.shards.packing import Packing, leaves_of
from k710.tables import write_table

LEDGER_FILE = "ledger.jsonl"

Progress = Callable[[SoFar], None]
"""Called when clips have come to an outcome."""
Say = Callable[[str], None]
"""Called with a line that people should read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStage:
    """What the stage works on."""

    out: Path
    """Folder of the build."""
    manifest: pa.Table
    """The planned clips."""
    labels: LabelMap
    """The class table."""
    folders: LocalFolders
    """Where videos may be."""
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
    reopen: frozenset[str] = frozenset()
    """Statuses whose clips are tried again although nothing has changed."""


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
    with Ledger(stage.out / LEDGER_FILE, digest(to_mapping(stage.encode))) as ledger:
        packing = Packing(stage.out, stage.manifest, stage.labels, ledger.outcomes)
        so_far = _make_and_pack(stage, ledger, packing, progress, say)
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


def clip_outcomes(index: pa.Table) -> dict[str, int]:
    """Clips per outcome in the ``status`` of an index, most frequent first."""
    return dict(Counter(str(status) for status in index["status"].to_pylist()).most_common())


def _make_and_pack(stage: ShardStage, ledger: Ledger, packing: Packing, progress: Progress, say: Say) -> SoFar:
    jobs = _jobs(stage, ledger, packing)
    open_keys = {job.segment.key for job in jobs}
    waiting = leaves_of(packing, open_keys)
    pending = sorted(leaf for leaf in packing.leaves if leaf in waiting or not packing.is_done(leaf))
    if pending:
        # From here on shards change under the index; a reader that comes after a kill must not trust its offsets.
        (stage.out / INDEX_FILE).unlink(missing_ok=True)
    if jobs:
        largest = max(len(packing.leaves[leaf]) for leaf in waiting)
        twice = len(jobs) if stage.keep_clips else largest
        say(room_for(jobs, stage.encode, twice, stage.out).line())
    packing.rescue(pending)
    for leaf in (leaf for leaf in pending if leaf not in waiting):
        packing.pack(leaf, stage.plan_digest, keep_clips=stage.keep_clips)
    known = (ledger.outcomes[key].status for key in packing.clips if key not in open_keys)
    so_far = SoFar(total=len(packing.clips), counts=Counter(known))
    progress(so_far)
    for outcomes in make_clips(jobs, ledger, packing, workers=stage.workers):
        so_far.add(outcomes)
        for leaf, number in leaves_of(packing, [outcome.key for outcome in outcomes]).items():
            waiting[leaf] -= number
            if not waiting[leaf] and not packing.is_done(leaf):
                packing.pack(leaf, stage.plan_digest, keep_clips=stage.keep_clips)
        progress(so_far)
    return so_far


def _jobs(stage: ShardStage, ledger: Ledger, packing: Packing) -> list[ClipJob]:
    wanted = _wanted(stage.manifest)
    files = dict(zip(packing.clips, stage.folders.candidates(list(wanted.values()), stage.rivals), strict=True))
    if files and not any(files.values()) and not any(o.status == OK for o in ledger.outcomes.values()):
        raise SourceError(
            f"none of the {len(files):,} planned clips has a video in {', '.join(stage.folders.names)}",
            hint="files are found by name: the 11-character id, then _{start:06d}_{end:06d} if they are trimmed",
        )
    return clips_to_make(wanted, files, ledger, packing, encode=stage.encode, reopen=stage.reopen)


def _wanted(manifest: pa.Table) -> dict[str, Wanted]:
    columns = manifest.select(["key", "id", "start_s", "end_s", "rows"]).to_pylist()
    return {
        c["key"]: Wanted(
            segment=Segment(id=c["id"], start_s=c["start_s"], end_s=c["end_s"]),
            releases=frozenset(row["release"] for row in c["rows"]),
        )
        for c in columns
    }
