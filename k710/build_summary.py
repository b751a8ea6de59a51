"""What a build did, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k710.clip_figures import falls_short
from k710.errors import AnswerIsNo
from k710.list_stage import ListPlan
from k710.shard_stage import MadeShards


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSummary:
    """What a build did."""

    out: Path | str
    """Where it is: a folder, or the URL of an object store."""
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


def require_clips(summary: BuildSummary) -> None:
    """Answer no when a view of a finished build, or all of it, has fewer clips than ``min_clips_pct`` asked for."""
    if summary.falls_short:
        raise AnswerIsNo(
            f"fewer usable clips than --min-clips asks for: {'; '.join(summary.falls_short)}",
            hint=f"everything is written to {summary.out}; audit.md counts what is wrong with the others",
        )


def summed_up(
    place: Path | str,
    plan: ListPlan,
    shards: MadeShards | None,
    min_clips_pct: float | None,
    *,
    changed: list[str],
    unclaimed: int,
) -> BuildSummary:
    """What a build at ``place`` did; ``shards`` is None when it stopped after the lists."""
    made = shards or MadeShards(tried=0, made=0, size_bytes=0, seconds=0.0, outcomes={}, usable={}, count=0)
    short = [] if min_clips_pct is None else falls_short(made.outcomes, made.usable, min_clips_pct)
    return BuildSummary(
        out=place,
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
