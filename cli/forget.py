"""`k710 forget`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DEFAULT_DATA, AsJson

if TYPE_CHECKING:
    from k710.takedown.forget import ForgetSummary

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of videos; those that begin with - come after --.")
]
IdsFile = Annotated[Path | None, typer.Option("--ids", help="File with one id a line; - for standard input.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


def forget(
    ids: Ids = None,
    ids_file: IdsFile = None,
    data: Annotated[str, typer.Option("--data", help="Folder of the build.")] = str(DEFAULT_DATA),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take videos out of a build for good: their clips, their rows in every view, and every later plan of it."""
    from k710.config import to_mapping
    from k710.objects.copies import folder_of_build
    from k710.takedown import forget as library
    from k710.takedown.forgotten import read_ids

    from .progress import Stages

    listed = [] if ids_file is None else read_ids(sys.stdin if str(ids_file) == "-" else ids_file)
    out = folder_of_build(data, "forget")
    config = library.ForgetConfig(ids=(*(ids or ()), *listed), out=out, dry_run=dry_run)
    with Stages() as stages:
        summary = library.forget(config, stages)
    typer.echo(json.dumps(to_mapping(summary), indent=1) if as_json else describe(summary))


def describe(summary: ForgetSummary) -> str:
    """What a takedown did, in a few lines."""
    lines = []
    if summary.not_listed:
        lines.append(f"not in this build, and kept out of it from now on: {', '.join(summary.not_listed)}")
    if summary.forgotten_before:
        lines.append(f"forgotten before: {_count(summary.forgotten_before, 'video')}")
    if summary.drawn:
        lines.append("drawn by --per-class: `k710 build --replan` may draw other clips in their place")
    if summary.unfinished:
        lines.append("this build is not finished: run `k710 build` with its arguments again, which goes on")
    if (summary.out / "exports").exists():
        lines.append("exports/ was written before: run `k710 export` again, and see not_named in its export.json")
    verb = "would forget" if summary.dry_run else "forgot"
    where = f"{summary.out}, {summary.out}/forgotten.json"
    shards = f"in {_count(summary.shards_rewritten, 'shard')} rewritten, {summary.shards_removed:,} removed"
    if not summary.shards_rewritten + summary.shards_removed:
        shards = "that no shard held"
    lines.append(f"{verb} {_count(summary.videos, 'video')} ({_count(summary.clips, 'clip')} {shards}) -> {where}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
