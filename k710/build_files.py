"""What a build writes beside its shards, and what it says of itself to the next run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k710 import atomic, schema
from k710.clips.sources.candidates import Wanted
from k710.clips.sources.local import LocalFolders
from k710.errors import FeedError
from k710.list_stage import ListPlan
from k710.lists.catalog import Catalog
from k710.lists.manifest import bad_rows_csv
from k710.report.markdown import audit_markdown
from k710.report.page import write_build_page
from k710.segments import Segment
from k710.shard_stage import clip_outcomes
from k710.shards.index import INDEX_FILE, LOCK_FILE
from k710.tables import picked, read_table

BAD_ROWS_FILE = "bad_rows.csv"
UNCLAIMED_FILE = "unclaimed_files.csv"
ARGUMENTS_FILE = "build.json"
"""What the last run was told, paths and all, which the lock does not say: for `k710 retry`."""
ARGUMENTS = "k710.build_arguments/1"


def write_plan(out: Path, plan: ListPlan) -> None:
    """Write all that the lists decide into the folder of a build."""
    # The lock first: whatever a kill leaves behind is then known as a build, and the next run writes the rest again.
    write_lock(out, plan.lock)
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
    write_audit(out, plan.audit)


def write_lock(out: Path, lock: Mapping[str, Any]) -> None:
    """Write the lock; the ffmpeg that a run before has recorded stays until this one comes to clips."""
    path = out / LOCK_FILE
    known = json.loads(path.read_bytes()).get("ffmpeg") if path.exists() else None
    atomic.write_json(path, {"ffmpeg": known, **lock})


def write_audit(out: Path, audit: Mapping[str, Any]) -> None:
    """Write the audit, for machines and for people; the plan that it is of lies there."""
    atomic.write_json(out / "audit.json", audit)
    atomic.write_text(out / "audit.md", audit_markdown(audit))
    write_build_page(out, audit)


def outcomes_so_far(out: Path) -> dict[str, dict[str, int]]:
    """The ``clips`` of the audit by the index that stands; nothing without one that can be read."""
    try:
        return {"clips": clip_outcomes(read_table(out / INDEX_FILE, schema.SHARDS, ["status"]))}
    except FeedError:
        return {}


def write_arguments(out: Path, config: Mapping[str, Any]) -> None:
    """Record what a run was told, with the folder that relative paths are meant from."""
    atomic.write_json(out / ARGUMENTS_FILE, {"schema": ARGUMENTS, "folder": str(Path.cwd()), "config": config})


def write_unclaimed(out: Path, folders: Sequence[LocalFolders], catalog: Catalog) -> int:
    """List the video files of this machine that no annotation row can use; how many there are."""
    found = sorted({file for own in folders for file in own.unclaimed(_segments(catalog))})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "reason"])
    rows.writerows((file.path, file.reason) for file in found)
    # Names on a disk may be any bytes; they come out as they are.
    atomic.write_bytes(out / UNCLAIMED_FILE, text.getvalue().encode(errors="surrogateescape"))
    return len(found)


def _segments(catalog: Catalog) -> Iterator[Segment]:
    """Every segment of every list, once; a row that could not be used may name a video without one."""
    timed = np.flatnonzero(~np.isnan(catalog.start_s))
    ids = picked(catalog.ids, catalog.clip_video[timed]).to_pylist()
    times = (catalog.start_s[timed].tolist(), catalog.end_s[timed].tolist())
    for video_id, start_s, end_s in zip(ids, *times, strict=True):
        yield Segment(id=str(video_id), start_s=start_s, end_s=end_s)


def rows_by_key(manifest: pa.Table) -> dict[str, tuple[tuple[str, str, str], ...]]:
    """Release, split and class name of the rows of each planned clip."""
    known: dict[tuple[tuple[str, str, str], ...], tuple[tuple[str, str, str], ...]] = {}
    found = {}
    for clip in manifest.select(["key", "rows"]).to_pylist():
        own = tuple((row["release"], row["split"], row["label"] or "") for row in clip["rows"])
        # Most clips of a class share theirs.
        found[clip["key"]] = known.setdefault(own, own)
    return found


def rivals(catalog: Catalog) -> dict[str, list[Wanted]]:
    """Every segment of each video that has more than one in any list."""
    timed = ~np.isnan(catalog.start_s)
    several = timed & (np.bincount(catalog.clip_video[timed], minlength=catalog.num_videos)[catalog.clip_video] > 1)
    rows = np.flatnonzero(several[catalog.clip])
    releases: dict[int, set[str]] = {}
    for clip, code in zip(catalog.clip[rows].tolist(), catalog.list_code[rows].tolist(), strict=True):
        releases.setdefault(clip, set()).add(catalog.lists[code].release)
    found: dict[str, list[Wanted]] = {}
    ids = picked(catalog.ids, catalog.clip_video[list(releases)]).to_pylist()
    for video_id, (clip, names) in zip(ids, releases.items(), strict=True):
        segment = Segment(id=str(video_id), start_s=float(catalog.start_s[clip]), end_s=float(catalog.end_s[clip]))
        found.setdefault(segment.id, []).append(Wanted(segment=segment, releases=frozenset(names)))
    return found
