"""`k710 browse`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson

if TYPE_CHECKING:
    from k710.browse.gallery import BrowseSummary

_MOST_LINES = 20
"""Clips without a picture that are named; --json has all."""

Build = Annotated[str, typer.Argument(metavar="OUT", help="The build: a folder or an fsspec URL.")]
Views = Annotated[list[str] | None, typer.Option("--view", help="View to make all pages of; repeatable.")]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME", help="Class, in each --view or in all; none: unlabelled; repeatable."),
]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="Clips without bytes to show, such as missing; repeatable.")
]
Keys = Annotated[list[str] | None, typer.Option("--key", help="Clip whose pages to make; repeatable.")]
Conflicts = Annotated[bool, typer.Option("--conflicts", help="Show rows of one video that have different classes.")]
Near = Annotated[bool, typer.Option("--near-duplicates", help="Show pairs of near_duplicates.parquet.")]
Everything = Annotated[bool, typer.Option("--all", help="Make every page.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the gallery; default: browse/ in the build.")]
Budget = Annotated[
    int, typer.Option("--budget", min=0, help="Most clips on the pages that are made when nothing is asked for.")
]
PerPage = Annotated[int, typer.Option("--per-page", min=1, max=500, help="Most clips of a page.")]
Frames = Annotated[int, typer.Option("--frames", min=1, max=32, help="Frames shown of each clip.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Decoding processes; default: one per core.")]
Serve = Annotated[
    bool, typer.Option("--serve", help="Serve the gallery to this machine alone, and make pages as they are opened.")
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of --serve; 0: any that is free.")]


def browse(
    build: Build = "k710-data",
    views: Views = None,
    classes: Classes = None,
    statuses: Statuses = None,
    keys: Keys = None,
    conflicts: Conflicts = False,
    near_duplicates: Near = False,
    everything: Everything = False,
    out: Out = None,
    budget: Budget = 2000,
    per_page: PerPage = 60,
    frames: Frames = 4,
    workers: Workers = None,
    serve: Serve = False,
    port: Port = 8710,
    as_json: AsJson = False,
) -> None:
    """Show the clips of a build as a gallery of pages: by view and class, what is missing, conflicts side by side."""
    from k710.browse.contact_sheets import SheetSettings
    from k710.browse.gallery import BrowseConfig
    from k710.browse.gallery import browse as library
    from k710.browse.sections import Asked
    from k710.browse.serve import serve as serve_gallery
    from k710.config import to_mapping

    from .progress import Stages

    config = BrowseConfig(
        build=build,
        out=out,
        asked=Asked(
            views=tuple(views or ()),
            classes=tuple(classes or ()),
            statuses=tuple(statuses or ()),
            keys=tuple(keys or ()),
            conflicts=conflicts,
            near_duplicates=near_duplicates,
            everything=everything,
        ),
        budget=budget,
        per_page=per_page,
        sheet=SheetSettings(frames=frames),
        workers=workers or os.cpu_count() or 1,
    )
    if serve:
        serve_gallery(config, port=port, say=lambda address: typer.echo(f"serving {address} until interrupted"))
        return
    with Stages() as stages:
        summary = library(config, stages)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))


def describe(summary: BrowseSummary) -> str:
    """What was done, in some lines; the last one sums it up."""
    shown = list(summary.not_drawn.items())[:_MOST_LINES]
    lines = [f"no picture: {key}: {reason}" for key, reason in shown]
    left = len(summary.not_drawn) - len(shown)
    lines += [f"... and {left:,} more; --json has all"] if left else []
    lines.append(
        f"done {summary.pages:,} of {summary.planned:,} pages, {summary.written:,} written now, "
        f"{summary.sheets:,} clips drawn -> {summary.index}"
    )
    return "\n".join(lines)
