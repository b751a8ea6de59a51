"""From planned clips and folders of videos to shards and their index; goes on wherever an earlier run stopped."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from k710 import atomic, schema
from k710.clips.ledger import Ledger
from k710.clips.make import MISSING, OK, ClipJob, ClipOutcome, fingerprint, make_clip
from k710.clips.media import EncodeConfig
from k710.clips.sources.local import Candidate, LocalFolders, Wanted
from k710.config import to_mapping
from k710.errors import SourceError
from k710.labels import LabelMap
from k710.lists.manifest import digest
from k710.segments import Segment
from k710.shards.executors import EXECUTORS
from k710.shards.index import INDEX_FILE
from k710.shards.packing import CACHE_FOLDER, Packing, leaves_of
from k710.tables import write_table

LEDGER_FILE = "ledger.jsonl"

Progress = Callable[[int, int], None]
"""Called with the clips that have an outcome and their total."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeShards:
    """What the stage did."""

    made: int
    """Clips encoded by this run."""
    outcomes: dict[str, int]
    """Planned clips per outcome, most frequent first."""
    count: int
    """Shards that the build has."""


def make_shards(stage: ShardStage, progress: Progress) -> MadeShards:
    """Make the clips that are not made yet, pack every shard that is not as planned, and write the index.

    Raises:
        SourceError: no clip has a video, or a worker died.
    """
    with Ledger(stage.out / LEDGER_FILE, digest(to_mapping(stage.encode))) as ledger:
        packing = Packing(stage.out, stage.manifest, stage.labels, ledger.outcomes)
        made = _make_and_pack(stage, ledger, packing, progress)
        packing.restamp(stage.plan_digest)
        packing.sweep(keep_clips=stage.keep_clips)
        index = packing.index()
        write_table(stage.out / INDEX_FILE, index, schema.SHARDS)
    return MadeShards(made=made, outcomes=clip_outcomes(index), count=len(index["shard"].drop_null().unique()))


def clip_outcomes(index: pa.Table) -> dict[str, int]:
    """Clips per outcome in the ``status`` of an index, most frequent first."""
    return dict(Counter(str(status) for status in index["status"].to_pylist()).most_common())


def _make_and_pack(stage: ShardStage, ledger: Ledger, packing: Packing, progress: Progress) -> int:
    jobs = _jobs(stage, ledger, packing)
    waiting = leaves_of(packing, [job.segment.key for job in jobs])
    pending = sorted(leaf for leaf in packing.leaves if leaf in waiting or not packing.is_done(leaf))
    if pending:
        # From here on shards change under the index; a reader that comes after a kill must not trust its offsets.
        (stage.out / INDEX_FILE).unlink(missing_ok=True)
    packing.rescue(pending)
    for leaf in (leaf for leaf in pending if leaf not in waiting):
        packing.pack(leaf, stage.plan_digest, keep_clips=stage.keep_clips)
    total, done, made = len(packing.clips), len(packing.clips) - len(jobs), 0
    progress(done, total)
    for job, outcome in EXECUTORS["local"](make_clip, jobs, workers=stage.workers):
        _commit(job, outcome, ledger, packing)
        leaf = packing.clips[outcome.key]["leaf"]
        waiting[leaf] -= 1
        if not waiting[leaf] and not packing.is_done(leaf):
            packing.pack(leaf, stage.plan_digest, keep_clips=stage.keep_clips)
        done += 1
        made += outcome.status == OK
        progress(done, total)
    return made


def _jobs(stage: ShardStage, ledger: Ledger, packing: Packing) -> list[ClipJob]:
    """The clips that are still to be made, in order of leaf; those without any file get their outcome at once."""
    wanted = _wanted(stage.manifest)
    matches = dict(zip(packing.clips, stage.folders.candidates(list(wanted.values()), stage.rivals), strict=True))
    if matches and not any(matches.values()) and not any(o.status == OK for o in ledger.outcomes.values()):
        raise SourceError(
            f"none of the {len(matches):,} planned clips has a video in {', '.join(stage.folders.names)}",
            hint="files are found by name: the 11-character id, then _{start:06d}_{end:06d} if they are trimmed",
        )
    scratch = _scratch_folder(stage.out)
    # Once per leaf: looking at a leaf costs as much as it has clips.
    packed = {leaf for leaf in packing.leaves if packing.is_done(leaf)}
    todo = [key for key, files in matches.items() if _is_open(key, files, ledger, packing, packed)]
    ledger.add_all([ClipOutcome(key=key, status=MISSING) for key in todo if not matches[key]])
    return [
        ClipJob(
            segment=wanted[key].segment, candidates=matches[key], target=scratch / f"{key}.mp4", encode=stage.encode
        )
        for key in todo
        if matches[key]
    ]


def _is_open(
    key: str, files: tuple[Candidate, ...], ledger: Ledger, packing: Packing, packed: AbstractSet[str]
) -> bool:
    """Whether a clip is to be made: never tried, failed on other files, or its bytes are gone."""
    outcome = ledger.outcomes.get(key)
    if outcome is None:
        return True
    if outcome.status != OK:
        return outcome.tried != fingerprint(files)
    return packing.clips[key]["leaf"] not in packed and not packing.has_bytes(key)


def _wanted(manifest: pa.Table) -> dict[str, Wanted]:
    columns = manifest.select(["key", "id", "start_s", "end_s", "rows"]).to_pylist()
    return {
        c["key"]: Wanted(
            segment=Segment(id=c["id"], start_s=c["start_s"], end_s=c["end_s"]),
            releases=frozenset(row["release"] for row in c["rows"]),
        )
        for c in columns
    }


def _scratch_folder(out: Path) -> Path:
    """A new folder for encodes in progress; those that killed runs left are removed."""
    for old in (out / CACHE_FOLDER).glob("tmp-*"):
        shutil.rmtree(old, ignore_errors=True)
    scratch = (out / CACHE_FOLDER / f"tmp-{os.getpid()}").resolve()
    scratch.mkdir(parents=True)
    return scratch


def _commit(job: ClipJob, outcome: ClipOutcome, ledger: Ledger, packing: Packing) -> None:
    if outcome.status != OK:
        job.target.unlink(missing_ok=True)
        ledger.add(outcome)
        return
    atomic.sync_file(job.target)
    # The ledger first: a line without its file is made again, a file without its line would be one nobody vouches for.
    ledger.add(outcome)
    cached = packing.cached(outcome.key)
    cached.parent.mkdir(parents=True, exist_ok=True)
    job.target.replace(cached)
    atomic.sync_folder(cached.parent)
