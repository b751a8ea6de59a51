"""`k710 build`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from . import policy, sources
from .options import DEFAULT_DATA, AsJson, words

if TYPE_CHECKING:
    from k710.build import BuildConfig
    from k710.build_summary import BuildSummary
    from k710.clips.sources.youtube import Access

Out = Annotated[
    str, typer.Option("--out", help="Folder of the build, or a URL of an object store, such as s3://bucket/k710.")
]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="With --out in an object store: folder for what is under way, which may be lost (default: in ~/.cache).",
    ),
]
Unguarded = Annotated[
    bool,
    typer.Option(
        "--unguarded",
        help="With --out in an object store that cannot keep two builds apart: go on; you see to it that one writes.",
    ),
]
ManifestOnly = Annotated[bool, typer.Option("--manifest-only", help="Stop after the lists: no clips, no shards.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Encoding processes; default: one per core.")]
Replan = Annotated[
    bool, typer.Option("--replan", help="Change the build in --out to these lists and settings, keeping its clips.")
]
Locked = Annotated[
    bool, typer.Option("--locked", help="Refuse to build anything but what the lock in --out says, to the last clip.")
]
Encode = Annotated[
    str,
    typer.Option(
        "--encode",
        metavar="WORD",
        help="How clips are stored: sparse8, sparse32 or intra (quick to read 8, 32 or any frames from), copy or none.",
    ),
]
Preset = Annotated[str, typer.Option("--preset", metavar="WORD", help="Speed preset of x264.")]
Crf = Annotated[int, typer.Option("--crf", help="Quality of x264: 0 is lossless, 51 is worst.")]
ShortSide = Annotated[int, typer.Option("--short-side", help="Short side of clips in pixels; never enlarged.")]
KeepAudio = Annotated[bool, typer.Option("--keep-audio", help="Keep the sound of the videos.")]
VideosAre = Annotated[
    str,
    typer.Option(
        "--videos-are",
        metavar="WORD",
        help="What files without times in their names are: clips, originals (whole videos), or auto, by their length.",
    ),
]
MinClips = Annotated[
    float | None,
    typer.Option(
        "--min-clips", metavar="PCT", help="Exit with 1 when fewer percent of the planned clips of a view are usable."
    ),
]
KeepClips = Annotated[
    bool, typer.Option("--keep-clips", help="Keep the encoded clips in the cache after they are packed.")
]

Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="WORD",
        help="Who makes the clips: local, array (this run is one task of several on one folder) or ray.",
    ),
]
TaskIndex = Annotated[
    int | None, typer.Option("--task-index", help="With --executor array: number of this task, from 0.")
]
NumTasks = Annotated[int | None, typer.Option("--num-tasks", help="With --executor array: how many tasks there are.")]
RayAddress = Annotated[
    str,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="With --executor ray: a cluster that is there, or auto; --workers says how many of its processors to use "
        "(default: a cluster of this run's own on this machine).",
    ),
]


def build(
    annotations: policy.Annotations,
    videos: sources.Videos = None,
    out: Out = str(DEFAULT_DATA),
    work: Work = None,
    unguarded: Unguarded = False,
    manifest_only: ManifestOnly = False,
    workers: Workers = None,
    releases: policy.Releases = None,
    columns: policy.Columns = None,
    on_bad_row: policy.OnBadRow = "stop",
    class_order: policy.ClassOrder = None,
    class_table: policy.ClassTable = None,
    protect: policy.Protect = "val,test",
    leaks: policy.Leaks = None,
    unit: policy.Unit = "video",
    prefer: policy.Prefer = "newest",
    conflicts: policy.Conflicts = "keep",
    only_cc: policy.OnlyCc = False,
    classes: policy.Classes = None,
    exclude_classes: policy.ExcludeClasses = None,
    exclude_ids: policy.ExcludeIds = None,
    drop_near_duplicates: policy.DropNearDuplicates = None,
    per_class: policy.PerClass = None,
    seed: policy.Seed = 0,
    views: policy.Views = "default",
    require_complete: policy.RequireComplete = False,
    replan: Replan = False,
    locked: Locked = False,
    clips_per_shard: policy.ClipsPerShard = 1000,
    encode: Encode = "sparse8",
    preset: Preset = "veryfast",
    crf: Crf = 23,
    short_side: ShortSide = 256,
    keep_audio: KeepAudio = False,
    videos_are: VideosAre = "auto",
    min_clips: MinClips = None,
    keep_clips: KeepClips = False,
    executor: Executor = "local",
    task_index: TaskIndex = None,
    num_tasks: NumTasks = None,
    ray_address: RayAddress = "",
    archives: sources.Archives = None,
    keep_archives: sources.KeepArchives = False,
    archives_in_flight: sources.ArchivesInFlight = 3,
    base_url: sources.BaseUrl = None,
    accept_changed: sources.AcceptChanged = False,
    youtube_rate: sources.YouTubeRate = 300.0,
    cookies: sources.Cookies = None,
    cookies_from_browser: sources.CookiesFromBrowser = "",
    proxy: sources.Proxy = "",
    source_address: sources.SourceAddress = "",
    as_json: AsJson = False,
) -> None:
    """Build views, verified clips, shards and the leak audit from annotation files and videos."""
    from k710 import build as library
    from k710.clips.encodings import EncodeConfig
    from k710.errors import UsageError
    from k710.objects.protocols import place

    taken = policy.selection(
        only_cc=only_cc,
        classes=classes,
        exclude_classes=exclude_classes,
        exclude_ids=exclude_ids,
        per_class=per_class,
        seed=seed,
        class_table=class_table,
    )
    archives_of = sources.archives(archives, archives_in_flight, base_url, keep=keep_archives, changed=accept_changed)
    try:
        config = library.BuildConfig(
            annotations=annotations,
            **place(out),
            work=work,
            unguarded=unguarded,
            videos=tuple(videos or ()),
            sources=sources.settings(archives_of, youtube_rate),
            manifest_only=manifest_only,
            workers=workers or os.cpu_count() or 1,
            releases=words(releases) if releases else None,
            options=policy.read_options(columns, on_bad_row, class_order),
            class_table=class_table,
            policy=policy.policy(
                protect=protect,
                leaks=leaks,
                unit=unit,
                prefer=prefer,
                conflicts=conflicts,
                selection=taken,
                drop_near_duplicates=drop_near_duplicates,
            ),
            views=words(views),
            require_complete=require_complete,
            replan=replan,
            locked=locked,
            clips_per_shard=clips_per_shard,
            keep_clips=keep_clips,
            encode=EncodeConfig(
                encode=cast("Any", encode), preset=preset, crf=crf, short_side_px=short_side, keep_audio=keep_audio
            ),
            videos_are=cast("Any", videos_are),
            min_clips_pct=min_clips,
            executor=cast("Any", executor),
            task_index=task_index,
            num_tasks=num_tasks,
            ray_address=ray_address,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    _run(config, sources.access(cookies, cookies_from_browser, proxy, source_address), as_json=as_json)


def _run(config: BuildConfig, access: Access, *, as_json: bool) -> None:
    from k710 import build as library
    from k710.build_summary import require_clips
    from k710.config import to_mapping

    from .progress import Stages

    with Stages() as stages:
        summary = library.build(config, stages, on_clips=stages.clips, say=stages.say, access=access)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))
    require_clips(summary)


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
    part = f" of {summary.task}" if summary.task else ""
    lines.append(
        f"done {good:,} of {total:,} clips{part}{f' ({rest})' if rest else ''}, {_made_now(summary)}, "
        f"{summary.shards:,} shards -> {summary.out}, {summary.out}/audit.md"
    )
    if summary.clips.get("pending"):
        lines.append(f"{summary.clips['pending']:,} clips are pending: run the same command again")
    if summary.task:
        lines.append(
            "the last task to end writes the index; so does `k710 build` without task, when none runs any more"
        )
    return "\n".join(lines)


def _made_now(summary: BuildSummary) -> str:
    from k710.clip_figures import lasting, sized

    if not summary.tried:
        return "0 made now"
    in_vain = summary.tried - summary.made
    return (
        f"{summary.made:,} made now{f' and {in_vain:,} tried in vain' if in_vain else ''} "
        f"({sized(summary.size_bytes)} in {lasting(summary.seconds)}, {summary.clips_per_s:.1f} clips/s)"
    )


def _cautions(summary: BuildSummary) -> list[str]:
    """What a reader of the statement alone would miss."""
    total = summary.num_classes
    merged = [v for v in summary.audit["views"] if v["view"] == "k710-train" and v["classes"] < total]
    lines = [f"WARNING: k710-train has clips of {v['classes']} of {total} classes" for v in merged]
    lines += [f"WARNING: {note}" for note in summary.notes]
    if summary.bad_rows:
        lines.append(f"WARNING: {summary.bad_rows:,} rows could not be used; {summary.out}/bad_rows.csv lists them")
    if summary.unclaimed:
        where = f"{summary.out}/unclaimed_files.csv"
        lines.append(f"WARNING: {summary.unclaimed:,} video files that no annotation row can use; {where} lists them")
    if summary.audit["not_checked"]:
        lines.append(f"WARNING: not given: {', '.join(summary.audit['not_checked'])}; --require-complete refuses this")
    return lines


def _excluded(summary: BuildSummary, view: str) -> str:
    reasons = summary.excluded[view]
    return f" ({', '.join(f'{n:,} {reason}' for reason, n in reasons.items())} excluded)" if reasons else ""
