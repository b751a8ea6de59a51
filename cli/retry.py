"""`k710 retry`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import sources
from .build import MinClips, Work, Workers, describe
from .options import DEFAULT_DATA, AsJson, words

Status = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="LIST",
        help="Which clips, comma-separated: missing, ambiguous, corrupt, truncated, not_a_video, no_video_stream, "
        "too_short, too_large, timeout, needs_cut, pending, forbidden, private, removed, terminated, geo_blocked, "
        "age_restricted, copyright (default: all of these), or ok, to make clips anew.",
    ),
]


def retry(
    status: Status = None,
    data: Annotated[str, typer.Option("--data", help="Folder or URL of the build.")] = str(DEFAULT_DATA),
    work: Work = None,
    videos: sources.Videos = None,
    workers: Workers = None,
    min_clips: MinClips = None,
    cookies: sources.Cookies = None,
    cookies_from_browser: sources.CookiesFromBrowser = "",
    proxy: sources.Proxy = "",
    source_address: sources.SourceAddress = "",
    as_json: AsJson = False,
) -> None:
    """Try clips again that came to nothing, as the last `k710 build` into this folder was told."""
    from k710 import retry as library
    from k710.build_summary import require_clips
    from k710.config import to_mapping
    from k710.objects.protocols import place

    from .progress import Stages

    config = library.RetryConfig(
        **place(data),
        work=work,
        statuses=library.DEFAULT_STATUSES if status is None else words(status),
        videos=tuple(videos or ()),
        workers=workers,
        min_clips_pct=min_clips,
    )
    access = sources.access(cookies, cookies_from_browser, proxy, source_address)
    with Stages() as stages:
        summary = library.retry(config, stages, on_clips=stages.clips, say=stages.say, access=access)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))
    require_clips(summary)
