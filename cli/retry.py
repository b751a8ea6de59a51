"""`k710 retry`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .build import MinClips, Videos, Workers, describe
from .options import DEFAULT_DATA, AsJson, words

Status = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="LIST",
        help="Which clips, comma-separated: missing, ambiguous, corrupt, truncated, not_a_video, no_video_stream, "
        "too_short, too_large, timeout, needs_cut (default: all of these), or ok, to make clips anew.",
    ),
]


def retry(
    status: Status = None,
    data: Annotated[Path, typer.Option("--data", help="Folder of the build.")] = DEFAULT_DATA,
    videos: Videos = None,
    workers: Workers = None,
    min_clips: MinClips = None,
    as_json: AsJson = False,
) -> None:
    """Try clips again that came to nothing, as the last `k710 build` into this folder was told."""
    from k710 import retry as library
    from k710.build import require_clips
    from k710.config import to_mapping

    from .progress import Stages

    config = library.RetryConfig(
        out=data,
        statuses=library.DEFAULT_STATUSES if status is None else words(status),
        videos=tuple(videos or ()),
        workers=workers,
        min_clips_pct=min_clips,
    )
    with Stages() as stages:
        summary = library.retry(config, stages, on_clips=stages.clips, say=stages.say)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))
    require_clips(summary)
