"""`k710 fetch`: annotation lists and archives of videos from where they are published."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, words

if TYPE_CHECKING:
    from k710.fetch.annotations import FetchSummary
    from k710.fetch.batch import SoFar
    from k710.fetch.outcomes import Outcome
    from k710.fetch.videos import VideosSummary

    from .progress import Stages

Releases = Annotated[
    str, typer.Option("--release", metavar="LIST", help="Releases, comma-separated: k400, k600, k700, k700-2020.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="Mirror, in place of scheme and host of every address."),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Downloads at a time.")]
AcceptChanged = Annotated[
    bool, typer.Option("--accept-changed", help="Take files whose checksum is not that of the first time.")
]


def make_fetch_app() -> typer.Typer:
    """The commands under `k710 fetch`."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Fetch annotation lists or videos from where they are published.",
    )
    app.command(name="annotations")(lists)
    app.command(name="videos")(videos)
    return app


def lists(
    release: Releases,
    out: Annotated[Path, typer.Option("--out", help="Folder for the lists, which `k710 build --annotations` takes.")],
    publisher: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="WORD", help="Publisher: cvdf or deepmind; default: the first that has the release."
        ),
    ] = None,
    base_url: BaseUrl = None,
    parallel: Parallel = 4,
    accept_changed: AcceptChanged = False,
    as_json: AsJson = False,
) -> None:
    """Fetch annotation lists, or see that those fetched before are still what is published."""
    from k710.config import to_mapping
    from k710.fetch.annotations import FetchAnnotationsConfig, fetch_annotations, require_all

    from .progress import Stages

    config = FetchAnnotationsConfig(
        releases=words(release),
        out=out,
        publisher=publisher,
        base_url=base_url,
        parallel=parallel,
        accept_changed=accept_changed,
    )
    with Stages() as stages:
        summary = fetch_annotations(config, lambda so_far: _show(stages, "lists", so_far))
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe_lists(summary))
    require_all(out, summary.files)


def videos(
    release: Releases,
    out: Annotated[Path, typer.Option("--out", help="Folder for the archives.")],
    split: Annotated[
        str, typer.Option("--split", metavar="LIST", help="Splits, comma-separated; replacements come with train.")
    ] = "train,val,test",
    base_url: BaseUrl = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be fetched, with sizes; write nothing.")
    ] = False,
    max_archives: Annotated[
        int | None, typer.Option("--max-archives", min=1, help="The most archives of each split; default: all.")
    ] = None,
    parallel: Parallel = 4,
    extract: Annotated[
        Path | None,
        typer.Option(
            "--extract", help="Folder for the clips, which `k710 build --videos` takes; archives are removed."
        ),
    ] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep archives after --extract has their clips.")
    ] = False,
    accept_changed: AcceptChanged = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the archives of videos that CVDF publishes, or go on with it."""
    from k710.config import to_mapping
    from k710.fetch.annotations import require_all
    from k710.fetch.videos import TERMS, FetchVideosConfig, fetch_videos

    from .progress import Stages

    config = FetchVideosConfig(
        releases=words(release),
        out=out,
        splits=words(split),
        base_url=base_url,
        dry_run=dry_run,
        max_archives=max_archives,
        parallel=parallel,
        extract=extract,
        keep_archives=keep_archives,
        accept_changed=accept_changed,
    )
    with Stages() as stages:
        stages.say(TERMS)
        summary = fetch_videos(config, lambda so_far: _show(stages, "archives", so_far))
    text = describe_plan(summary) if dry_run else describe_videos(summary, extract)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else text)
    require_all(out, summary.files)


def describe_lists(summary: FetchSummary) -> str:
    """What a fetch of lists did, in a few lines."""
    lines = _troubles(summary.files)
    if summary.lists:
        lines.append(f"lists that a build finds there: {', '.join(summary.lists)}")
    return "\n".join([*lines, f"done {_counted(summary.files)} -> {summary.out}, {summary.out}/sources.json"])


def describe_plan(summary: VideosSummary) -> str:
    """What a fetch of videos would get, a line for each archive."""
    from k710.clip_figures import sized

    def size(size_bytes: int | None) -> str:
        return "size not said" if size_bytes is None else sized(size_bytes)

    lines = [f"{url}  {status or size(size_bytes)}" for url, status, size_bytes in summary.planned]
    known = [size_bytes for _, _, size_bytes in summary.planned if size_bytes is not None]
    total = f"{len(summary.planned):,} archives, {sized(sum(known))} in the {len(known):,} whose size is known"
    return "\n".join([*_troubles(summary.lists), *lines, f"would fetch {total} -> {summary.out}"])


def describe_videos(summary: VideosSummary, clips: Path | None) -> str:
    """What a fetch of videos did, in a few lines."""
    lines = _troubles(summary.files)
    where = f"{summary.out}, {summary.out}/sources.json"
    if clips is not None:
        skipped: Counter[str] = Counter()
        for found in summary.extracted.values():
            skipped.update(found.skipped)
        lines += [f"passed over {count:,} members: {reason}" for reason, count in sorted(skipped.items())]
        where = f"{sum(found.clips for found in summary.extracted.values()):,} clips in {clips}, {where}"
    return "\n".join([*lines, f"done {_counted(summary.archives)} -> {where}"])


def _troubles(files: Sequence[Outcome]) -> list[str]:
    return [f"WARNING: {outcome.line}" for outcome in files if not outcome.is_good or outcome.status == "not_compared"]


def _counted(files: Sequence[Outcome]) -> str:
    """``3 of 4 files (2 fetched, 1 unchanged, 1 not_found)``."""
    counts = Counter(outcome.status for outcome in files)
    listed = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    return f"{sum(outcome.is_good for outcome in files):,} of {len(files):,} files{f' ({listed})' if listed else ''}"


def _show(stages: Stages, name: str, so_far: SoFar) -> None:
    stages(name, so_far.done, so_far.total, so_far.note())
