"""`k710 build`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k710.labels import NUM_CLASSES

from .options import DEFAULT_DATA, AsJson, words

if TYPE_CHECKING:
    from k710.build import BuildSummary
    from k710.lists.views import Policy

Annotations = Annotated[
    Path, typer.Option("--annotations", help="Folder with kinetics400/, kinetics600/, ... of CSVs.")
]
Videos = Annotated[
    list[str] | None, typer.Option("--videos", help="Folder of video files; repeatable, in order of preference.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the build.")]
ManifestOnly = Annotated[bool, typer.Option("--manifest-only", help="Stop after the lists: no clips, no shards.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Encoding processes; default: one per core.")]
Releases = Annotated[
    str | None, typer.Option("--releases", help="Releases to take, such as k400,k600; default: the folders found.")
]
Protect = Annotated[
    str, typer.Option("--protect", help="Held-out lists whose videos leave k710-train: val, test, both, or none.")
]
Leaks = Annotated[
    str | None,
    typer.Option("--leaks", help="Which side gives way: drop-train, drop-eval or report; default: drop-train."),
]
Views = Annotated[
    str, typer.Option("--views", help="Views to build; default stands for train and val of k710 and each release.")
]
RequireComplete = Annotated[
    bool, typer.Option("--require-complete", help="Refuse to build when a list of a chosen release was not given.")
]
Replan = Annotated[
    bool, typer.Option("--replan", help="Change the build in --out to these lists and settings, keeping its clips.")
]
ClipsPerShard = Annotated[int, typer.Option("--clips-per-shard", min=1, help="Most clips in one shard.")]
KeepClips = Annotated[
    bool, typer.Option("--keep-clips", help="Keep the encoded clips in the cache after they are packed.")
]


def build(
    annotations: Annotations,
    videos: Videos = None,
    out: Out = DEFAULT_DATA,
    manifest_only: ManifestOnly = False,
    workers: Workers = None,
    releases: Releases = None,
    protect: Protect = "val,test",
    leaks: Leaks = None,
    views: Views = "default",
    require_complete: RequireComplete = False,
    replan: Replan = False,
    clips_per_shard: ClipsPerShard = 1000,
    keep_clips: KeepClips = False,
    as_json: AsJson = False,
) -> None:
    """Build views, verified clips, shards and the leak audit from annotation files and videos."""
    from k710 import build as library
    from k710.config import to_mapping

    from .progress import Stages

    config = library.BuildConfig(
        annotations=annotations,
        out=out,
        videos=tuple(videos or ()),
        manifest_only=manifest_only,
        workers=workers or os.cpu_count() or 1,
        releases=words(releases) if releases else None,
        policy=_policy(words(protect), leaks),
        views=words(views),
        require_complete=require_complete,
        replan=replan,
        clips_per_shard=clips_per_shard,
        keep_clips=keep_clips,
    )
    with Stages() as stages:
        summary = library.build(config, stages)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))


def _policy(protect: tuple[str, ...], leaks: str | None) -> Policy:
    from k710.config import from_mapping
    from k710.errors import UsageError
    from k710.lists.views import Policy

    if not protect and leaks is not None:
        raise UsageError(
            f"--leaks {leaks} says what happens to protected videos, and --protect none protects none",
            hint="leave one of the two out",
        )
    return from_mapping(Policy, {"protect": protect, "leaks": leaks or "drop-train"}, where="build")


def describe(summary: BuildSummary) -> str:
    """What a build did, in a few lines."""
    lines = [f"{name}: {clips:,} clips{_excluded(summary, name)}" for name, clips in sorted(summary.views.items())]
    if summary.replanned:
        lines += ["re-planned:", *(f"  {change}" for change in summary.replanned)]
    lines += [summary.audit["statement"], *_cautions(summary)]
    if not summary.clips:
        return "\n".join([*lines, f"done: lists of {summary.rows:,} rows -> {summary.out}, {summary.out}/audit.md"])
    total, good = sum(summary.clips.values()), summary.clips.get("ok", 0)
    rest = ", ".join(f"{n:,} {status}" for status, n in summary.clips.items() if status != "ok")
    lines.append(
        f"done {good:,} of {total:,} clips{f' ({rest})' if rest else ''}, {summary.made:,} made now, "
        f"{summary.shards:,} shards -> {summary.out}, {summary.out}/audit.md"
    )
    return "\n".join(lines)


def _cautions(summary: BuildSummary) -> list[str]:
    """What a reader of the statement alone would miss."""
    merged = [v for v in summary.audit["views"] if v["view"] == "k710-train" and v["classes"] < NUM_CLASSES]
    lines = [f"WARNING: k710-train has clips of {v['classes']} of {NUM_CLASSES} classes" for v in merged]
    if summary.audit["not_checked"]:
        lines.append(f"WARNING: not given: {', '.join(summary.audit['not_checked'])}; --require-complete refuses this")
    return lines


def _excluded(summary: BuildSummary, view: str) -> str:
    reasons = summary.excluded[view]
    return f" ({', '.join(f'{n:,} {reason}' for reason, n in reasons.items())} excluded)" if reasons else ""
