"""`k710 synth`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write: annotations/, videos/ and truth.json.")],
    clips: Annotated[int, typer.Option("--clips", help="Distinct segments in all lists together.")] = 720,
    classes: Annotated[
        int, typer.Option("--classes", help="Classes; at least half differ only in the order of frames.")
    ] = 12,
    seed: Annotated[int, typer.Option("--seed", help="Same arguments, same bytes.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Encoding processes; default: one per core.")
    ] = None,
) -> None:
    """Write a toy Kinetics: real mp4 files and three releases' CSVs, with leaks and broken files planted."""
    from k710.config import from_mapping
    from k710.synth.plan import SynthConfig
    from k710.synth.write import synth as write

    from .progress import Stages

    config = from_mapping(SynthConfig, {"num_clips": clips, "num_classes": classes, "seed": seed}, where="synth")
    with Stages() as stages:
        summary = write(
            config,
            out,
            workers=workers or os.cpu_count() or 1,
            progress=lambda done, total: stages("videos", done, total),
        )
    views = ", ".join(f"{name} {clips:,}" for name, clips in summary.views.items())
    typer.echo(f"planted: {summary.num_leaks} leaking videos; a build should list {views}")
    typer.echo(
        f"done {summary.num_clips:,} clips in {summary.num_files:,} files, {summary.num_written:,} written now "
        f"-> {out}/annotations, {out}/videos, {out}/truth.json"
    )
